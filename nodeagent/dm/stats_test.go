package dm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseCounters(t *testing.T) {
	got, err := parseCounters("0+2048 1 0 8 0 7 0 56 3 0 4 4 1 3\n2048+2048 0 0 0 0 0 0 0 0 2 0 0 0 0\n")
	require.NoError(t, err)
	require.Equal(t, []Counters{{Reads: 1, Writes: 7, Written: 56}, {InFlight: true}}, got)
	got, err = parseCounters("")
	require.NoError(t, err)
	require.Empty(t, got)
	for _, bad := range []string{"0+8 1 2 3", "0+8 1 0 8 0 x 0 56 3 0 4", "0+8 1 0 8 0 7 0 -1 3 0 4"} {
		_, err := parseCounters(bad)
		require.ErrorIs(t, err, ErrStatus, "%q", bad)
	}
}
