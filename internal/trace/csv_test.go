package trace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const good = `# a comment
time,disk,used_bytes,capacity_bytes,namespace,class,peak_mibs
2026-01-05T00:00:00Z,a,1073741824,107374182400,ml,training,
2026-01-05T01:00:00Z,a,2147483648,107374182400,,,125.5
1767578400,a,1e9,214748364800,,,
2026-01-05T00:00:00+01:00,b,0,107374182400,web,,
2026-01-05T01:00:00+01:00,b,5,107374182400,web,,
`

func open(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

func collect(t *testing.T, s Source) map[string]Disk {
	t.Helper()
	out := map[string]Disk{}
	var mu sync.Mutex
	require.NoError(t, s(t.Context(), 3, func(d *Disk) error {
		mu.Lock()
		defer mu.Unlock()
		require.NotContains(t, out, d.ID)
		out[d.ID] = *d
		return nil
	}))
	return out
}

func TestCSV(t *testing.T) {
	got := collect(t, CSV{Name: "usage.csv", Open: open(good)}.Play)
	require.Len(t, got, 2)
	a := got["a"]
	require.Equal(t, "ml", a.Namespace)
	require.Equal(t, "training", a.Class)
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC).Unix()
	require.Equal(t, []Sample{
		{At: start, Used: 1 * GiB, Capacity: 100 * GiB},
		{At: start + 3600, Used: 2 * GiB, Capacity: 100 * GiB, MiBs: 125.5},
		{At: start + 7200, Used: 1e9, Capacity: 200 * GiB},
	}, a.Samples)
	require.Equal(t, start-3600, got["b"].Samples[0].At)
}

func TestBadCSV(t *testing.T) {
	const head = "disk,time,used_bytes,capacity_bytes\n"
	const row = "a,2026-01-05T00:00:00Z,1,107374182400\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":           {"", "usage.csv: the trace is empty; want a header line: disk,time,used_bytes,capacity_bytes,..."},
		"unit in header":  {"disk,time,used_gib,capacity_bytes\n", "usage.csv:1: used_gib: there is no such column; usage is in used_bytes, in bytes"},
		"unknown column":  {"disk,time,used_bytes,capacity_bytes,colour\n", "usage.csv:1: colour: there is no such column; columns are disk, time,"},
		"column twice":    {"disk,time,used_bytes,used_bytes\n", "usage.csv:1: used_bytes: the column is there twice"},
		"column missing":  {"disk,time,used_bytes\n", "usage.csv:1: capacity_bytes: the column is missing"},
		"fields":          {head + row + "a,2026-01-05T01:00:00Z,1\n", "usage.csv:3: 3 fields, the header has 4"},
		"quote":           {head + row + "a\"b,2026-01-05T01:00:00Z,1,2\n", `usage.csv:3: bare " in non-quoted-field`},
		"no disk":         {head + ",2026-01-05T00:00:00Z,1,107374182400\n", "usage.csv:2: disk: it is empty"},
		"time back":       {head + "a,2026-01-05T02:00:00Z,1,107374182400\n" + row, "usage.csv:3: time: time goes back: 2026-01-05T00:00:00Z after 2026-01-05T02:00:00Z"},
		"time twice":      {head + row + row, "usage.csv:3: time: 2026-01-05T00:00:00Z is the time of this disk's row before, too"},
		"gap":             {head + row + "a,2026-01-05T07:00:00Z,1,107374182400\n", "usage.csv:3: time: a gap of 7h0m0s since 2026-01-05T00:00:00Z; at most 6h0m0s"},
		"milliseconds":    {head + "a,1767571200000,1,107374182400\n", "usage.csv:2: time: \"1767571200000\" seems to be milliseconds"},
		"no time":         {head + "a,yesterday,1,107374182400\n", "usage.csv:2: time: \"yesterday\" is not a time"},
		"old time":        {head + "a,17,1,107374182400\n", "usage.csv:2: time: \"17\" is before the year 2000"},
		"unit":            {head + "a,2026-01-05T00:00:00Z,12GiB,107374182400\n", `usage.csv:2: used_bytes: "12GiB" is not a number of bytes; write it without a unit`},
		"fraction":        {head + "a,2026-01-05T00:00:00Z,12.5,107374182400\n", `usage.csv:2: used_bytes: "12.5" is not a whole number; is it in another unit?`},
		"GiB":             {head + "a,2026-01-05T00:00:00Z,12,100\n", "usage.csv:2: capacity_bytes: 100 bytes are less than 64 MiB; is it in another unit?"},
		"KiB":             {head + "a,2026-01-05T00:00:00Z,12,1099511627776000\n", "usage.csv:2: capacity_bytes: 1099511627776000 bytes are more than 256 TiB"},
		"mixed":           {head + "a,2026-01-05T00:00:00Z,1073741824000,1073741824\n", "usage.csv:2: used_bytes: 1073741824000 bytes used of 1073741824; are the units the same?"},
		"negative":        {head + "a,2026-01-05T00:00:00Z,-1,1073741824\n", "usage.csv:2: used_bytes: -1 is negative"},
		"word":            {head + "a,2026-01-05T00:00:00Z,lots,1073741824\n", `usage.csv:2: used_bytes: "lots" is not a number of bytes`},
		"nothing":         {head + "a,2026-01-05T00:00:00Z,,1073741824\n", "usage.csv:2: used_bytes: it is empty"},
		"NaN":             {head + "a,2026-01-05T00:00:00Z,NaN,1073741824\n", "usage.csv:2: used_bytes: "},
		"smaller":         {head + row + "a,2026-01-05T01:00:00Z,1,1073741824\n", "usage.csv:3: capacity_bytes: it falls from 107374182400 to 1073741824 bytes"},
		"one row":         {head + row, `usage.csv:2: disk: "a" has one row only`},
		"apart":           {head + row + "a,2026-01-05T01:00:00Z,1,107374182400\nb,1767571200,1,1073741824\nb,1767571300,1,1073741824\na,2026-01-05T02:00:00Z,1,107374182400\n", `usage.csv:6: disk: "a" again, whose rows began on line 2`},
		"volume type":     {"disk,time,used_bytes,capacity_bytes,volume_type\na,1767571200,1,1073741824,ssd\n", `usage.csv:2: volume_type: "ssd" is no EBS volume type`},
		"IOPS":            {"disk,time,used_bytes,capacity_bytes,volume_iops\na,1767571200,1,1073741824,3k\n", `usage.csv:2: volume_iops: "3k" is not a whole number`},
		"other namespace": {"disk,time,used_bytes,capacity_bytes,namespace\na,1767571200,1,1073741824,x\na,1767571300,1,1073741824,y\n", `usage.csv:3: namespace: "y", but this disk's first row says "x"`},
		"peak":            {"disk,time,used_bytes,capacity_bytes,peak_iops\na,1767571200,1,1073741824,inf\n", `usage.csv:2: peak_iops: "inf" is not a number`},
	} {
		t.Run(name, func(t *testing.T) {
			err := CSV{Name: "usage.csv", Open: open(c.text)}.Play(t.Context(), 2, func(*Disk) error { return nil })
			require.ErrorContains(t, err, c.want)
			var e *Error
			require.ErrorAs(t, err, &e)
		})
	}
}

func TestGapCanBeAllowed(t *testing.T) {
	text := "disk,time,used_bytes,capacity_bytes\na,1767571200,1,1073741824\na,1767657600,1,1073741824\n"
	require.Len(t, collect(t, CSV{Open: open(text), MaxGap: 24 * time.Hour}.Play), 1)
}

func TestWriteAndRead(t *testing.T) {
	f, err := NewFleet(Fleet{Shape: "ai-platform", Disks: 20, Days: 10, Seed: 3})
	require.NoError(t, err)
	var b bytes.Buffer
	w, err := NewWriter(&b)
	require.NoError(t, err)
	var want []*Disk
	for i := range f.Disks {
		want = append(want, f.Disk(i))
		require.NoError(t, w.Write(want[i]))
	}
	require.NoError(t, w.Flush())
	got := collect(t, CSV{Name: "x", Open: open(b.String()), MaxGap: time.Hour}.Play)
	for _, d := range want {
		g := got[d.ID]
		require.Equal(t, d.Volume, g.Volume)
		require.Equal(t, d.Claim, g.Claim)
		at := map[int64]Sample{}
		for _, s := range g.Samples {
			at[s.At] = s
		}
		for _, s := range d.Samples {
			require.Equal(t, s, at[s.At])
		}
	}
}

func TestPlayStops(t *testing.T) {
	boom := errors.New("boom")
	f, err := NewFleet(Fleet{Shape: "steady", Disks: 100, Days: 2, Seed: 1})
	require.NoError(t, err)
	for name, s := range map[string]Source{"fleet": f.Play, "csv": CSV{Open: open(good)}.Play} {
		require.ErrorIs(t, s(t.Context(), 2, func(*Disk) error { return boom }), boom, name)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, s(ctx, 2, func(*Disk) error { return nil }), context.Canceled, name)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(good)
	f.Add("disk,time,used_bytes,capacity_bytes\na,1767571200,1,1073741824\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := NewReader("x", strings.NewReader(text), 0)
		for err == nil {
			var d *Disk
			if d, err = r.Next(); err == nil {
				for i, s := range d.Samples {
					require.LessOrEqual(t, s.Used, s.Capacity)
					require.True(t, i == 0 || s.At > d.Samples[i-1].At)
				}
			}
		}
	})
}
