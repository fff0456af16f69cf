package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
)

func TestKind(t *testing.T) {
	t.Setenv(node.KindEnv, "")
	require.Equal(t, node.KindUML, node.Kind(), "a kernel of its own, whatever this machine could do besides")
	want := node.KindUML
	if node.Available(node.KindLoop) == nil {
		want = node.KindLoop
	}
	require.Equal(t, want, node.SoloKind())
	require.Equal(t, node.Available(node.KindUML), node.OwnKernel())

	t.Setenv(node.KindEnv, node.KindLoop)
	require.Equal(t, node.KindLoop, node.Kind())
	require.Equal(t, node.KindLoop, node.SoloKind())
	err := node.OwnKernel()
	require.ErrorIs(t, err, node.ErrUnavailable)
	require.ErrorContains(t, err, "NODE=loop")
	require.ErrorContains(t, err, "leave NODE unset")

	t.Setenv(node.KindEnv, "cloud")
	require.ErrorContains(t, node.Available(node.Kind()), `"cloud"`)
	require.ErrorContains(t, node.OwnKernel(), `"cloud"`)
}
