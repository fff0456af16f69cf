package size_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/starter/internal/size"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]int64{
		"64GiB": 64 << 30, "64Gi": 64 << 30, "512MiB": 512 << 20, "2TiB": 2 << 40, "4KiB": 4096, "0GiB": 0,
	} {
		got, err := size.Parse(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for in, hint := range map[string]string{
		"64G":                     "did you mean 64GiB?",
		"64GB":                    "did you mean 64GiB?",
		"64gib":                   "did you mean 64GiB?",
		"64 GiB":                  "did you mean 64GiB?",
		"64g":                     "did you mean 64GiB?",
		"64":                      "the unit is missing; did you mean 64GiB?",
		"1.5TiB":                  "use the next smaller unit",
		"":                        "such as 64GiB",
		"-1GiB":                   "such as 64GiB",
		"GiB":                     "such as 64GiB",
		"64PiB":                   "such as 64GiB",
		"0x10GiB":                 "such as 64GiB",
		"99999999999999999999GiB": "too large",
		"9999999999999TiB":        "too large",
	} {
		_, err := size.Parse(in)
		require.ErrorContains(t, err, hint, in)
	}
}

func TestParseGiB(t *testing.T) {
	got, err := size.ParseGiB("1TiB")
	require.NoError(t, err)
	require.EqualValues(t, 1024, got)
	_, err = size.ParseGiB("1536MiB")
	require.ErrorContains(t, err, "try 2GiB")
	_, err = size.ParseGiB("0GiB")
	require.ErrorContains(t, err, "at least 1GiB")
}

func TestParseRate(t *testing.T) {
	for in, want := range map[string]int64{"200MiB/s": 200, "1GiB/s": 1024, "off": 0, "64Mi/s": 64} {
		got, err := size.ParseRate(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for in, hint := range map[string]string{
		"200":      "did you mean 200MiB/s?",
		"200M":     "did you mean 200MiB/s?",
		"200MiB":   "did you mean 200MiB/s?",
		"200MB/s":  "did you mean 200MiB/s?",
		"0MiB/s":   "say off",
		"512KiB/s": "whole MiB/s",
		"fast":     "such as 64MiB/s",
	} {
		_, err := size.ParseRate(in)
		require.ErrorContains(t, err, hint, in)
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"7d": 7 * 24 * time.Hour, "24h": 24 * time.Hour, "1s": time.Second} {
		got, err := size.ParseDuration(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
	}
	for _, in := range []string{"", "0", "0s", "-1h", "7", "d", "1.5d", "99999999999d", "999999d"} {
		_, err := size.ParseDuration(in)
		require.Error(t, err, in)
	}
}

func TestBytes(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 4096: "4 KiB", 64 << 30: "64 GiB", 1536 << 20: "1.50 GiB",
		15<<30 + 1<<29: "15.5 GiB", 300<<30 + 1: "300 GiB", 2 << 40: "2 TiB", -4096: "-4 KiB",
	} {
		require.Equal(t, want, size.Bytes(in))
	}
	require.Equal(t, "41.5 MiB/s", size.Rate(41.5))
	require.Equal(t, "283 MiB/s", size.Rate(283.2))
}

func TestParseNeverPanicsAndNeverOverflows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[0-9]{0,25}(K|M|G|T)?i?B?(/s)?`).Draw(t, "s")
		if b, err := size.Parse(s); err == nil && b < 0 {
			t.Fatalf("%q became %d", s, b)
		}
		if r, err := size.ParseRate(s); err == nil && r < 0 {
			t.Fatalf("%q became %d", s, r)
		}
	})
}
