package acked

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLossIsSeen(t *testing.T) {
	dir, journal := t.TempDir(), filepath.Join(t.TempDir(), "journal")
	write := func(n uint64) Stats {
		w := &Writer{Dir: dir, Journal: journal}
		ctx, cancel := context.WithCancel(t.Context())
		w.Bytes = func(i uint64) int {
			if w.acked.Load() == n-1 {
				cancel()
			}
			return mixed(i)
		}
		s, err := w.Run(ctx)
		require.NoError(t, err)
		return s
	}
	require.EqualValues(t, 20, write(20).Acked)
	require.EqualValues(t, 10, write(10).Acked) // goes on in the same journal
	r, err := Check(dir, journal)
	require.NoError(t, err)
	require.True(t, r.OK())
	require.EqualValues(t, 30, r.Acked)

	require.NoError(t, Delete(dir, journal, func(i uint64) bool { return i%3 != 0 }))
	r, err = Check(dir, journal)
	require.NoError(t, err)
	require.True(t, r.OK())
	require.EqualValues(t, 20, r.Acked)

	require.NoError(t, os.Remove(filepath.Join(dir, name(1))))
	b, err := os.ReadFile(filepath.Join(dir, name(2)))
	require.NoError(t, err)
	b[len(b)/2] ^= 1
	require.NoError(t, os.WriteFile(filepath.Join(dir, name(2)), b, 0o644))
	require.NoError(t, os.Truncate(filepath.Join(dir, name(4)), 1))
	r, err = Check(dir, journal)
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Lost)
	require.EqualValues(t, 2, r.Wrong)
	require.Len(t, r.Details, 3)
}

func TestUnfinishedLineIsNotAcknowledged(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	require.NoError(t, os.WriteFile(journal, []byte("W 0 5 00000000\nW 1 5"), 0o644))
	r, err := Check(t.TempDir(), journal)
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Lost)
}
