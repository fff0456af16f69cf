package disk_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TestNodeRetireEndsMove looks at the disk at every stage of a move's end: a
// move is reported until its old generation is taken down, and not after, nor
// when the old volume is detached.
func TestNodeRetireEndsMove(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, 2*gib)
	in := b.prepare("m-1", gib)
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	co, err := b.CommitMove(t.Context(), in)
	require.NoError(t, err)
	require.NotNil(t, co.Measurement.Move)
	require.Equal(t, contract.PhaseCommit, co.Measurement.Move.Phase)
	b.restart()
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.NotNil(t, m.Move, "the old generation's devices are still there")

	_, err = b.RetireBacking(t.Context(), in)
	require.NoError(t, err)
	m, err = b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.Nil(t, m.Move)
	b.drop(b.vols[0])
	m, err = b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.Nil(t, m.Move)
}
