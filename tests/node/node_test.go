package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
)

// boot starts a node that ends with the test.
func boot(t *testing.T, id string) node.Node {
	t.Helper()
	n, err := node.New(node.Options{ID: id, Dir: t.TempDir()})
	if errors.Is(err, node.ErrUnavailable) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, n.PowerCut()) })
	require.NoError(t, n.Boot(t.Context()))
	return n
}

// sh runs a shell command in a node and returns what it printed.
func sh(t *testing.T, n node.Node, script string) string {
	t.Helper()
	out, code := try(t, n, script)
	require.Zero(t, code, "%s: %s", script, out)
	return out
}

func try(t *testing.T, n node.Node, script string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	code, err := n.Exec(ctx, node.Command{Path: "sh", Args: []string{"-c", script}, Stdout: &out, Stderr: &out})
	require.NoError(t, err, script)
	return strings.TrimSpace(out.String()), code
}

func TestExec(t *testing.T) {
	n := boot(t, "i-exec")
	require.True(t, n.Running())
	require.Equal(t, "i-exec 1 "+n.HostAddress(), sh(t, n, "echo $EBB_NODE_ID $EBB_IN_NODE $EBB_HOST_ADDRESS"))
	for _, target := range []string{"thin-pool", "mirror", "flakey", "dust", "delay", "log-writes"} {
		require.Contains(t, sh(t, n, "dmsetup targets"), target)
	}

	var out, errs bytes.Buffer
	code, err := n.Exec(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "cat; pwd; echo $A >&2; exit 3"}, Dir: "/usr", Env: []string{"A=b"}, Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &errs})
	require.NoError(t, err)
	require.Equal(t, 3, code)
	require.Equal(t, "in\n/usr\n", out.String())
	require.Equal(t, "b\n", errs.String())

	_, err = n.Exec(t.Context(), node.Command{Path: "/nonexistent"})
	require.ErrorContains(t, err, "no such file")
	require.Equal(t, n.ID()+".json", sh(t, n, "echo {} > "+n.Dir()+"/"+n.ID()+".json; ls "+n.Dir()+" | grep "+n.ID()))
	require.FileExists(t, filepath.Join(n.Dir(), n.ID()+".json"), "shared with the host")

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = n.Exec(ctx, node.Command{Path: "sleep", Args: []string{"1000"}})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestVolumeSurvivesPowerCut(t *testing.T) {
	n := boot(t, "i-power")
	path := filepath.Join(t.TempDir(), "vol-1")
	require.NoError(t, n.Attach(t.Context(), "vol-1", "/dev/sdf", path, 256<<20))
	dev := node.VolumePath("vol-1")
	require.Equal(t, fmt.Sprint(256<<20), sh(t, n, "blockdev --getsize64 "+dev))
	require.Equal(t, "EBSVOL-vol-1", sh(t, n, "dmsetup info -c --noheadings -o uuid "+dev))
	sh(t, n, "mkfs.ext4 -q "+dev+" && mkdir -p /run/m && mount "+dev+" /run/m && echo kept > /run/m/f && sync -f /run/m/f")
	require.NoError(t, n.PowerCut())
	require.False(t, n.Running())
	_, err := n.Exec(t.Context(), node.Command{Path: "true"})
	require.ErrorIs(t, err, node.ErrNotRunning)

	require.NoError(t, n.Boot(t.Context()))
	require.Equal(t, "kept", sh(t, n, "mkdir -p /run/m && mount "+dev+" /run/m && cat /run/m/f"))
	require.ErrorIs(t, n.Detach(t.Context(), "vol-1"), node.ErrBusy)
	sh(t, n, "umount /run/m")
	require.NoError(t, n.Detach(t.Context(), "vol-1"))
	require.ErrorIs(t, n.Detach(t.Context(), "vol-1"), node.ErrNotAttached)
	_, code := try(t, n, "test -e "+dev)
	require.Equal(t, 1, code)
	_, err = os.Stat(path)
	require.NoError(t, err)
}
