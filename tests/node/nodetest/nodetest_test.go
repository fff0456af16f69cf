package nodetest_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

// TestInNode runs the TestNode tests of this file inside a node.
func TestInNode(t *testing.T) {
	n := nodetest.Boot(t, node.Options{})
	nodetest.AttachVolume(t, n, "vol-1", 64<<20)
	nodetest.Run(t, n, "^TestNode")
}

func TestNodeCloud(t *testing.T) {
	host := nodetest.Host(t)
	dev := node.VolumePath("vol-1")
	f, err := os.OpenFile(dev, os.O_RDWR|syscall.O_DIRECT, 0)
	require.NoError(t, err)
	require.ErrorIs(t, host.Detach("vol-1"), node.ErrBusy)
	host.Resize("vol-1", 128<<20)
	size, err := f.Seek(0, 2)
	require.NoError(t, err)
	require.EqualValues(t, 128<<20, size)
	require.NoError(t, f.Close())
	require.NoError(t, host.Detach("vol-1"))
	host.Delete("vol-1")

	host.Attach("vol-2", 32<<20)
	_, err = os.Stat(node.VolumePath("vol-2"))
	require.NoError(t, err)
	require.NoError(t, host.Detach("vol-2"))
}

func TestNodeUname(t *testing.T) {
	_ = nodetest.Host(t)
	name, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, "i-test", name)
}
