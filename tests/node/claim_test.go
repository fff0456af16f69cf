package node

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestClaim lets a second process wait for the first.
func TestClaim(t *testing.T) {
	const env = "EBB_TEST_CLAIM"
	if path := os.Getenv(env); path != "" {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		require.NoError(t, claim(ctx, path))
		return
	}
	other := func(path string) error {
		cmd := exec.Command(os.Args[0], "-test.run=^TestClaim$")
		cmd.Env = append(os.Environ(), env+"="+path)
		return cmd.Run()
	}
	dir := t.TempDir()
	for range 2 { // the same process may have several nodes
		require.NoError(t, claim(t.Context(), filepath.Join(dir, "mine")))
	}
	require.Error(t, other(filepath.Join(dir, "mine")), "held by this process")
	require.NoError(t, other(filepath.Join(dir, "free")))
	require.NoError(t, other(filepath.Join(dir, "free")), "given up by a process that has ended")
}
