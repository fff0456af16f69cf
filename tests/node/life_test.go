package node_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
)

func TestStart(t *testing.T) {
	n := boot(t, "i-start")
	var out bytes.Buffer
	p, err := n.Start(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "trap 'echo bye; exit 7' TERM; echo up > /run/up; while :; do sleep 0.1; done"}, Stdout: &out})
	require.NoError(t, err)
	require.Positive(t, p.Pid())
	require.Eventually(t, func() bool { _, code := try(t, n, "test -e /run/up"); return code == 0 }, time.Minute, 50*time.Millisecond)
	require.NoError(t, p.Signal(syscall.SIGTERM))
	code, err := p.Wait()
	require.NoError(t, err)
	require.Equal(t, 7, code)
	require.Equal(t, "bye\n", out.String())
	require.Error(t, p.Signal(syscall.SIGTERM))

	p, err = n.Start(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "sleep 600 & wait"}, Stdin: endless{}})
	require.NoError(t, err)
	require.NoError(t, p.Kill())
	code, err = p.Wait()
	require.NoError(t, err)
	require.Equal(t, 137, code)

	p, err = n.Start(t.Context(), node.Command{Path: "sleep", Args: []string{"600"}})
	require.NoError(t, err)
	require.NoError(t, n.PowerCut())
	_, err = p.Wait()
	require.ErrorContains(t, err, "lost the node")
}

func TestShutdownWritesBack(t *testing.T) {
	n := boot(t, "i-shutdown")
	require.NoError(t, n.Attach(t.Context(), "vol-1", "", filepath.Join(t.TempDir(), "v"), 64<<20))
	dev := node.VolumePath("vol-1")
	sh(t, n, "mkfs.ext4 -q "+dev+" && mkdir -p /run/m && mount "+dev+" /run/m && echo lazy > /run/m/f")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, n.Shutdown(ctx))
	require.False(t, n.Running())
	require.NoError(t, n.Shutdown(ctx), "safe to repeat")
	require.NoError(t, n.PowerCut(), "safe to repeat")
	require.NoError(t, n.Boot(t.Context()))
	require.NotContains(t, sh(t, n, "dumpe2fs -h "+dev+" 2>/dev/null"), "needs_recovery")
	require.Equal(t, "lazy", sh(t, n, "mkdir -p /run/m && mount "+dev+" /run/m && cat /run/m/f"))
}

func TestPanicIsSeen(t *testing.T) {
	if node.Kind() != node.KindUML {
		t.Skip("would be the end of this host")
	}
	n := boot(t, "i-panic")
	_, _ = n.Start(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "echo c > /proc/sysrq-trigger"}})
	require.Eventually(t, func() bool { return !n.Running() }, time.Minute, 50*time.Millisecond)
	log, err := os.ReadFile(n.Console())
	require.NoError(t, err)
	require.Contains(t, string(log), "sysrq triggered crash")
	require.NoError(t, n.Boot(t.Context()))
	sh(t, n, "true")
}

func TestFailedBoot(t *testing.T) {
	if err := node.Available(node.KindUML); err != nil {
		t.Skip(err)
	}
	t.Setenv(node.GuestEnv, "")
	n, err := node.New(node.Options{Kind: node.KindUML, ID: "i-dead", Dir: t.TempDir(), MemoryMiB: 16})
	require.NoError(t, err)
	err = n.Boot(t.Context())
	require.ErrorContains(t, err, "boot i-dead: the kernel has ended")
	require.ErrorContains(t, err, "console.log")
	require.False(t, n.Running())

	n, err = node.New(node.Options{Kind: node.KindUML, ID: "i-slow", Dir: t.TempDir(), BootTimeout: 100 * time.Millisecond})
	require.NoError(t, err)
	require.ErrorContains(t, n.Boot(t.Context()), "no answer within 100ms")
	require.False(t, n.Running())
}

// TestTwoNodes moves a volume from one node to the other, as a fleet.
func TestTwoNodes(t *testing.T) {
	a, b := boot(t, "i-a"), boot(t, "i-b")
	var fleet node.Fleet
	fleet.Add(a, b)
	path, dev := filepath.Join(t.TempDir(), "v"), node.VolumePath("vol-1")
	require.NoError(t, fleet.Attach(t.Context(), "i-a", "vol-1", "/dev/sdf", path, 64<<20))
	sh(t, a, "echo hello | dd of="+dev+" conv=fsync status=none")
	require.NoError(t, fleet.Resize(t.Context(), "i-a", "vol-1", 128<<20))
	require.NoError(t, fleet.Detach(t.Context(), "i-a", "vol-1"))
	require.NoError(t, fleet.Attach(t.Context(), "i-b", "vol-1", "/dev/sdf", path, 128<<20))
	require.Equal(t, "hello", sh(t, b, "head -c5 "+dev))
	require.NoError(t, fleet.Detach(t.Context(), "i-a", "vol-1"), "not there is success")
	require.NoError(t, fleet.Detach(t.Context(), "i-c", "vol-1"), "not there is success")
	require.Error(t, fleet.Attach(t.Context(), "i-c", "vol-1", "", path, 128<<20))
	require.NoError(t, a.PowerCut())
	require.True(t, b.Running())
	sh(t, b, "true")
}

// TestPause proves that nothing reaches a volume's file meanwhile, and that the node then goes on.
func TestPause(t *testing.T) {
	n := boot(t, "i-pause")
	path, dev := filepath.Join(t.TempDir(), "v"), node.VolumePath("vol-1")
	require.NoError(t, n.Attach(t.Context(), "vol-1", "", path, 16<<20))
	p, err := n.Start(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "while :; do date +%N | dd of=" + dev + " conv=fsync status=none || exit 1; done"}})
	require.NoError(t, err)
	head := func() string {
		f, err := os.Open(path)
		require.NoError(t, err)
		defer func() { _ = f.Close() }()
		b := make([]byte, 16)
		_, err = f.Read(b)
		require.NoError(t, err)
		return string(b)
	}
	before := head()
	require.Eventually(t, func() bool { return head() != before }, time.Minute, 10*time.Millisecond)
	resume, err := n.Pause(t.Context())
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond) // for what the kernel had handed over
	before = head()
	require.Never(t, func() bool { return head() != before }, time.Second, 50*time.Millisecond)
	resume()
	resume()
	require.Eventually(t, func() bool { return head() != before }, time.Minute, 10*time.Millisecond)
	require.NoError(t, p.Kill())
	require.NoError(t, n.Resize(t.Context(), "vol-1", 32<<20))
}

// TestServerComesBack proves that the guest serves again after its server has died.
func TestServerComesBack(t *testing.T) {
	if node.Kind() != node.KindUML {
		t.Skip("a loop node has no server")
	}
	n := boot(t, "i-server")
	_, err := n.Exec(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "kill -9 $PPID; sleep 600"}})
	require.ErrorContains(t, err, "lost the node")
	require.True(t, n.Running())
	// A connection of the dead server may be picked once more and break.
	require.Eventually(t, func() bool {
		code, err := n.Exec(t.Context(), node.Command{Path: "true"})
		return err == nil && code == 0
	}, time.Minute, 50*time.Millisecond)
}

// TestOwnerDies proves that nothing of a node outlives the program that booted it.
func TestOwnerDies(t *testing.T) {
	if dir := os.Getenv("EBB_TEST_OWNER"); dir != "" { // the program: boots and is killed
		n, err := node.New(node.Options{Kind: node.KindUML, ID: "i-orphan", Dir: dir})
		require.NoError(t, err)
		require.NoError(t, n.Boot(t.Context()))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "up"), nil, 0o644))
		time.Sleep(time.Hour)
	}
	if err := node.Available(node.KindUML); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	owner := exec.Command(os.Args[0], "-test.run=^TestOwnerDies$")
	owner.Env = append(os.Environ(), "EBB_TEST_OWNER="+dir)
	require.NoError(t, owner.Start())
	defer func() { _ = owner.Process.Kill(); _ = owner.Wait() }()
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "up")); return err == nil }, time.Minute, 50*time.Millisecond)
	require.NotEmpty(t, processes(t, dir))
	require.NoError(t, owner.Process.Kill())
	_ = owner.Wait()
	require.Eventually(t, func() bool { return len(processes(t, dir)) == 0 }, 20*time.Second, 50*time.Millisecond, "%v", processes(t, dir))
}

// processes lists the host's processes with a word in their command line.
func processes(t *testing.T, word string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var found []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(word)) {
			found = append(found, f+" "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return found
}

// endless is input that nobody reads to its end.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }
