package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHostFileChanges proves that the node does not go on with what it once read of a file of the host.
func TestHostFileChanges(t *testing.T) {
	n := boot(t, "i-share")
	path := filepath.Join(n.Dir(), "f")
	for _, text := range []string{"one", "two", "three and more"} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		require.Equal(t, text, sh(t, n, "cat "+path))
		require.NoError(t, os.WriteFile(path+".new", []byte("renamed "+text), 0o644))
		require.NoError(t, os.Rename(path+".new", path))
		require.Equal(t, "renamed "+text, sh(t, n, "cat "+path))
	}
	sh(t, n, "echo from the node > "+path)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "from the node\n", string(b))
}
