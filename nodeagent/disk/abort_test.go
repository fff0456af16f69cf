package disk_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// TestNodeAbortedMoveIsGone: the new volume of an aborted move could not be marked as
// scrap, and is looked at once more before it is detached. Then no move is reported.
func TestNodeAbortedMoveIsGone(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, gib)
	in := b.prepare("m-1", gib)
	fresh := b.vols[1]
	headers := raw(t, fresh, 0, int(format.DataStart), nil)
	m, err := b.AbortMove(t.Context(), in)
	require.NoError(t, err)
	require.Nil(t, m.Move)
	raw(t, fresh, 0, int(format.DataStart), func(h []byte) { copy(h, headers) })
	_, err = b.Trim(t.Context(), b.disk)
	require.NoError(t, err)
	m, err = b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.NotNil(t, m.Move, "its volume is still here")
	b.drop(fresh)
	m, err = b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.Nil(t, m.Move)
}
