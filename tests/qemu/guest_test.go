package qemu_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/acked"
)

// controlEnv names the line to the host, and tells that a test runs in the machine.
const controlEnv = "EBB_QEMU_CONTROL"

const (
	diskID     = contract.DiskID("d-00000000000000001")
	top        = "/dev/mapper/ebb-" + string(diskID)
	mountPath  = "/tmp/disk"
	scratchDir = "/tmp/scratch"
	journal    = scratchDir + "/journal"
	askTimeout = time.Minute
)

// serialOf is the serial number that a disk shows: a volume's id without its dash.
func serialOf(id string) string { return strings.Replace(id, "vol-", "vol", 1) }

// guest is an agent's data plane in the machine.
type guest struct {
	*disk.Manager
	t       *testing.T
	dm      *dm.Client
	locator volume.Locator
	control *os.File
	answers *bufio.Reader
}

// enter begins a test in the machine; elsewhere it skips it.
func enter(t *testing.T) *guest {
	path := os.Getenv(controlEnv)
	if path == "" {
		t.Skip("runs in a virtual machine: see TestNVMe")
	}
	control, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	c, err := dm.Open()
	require.NoError(t, err)
	require.NoError(t, c.EnsureTargets(t.Context(), disk.Targets...))
	g := &guest{t: t, dm: c, locator: volume.Auto(c), control: control, answers: bufio.NewReader(control)}
	g.Manager, err = disk.NewManager(disk.Options{
		Node: "i-00000001", DM: c, Locator: g.locator, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	require.NoError(t, err)

	// The scratch disk is found by its name's serial number, which nobody but this test trusts.
	serials, err := filepath.Glob("/sys/block/nvme*/device/serial")
	require.NoError(t, err)
	for _, s := range serials {
		b, err := os.ReadFile(s)
		require.NoError(t, err)
		if strings.TrimSpace(string(b)) == scratch {
			require.NoError(t, os.MkdirAll(scratchDir, 0o755))
			require.NoError(t, unix.Mount(filepath.Join("/dev", filepath.Base(filepath.Dir(filepath.Dir(s)))), scratchDir, "ext4", 0, ""))
			return g
		}
	}
	t.Fatal("the scratch disk is not there")
	return nil
}

// ask has the host do something and waits until it has.
func (g *guest) ask(what string) {
	g.t.Helper()
	_ = g.control.SetDeadline(time.Now().Add(askTimeout))
	_, err := fmt.Fprintf(g.control, "\n%s\n", what)
	require.NoError(g.t, err)
	answer, err := g.answers.ReadString('\n')
	require.NoError(g.t, err, what)
	require.Equal(g.t, "done", strings.TrimSpace(answer), what)
}

// names are the device names of the attached volumes, now.
func (g *guest) names() map[string]string {
	list, err := g.locator.List(g.t.Context())
	require.NoError(g.t, err)
	names := map[string]string{}
	for _, c := range list {
		require.NotContains(g.t, names, c.ID)
		names[c.ID] = c.Path
	}
	return names
}

func (g *guest) ids() []string { return slices.Sorted(maps.Keys(g.names())) }

// unplug takes a volume out and waits until it is no longer found.
func (g *guest) unplug(id string) {
	g.ask("unplug " + id)
	require.Eventually(g.t, func() bool { return !slices.Contains(g.ids(), id) }, askTimeout, 50*time.Millisecond)
	_, err := g.locator.Open(g.t.Context(), id)
	require.ErrorIs(g.t, err, volume.ErrNotAttached)
}

// create makes the disk and writes acknowledged files of some bytes.
func (g *guest) create(bytes int64) {
	m, err := g.Format(g.t.Context(), contract.FormatDiskInput{
		Disk: diskID, Name: "test", SizeBytes: 8 * gib, Volumes: []string{oldVolume}, Filesystem: contract.XFS, MountPath: mountPath,
	})
	require.NoError(g.t, err)
	require.EqualValues(g.t, 1, m.Generation)
	ctx, cancel := context.WithCancel(g.t.Context())
	defer cancel()
	w := &acked.Writer{Dir: mountPath, Journal: journal, Bytes: func(uint64) int {
		if bytes -= mib; bytes <= 0 {
			cancel()
		}
		return int(mib)
	}}
	_, err = w.Run(ctx)
	require.NoError(g.t, err)
}

// write writes acknowledged files until stopped; no write may fail.
func (g *guest) write() (stop func()) {
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error, 1)
	w := &acked.Writer{Dir: mountPath, Journal: journal, Pause: 5 * time.Millisecond, Bytes: func(i uint64) int { return 512 + int(i%64)<<10 }}
	go func() {
		_, err := w.Run(ctx)
		done <- err
	}()
	return func() {
		cancel()
		require.NoError(g.t, <-done)
		g.t.Logf("the writer: %+v", w.Stats())
		require.Positive(g.t, w.Stats().Acked)
	}
}

// prepare makes the incoming generation on the new volume.
func (g *guest) prepare(throttle int64) contract.MoveInput {
	in := contract.MoveInput{Disk: diskID, Move: "m-1"}
	_, err := g.PrepareMove(g.t.Context(), contract.PrepareMoveInput{
		Disk: diskID, Move: in.Move, Generation: 2, Volumes: []string{newVolume}, ThrottleMiBs: throttle,
	})
	require.NoError(g.t, err)
	return in
}

// finish brings the move to its end.
func (g *guest) finish(in contract.MoveInput) contract.EvacuateResult {
	silent := func(contract.CopyProgress) {}
	ev, err := g.Evacuate(g.t.Context(), in, silent)
	require.NoError(g.t, err)
	ve, err := g.VerifyMove(g.t.Context(), in, silent)
	require.NoError(g.t, err)
	co, err := g.CommitMove(g.t.Context(), in)
	require.NoError(g.t, err)
	re, err := g.RetireBacking(g.t.Context(), in)
	require.NoError(g.t, err)
	g.t.Logf("evacuated %+v, verified %+v, retired %+v", ev, ve, re)
	require.EqualValues(g.t, 2, co.Generation)
	require.Equal(g.t, []string{oldVolume}, re.Volumes)
	return ev
}

// check takes the disk down and up again, reads every acknowledged write, lets xfs_repair look and leaves
// nothing behind.
func (g *guest) check() {
	require.NoError(g.t, g.Disassemble(g.t.Context(), diskID))
	m, err := g.Assemble(g.t.Context(), contract.AssembleDiskInput{Disk: diskID, Volumes: []string{newVolume}})
	require.NoError(g.t, err)
	require.EqualValues(g.t, 2, m.Generation)
	g.read()
	require.NoError(g.t, unix.Unmount(mountPath, 0))
	out, err := exec.CommandContext(g.t.Context(), "xfs_repair", "-n", top).CombinedOutput()
	require.NoError(g.t, err, "%s", out)
	require.NoError(g.t, g.Disassemble(g.t.Context(), diskID))
	list, err := g.dm.List()
	require.NoError(g.t, err)
	require.Empty(g.t, list, "stray devices")
	require.NoError(g.t, unix.Unmount(scratchDir, 0))
}

// read reads every acknowledged write.
func (g *guest) read() {
	r, err := acked.Check(mountPath, journal)
	require.NoError(g.t, err)
	require.True(g.t, r.OK(), "%+v", r)
	require.Positive(g.t, r.Acked)
	g.t.Logf("%d acknowledged writes, %d bytes are there", r.Acked, r.Bytes)
}
