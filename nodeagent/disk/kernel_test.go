package disk_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/acked"
	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

const (
	gib = int64(1) << 30
	mib = int64(1) << 20
)

// TestInNode runs the TestNode tests of this package inside a node, on a real
// kernel.
func TestInNode(t *testing.T) {
	n := nodetest.Boot(t, node.Options{MemoryMiB: 768})
	run := os.Getenv("EBB_TEST_RUN") // to run some of them by hand
	if run == "" {
		run = "^TestNode"
	}
	nodetest.Run(t, n, run, "EBB_TEST_SHARED="+n.Dir(), "EBB_TEST_FULL="+os.Getenv("EBB_TEST_FULL"))
}

// bench is a manager in a node, and one disk of its own for a test.
type bench struct {
	*disk.Manager
	t       *testing.T
	host    *nodetest.Cloud
	dm      *dm.Client
	disk    contract.DiskID
	mount   string
	journal string
	vols    []string // attached, oldest first
	made    int
	step    func(string) error

	mirrorAlone bool           // there is no pre-copy
	locator     volume.Locator // nil: the bench's
}

var serial struct {
	sync.Mutex
	n int
}

func newBench(t *testing.T) *bench {
	host := nodetest.Host(t)
	c, err := dm.Open()
	require.NoError(t, err)
	serial.Lock()
	serial.n++
	id := contract.DiskID(fmt.Sprintf("d-%017x", serial.n))
	serial.Unlock()
	b := &bench{
		t: t, host: host, dm: c, disk: id,
		mount:   filepath.Join("/tmp", string(id)),
		journal: filepath.Join(os.Getenv("EBB_TEST_SHARED"), string(id)+".journal"),
	}
	b.restart()
	t.Cleanup(func() {
		b.step = nil
		require.NoError(t, b.Disassemble(context.Background(), id))
		require.Empty(t, b.devices(), "stray devices")
		for _, v := range b.vols {
			b.host.SetFault(v, node.Fault{})
			require.NoError(t, b.host.Detach(v))
			b.host.Delete(v)
		}
		require.NoError(t, c.Close())
	})
	return b
}

// restart makes a new manager, as a new agent process would.
func (b *bench) restart() {
	at := b.locator
	if at == nil {
		at = volume.Auto(b.dm)
	}
	m, err := disk.NewManager(disk.Options{
		Node: "i-00000001", DM: b.dm, Locator: at, Logger: slog.New(slog.NewTextHandler(b.t.Output(), nil)),
		OnStep: func(s string) error {
			if b.step != nil {
				return b.step(s)
			}
			return nil
		},
	})
	require.NoError(b.t, err)
	b.Manager = m
	if b.mirrorAlone {
		m.WithoutPrecopy()
	}
}

// alone has the mirror copy everything, as on a kernel that lacks what a pre-copy
// needs.
func (b *bench) alone() *bench {
	b.mirrorAlone = true
	b.WithoutPrecopy()
	return b
}

// volume attaches a new volume.
func (b *bench) volume(bytes int64) string {
	id := fmt.Sprintf("vol-%s%07x", string(b.disk[9:]), b.made)
	b.made++
	b.host.Attach(id, bytes)
	b.vols = append(b.vols, id)
	return id
}

// create formats and mounts a disk.
func (b *bench) create(fs contract.Filesystem, size, backing int64) contract.Measurement {
	v := b.volume(backing)
	m, err := b.Format(b.t.Context(), contract.FormatDiskInput{Disk: b.disk, Name: "test", SizeBytes: size, Volumes: []string{v}, Filesystem: fs, MountPath: b.mount})
	require.NoError(b.t, err)
	return m
}

// devices are the device-mapper devices of the disk, none of them suspended.
func (b *bench) devices() (names []string) {
	list, err := b.dm.List()
	require.NoError(b.t, err)
	for _, i := range list {
		if len(i.Name) > 3+len(b.disk) && i.Name[:4+len(b.disk)] == "ebb-"+string(b.disk) {
			i, err := b.dm.Info(i.Name) // the list does not say it
			require.NoError(b.t, err)
			require.False(b.t, i.Suspended, "%s is suspended", i.Name)
			names = append(names, i.Name)
		}
	}
	return names
}

// writer writes acknowledged files until stopped; stop checks that none failed.
func (b *bench) writer(pause time.Duration) (stop func() acked.Stats) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var s acked.Stats
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, err = (&acked.Writer{Dir: b.mount, Journal: b.journal, Pause: pause}).Run(ctx)
	}()
	return func() acked.Stats {
		cancel()
		<-done
		require.NoError(b.t, err)
		require.Zero(b.t, s.Failed)
		return s
	}
}

// fill writes about n bytes of acknowledged files.
func (b *bench) fill(n int64) {
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	var sum int64
	w := &acked.Writer{Dir: b.mount, Journal: b.journal, Bytes: func(uint64) int {
		if sum += mib; sum > n {
			cancel()
		}
		return int(mib)
	}}
	_, err := w.Run(ctx)
	require.NoError(b.t, err)
}

// failsWhenFull tells which of the disk's pools fail writes that find no room.
func (b *bench) failsWhenFull() (pools []string) {
	for _, name := range b.devices() {
		if strings.HasSuffix(name, "-pool") {
			_, table, err := b.dm.Table(name)
			require.NoError(b.t, err)
			if strings.Contains(table[0].Params, dm.ErrorIfNoSpace) {
				pools = append(pools, name)
			}
		}
	}
	return pools
}

// check remounts the disk, reads every acknowledged write back from the volumes
// and lets fsck look.
func (b *bench) check(fs contract.Filesystem) acked.Report {
	require.Empty(b.t, b.failsWhenFull())
	run(b.t, "umount", b.mount)
	run(b.t, "mount", "-t", string(fs), "/dev/mapper/ebb-"+string(b.disk), b.mount)
	r, err := acked.Check(b.mount, b.journal)
	require.NoError(b.t, err)
	require.True(b.t, r.OK(), "%+v", r)
	run(b.t, "umount", b.mount)
	fsck(b.t, fs, "/dev/mapper/ebb-"+string(b.disk))
	run(b.t, "mount", "-t", string(fs), "/dev/mapper/ebb-"+string(b.disk), b.mount)
	return r
}

func fsck(t testing.TB, fs contract.Filesystem, dev string) {
	if fs == contract.XFS {
		run(t, "xfs_repair", "-n", dev)
	} else {
		run(t, "e2fsck", "-fn", dev)
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return string(out)
}

// drop detaches a volume and throws it away.
func (b *bench) drop(id string) {
	require.NoError(b.t, b.host.Detach(id))
	b.host.Delete(id)
	b.vols = slices.DeleteFunc(b.vols, func(v string) bool { return v == id })
}

// prepare makes the incoming generation on a new volume.
func (b *bench) prepare(move string, bytes int64) contract.MoveInput {
	v := b.volume(bytes)
	m, err := b.Measure(b.t.Context(), b.disk)
	require.NoError(b.t, err)
	_, err = b.PrepareMove(b.t.Context(), contract.PrepareMoveInput{Disk: b.disk, Move: move, Generation: m.Generation + 1, Volumes: []string{v}})
	require.NoError(b.t, err)
	return contract.MoveInput{Disk: b.disk, Move: move}
}

func silent(contract.CopyProgress) {}

// copied makes a disk of 8 GiB with n bytes of acknowledged files, and a move to
// another volume of 1 GiB whose copy is done.
func (b *bench) copied(fs contract.Filesystem, n int64) contract.MoveInput {
	b.create(fs, 8*gib, gib)
	b.fill(n)
	in := b.prepare("m-1", gib)
	_, err := b.Evacuate(b.t.Context(), in, silent)
	require.NoError(b.t, err)
	return in
}

// commit ends a move whose copy is done, without the verification: nothing but
// the logs vouches for the copy.
func (b *bench) commit(in contract.MoveInput) {
	_, err := b.CommitMove(b.t.Context(), in)
	require.NoError(b.t, err)
	_, err = b.RetireBacking(b.t.Context(), in)
	require.NoError(b.t, err)
}

// through brings a prepared move to its end, as commit does.
func (b *bench) through(in contract.MoveInput) {
	_, err := b.Evacuate(b.t.Context(), in, silent)
	require.NoError(b.t, err)
	b.commit(in)
}

// nextAgent starts a new agent, which must bring the disk up.
func (b *bench) nextAgent() {
	b.restart()
	up, err := b.Reconcile(b.t.Context())
	require.NoError(b.t, err)
	require.Contains(b.t, up, b.disk)
}

// die lets the agent die at a step of do.
func (b *bench) die(step string, do func() error) {
	b.step = func(s string) error {
		if s == step {
			return errDead
		}
		return nil
	}
	defer func() { b.step = nil }()
	require.ErrorIs(b.t, do(), errDead, "no step %s", step)
}

// TestNodeMove is the main job: a disk shrinks to a smaller volume under a
// writer.
func TestNodeMove(t *testing.T) {
	for _, c := range []struct {
		name  string
		fs    contract.Filesystem
		alone bool
	}{{"xfs", contract.XFS, false}, {"ext4", contract.Ext4, false}, {"by the mirror alone", contract.XFS, true}} {
		t.Run(c.name, func(t *testing.T) {
			b, fs := newBench(t), c.fs
			if c.alone {
				b.alone()
			}
			m := b.create(fs, 16*gib, 2*gib)
			t.Logf("created: %d MiB of %d used", m.PoolUsedBytes/mib, m.PoolBytes/mib)
			b.fill(200 * mib)
			require.NoError(t, acked.Delete(b.mount, b.journal, func(i uint64) bool { return i%2 == 0 }))
			tr, err := b.Trim(t.Context(), b.disk)
			require.NoError(t, err)
			require.Less(t, tr.Measurement.PoolUsedBytes, tr.Measurement.FilesystemUsedBytes*13/10, "the trim gave too little back")
			t.Logf("after trim: %d MiB used, fs %d", tr.Measurement.PoolUsedBytes/mib, tr.Measurement.FilesystemUsedBytes/mib)
			stop := b.writer(0)
			in := b.prepare("m-1", gib)
			ev, err := b.Evacuate(t.Context(), in, silent)
			require.NoError(t, err)
			ve, err := b.VerifyMove(t.Context(), in, silent)
			require.NoError(t, err)
			co, err := b.CommitMove(t.Context(), in)
			require.NoError(t, err)
			re, err := b.RetireBacking(t.Context(), in)
			require.NoError(t, err)
			s := stop()
			t.Logf("evacuated %+v\nverified %+v\ncommit pause %.1f ms\nretired %+v\nwriter %+v", ev, ve, co.SwapPauseMS, re, s)
			require.Equal(t, []string{b.vols[0]}, re.Volumes)
			require.EqualValues(t, 2, co.Generation)
			require.Positive(t, s.Acked)
			// The old volume is of no use any more: overwritten, nothing changes.
			run(t, "dd", "if=/dev/zero", "of="+node.VolumePath(b.vols[0]), "bs=1M", "count=256", "conv=fsync", "status=none")
			b.drop(b.vols[0])
			b.check(fs)
			require.Len(t, b.devices(), 5)
		})
	}
}
