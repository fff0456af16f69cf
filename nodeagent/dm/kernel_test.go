package dm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

const (
	mib     = 1 << 20
	sectors = mib / 512 // of one MiB
	patient = 30 * time.Second
)

// TestInNode runs the TestNode tests of this package inside a node, on a real kernel.
func TestInNode(t *testing.T) {
	n := nodetest.Boot(t, node.Options{})
	nodetest.AttachVolume(t, n, "vol-a", 256*mib)
	nodetest.AttachVolume(t, n, "vol-b", 256*mib)
	nodetest.Run(t, n, "^TestNode")
}

// bench is a client and the numbers of the two volumes.
type bench struct {
	*dm.Client
	t    *testing.T
	host *nodetest.Cloud
	a, b dm.Dev
}

func newBench(t *testing.T) *bench {
	host := nodetest.Host(t)
	c, err := dm.Open()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return &bench{Client: c, t: t, host: host, a: devOf(t, node.VolumePath("vol-a")), b: devOf(t, node.VolumePath("vol-b"))}
}

func devOf(t *testing.T, path string) dm.Dev {
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	return dm.Dev{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
}

// device makes an active device that goes with the test.
func (b *bench) device(name string, table ...dm.Target) dm.Info {
	b.t.Helper()
	_, err := b.Create(name, "")
	require.NoError(b.t, err)
	b.t.Cleanup(func() {
		if err := b.Remove(name); err != nil {
			require.ErrorIs(b.t, err, dm.ErrNotFound)
		}
	})
	return b.swap(name, dm.ResumeFlags{Internal: true}, table...)
}

func (b *bench) swap(name string, f dm.ResumeFlags, table ...dm.Target) dm.Info {
	b.t.Helper()
	i, err := b.Load(name, false, table...)
	require.NoError(b.t, err)
	require.True(b.t, i.InactivePresent)
	i, err = b.Resume(name, f)
	require.NoError(b.t, err)
	require.True(b.t, i.ActivePresent)
	require.False(b.t, i.InactivePresent)
	require.False(b.t, i.Suspended)
	return i
}

func (b *bench) status(name string) string {
	b.t.Helper()
	_, s, err := b.Status(name)
	require.NoError(b.t, err)
	require.Len(b.t, s, 1)
	return s[0].Params
}

// zero clears the first block of a device, so that a pool formats its metadata.
func zero(t *testing.T, path string) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_SYNC, 0)
	require.NoError(t, err)
	_, err = f.Write(make([]byte, mib))
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestNodeVersions(t *testing.T) {
	b := newBench(t)
	major, minor, _ := b.Version()
	require.EqualValues(t, 4, major)
	require.Greater(t, minor, uint32(36))
	targets, err := b.Targets()
	require.NoError(t, err)
	require.Contains(t, targets, "linear")
	require.Contains(t, targets, "thin-pool")
}

func TestNodeEnsureTargets(t *testing.T) {
	b := newBench(t)
	targets, err := b.Targets()
	require.NoError(t, err)
	require.NotContains(t, targets, "era", "choose another target to test with")
	require.NoError(t, b.EnsureTargets(t.Context(), "linear", "mirror", "era"))
	require.NoError(t, b.EnsureTargets(t.Context(), "era"))

	err = b.EnsureTargets(t.Context(), "linear", "nonesuch")
	require.ErrorIs(t, err, dm.ErrUnsupported)
	require.ErrorContains(t, err, "nonesuch (module dm_nonesuch)")
	require.ErrorContains(t, err, "lockdown: ")
	t.Log(err)
}

func TestNodeControlNode(t *testing.T) {
	newBench(t)
	require.NoError(t, os.Rename("/dev/mapper/control", "/dev/mapper/control-"))
	c, err := dm.Open()
	require.NoError(t, err, "makes the node")
	require.NoError(t, c.Close())
	require.NoError(t, os.Remove("/dev/mapper/control-"))
}

func TestNodeLinear(t *testing.T) {
	b := newBench(t)
	i, err := b.Create("t-lin", "TEST-lin")
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Remove("t-lin") })
	require.Equal(t, "t-lin", i.Name)
	require.Equal(t, "TEST-lin", i.UUID)
	require.False(t, i.ActivePresent)
	_, err = b.Create("t-lin", "TEST-other")
	require.ErrorIs(t, err, dm.ErrExists)
	_, err = b.Create("t-lin2", "TEST-lin")
	require.ErrorIs(t, err, dm.ErrExists)
	_, err = b.Load("t-lin", false)
	require.ErrorIs(t, err, dm.ErrInvalid)

	table := []dm.Target{dm.Linear(0, 8*sectors, b.a, 0), dm.Linear(8*sectors, 4*sectors, b.b, 16), dm.ErrorTarget(12*sectors, 8)}
	i = b.swap("t-lin", dm.ResumeFlags{}, table...)
	require.EqualValues(t, 3, i.TargetCount)
	require.Equal(t, i.Dev, devOf(t, dm.DevPath(i)))
	link, err := os.Readlink("/dev/mapper/t-lin")
	require.NoError(t, err)
	require.Equal(t, "../"+filepath.Base(dm.DevPath(i)), link)
	_, got, err := b.Table("t-lin")
	require.NoError(t, err)
	require.Equal(t, table, got)
	deps, err := b.Deps("t-lin")
	require.NoError(t, err)
	require.ElementsMatch(t, []dm.Dev{b.a, b.b}, deps)
	byDev, err := b.InfoByDev(i.Dev)
	require.NoError(t, err)
	require.Equal(t, "t-lin", byDev.Name)
	_, err = b.InfoByDev(dm.Dev{Major: 1, Minor: 3})
	require.ErrorIs(t, err, dm.ErrNotFound)

	list, err := b.List()
	require.NoError(t, err)
	require.Contains(t, list, dm.Info{Name: "t-lin", UUID: "TEST-lin", Dev: i.Dev, EventNr: i.EventNr})

	// Loaded, then thought better of.
	i, err = b.Load("t-lin", true, dm.ErrorTarget(0, 8))
	require.NoError(t, err)
	require.True(t, i.InactivePresent)
	require.NoError(t, b.Clear("t-lin"))
	require.NoError(t, b.Clear("t-lin"))
	i, err = b.Resume("t-lin", dm.ResumeFlags{})
	require.NoError(t, err)
	require.EqualValues(t, 3, i.TargetCount)

	// A stale link is put right.
	require.NoError(t, os.Remove("/dev/mapper/t-lin"))
	require.NoError(t, os.Symlink("../dm-99", "/dev/mapper/t-lin"))
	_, err = b.Resume("t-lin", dm.ResumeFlags{})
	require.NoError(t, err)
	require.Equal(t, i.Dev, devOf(t, "/dev/mapper/t-lin"))

	// Open, it stays; closed a little later, it goes.
	f, err := os.Open(dm.DevPath(i))
	require.NoError(t, err)
	require.ErrorIs(t, b.Remove("t-lin"), dm.ErrBusy)
	timer := time.AfterFunc(300*time.Millisecond, func() { _ = f.Close() })
	defer timer.Stop()
	require.NoError(t, b.Remove("t-lin"))
	_, err = os.Lstat("/dev/mapper/t-lin")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorIs(t, b.Remove("t-lin"), dm.ErrNotFound)
	_, err = b.Info("t-lin")
	require.ErrorIs(t, err, dm.ErrNotFound)
	_, err = b.Load("t-lin", false, dm.ErrorTarget(0, 8))
	require.ErrorIs(t, err, dm.ErrNotFound)
	require.EqualError(t, err, "device-mapper: load t-lin: no such device or address")
}

func TestNodeLoadRefusals(t *testing.T) {
	b := newBench(t)
	b.device("t-ref", dm.ErrorTarget(0, 8))
	_, err := b.Load("t-ref", false, dm.Linear(0, 8, dm.Dev{Major: b.a.Major, Minor: 4000}, 0))
	require.ErrorIs(t, err, dm.ErrNoMember)
	require.NotErrorIs(t, err, dm.ErrNotFound)
	_, err = b.Load("t-ref", false, dm.Target{Length: 8, Type: "nonesuch"})
	require.Error(t, err)
	_, err = b.Message("t-ref", 0, "hello")
	require.Error(t, err)
	_, err = b.Message("t-ref", 0, "a\nb")
	require.ErrorIs(t, err, dm.ErrInvalid)
	i, err := b.Info("t-ref")
	require.NoError(t, err)
	require.False(t, i.InactivePresent)

	// The kernel sees only in the swap, with the device suspended, that a table ends beyond its member.
	_, err = b.Load("t-ref", false, dm.Linear(0, 1<<40, b.a, 0))
	require.NoError(t, err)
	_, err = b.Resume("t-ref", dm.ResumeFlags{})
	require.ErrorIs(t, err, unix.EINVAL)
	i, table, err := b.Table("t-ref")
	require.NoError(t, err)
	require.False(t, i.Suspended)
	require.False(t, i.InactivePresent)
	require.Equal(t, []dm.Target{dm.ErrorTarget(0, 8)}, table)

	// Of a first table it sees it at once.
	_, err = b.Create("t-first", "")
	require.NoError(t, err)
	_, err = b.Load("t-first", false, dm.Linear(0, 1<<40, b.a, 0))
	require.ErrorIs(t, err, unix.EINVAL)
	require.NoError(t, b.Remove("t-first"))
}

// A table and a list larger than the first buffer.
func TestNodeGrowingBuffer(t *testing.T) {
	b := newBench(t)
	const n = 3000
	var table []dm.Target
	for i := range uint64(n) {
		table = append(table, dm.Linear(8*i, 8, b.a, 16*i))
	}
	b.device("t-big", table...)
	_, got, err := b.Table("t-big")
	require.NoError(t, err)
	require.Equal(t, table, got)

	var names []string
	for i := range 120 {
		name := fmt.Sprintf("t-many-%d-%0100d", i, i)
		_, err := b.Create(name, "U"+name)
		require.NoError(t, err)
		names = append(names, name)
	}
	list, err := b.List()
	require.NoError(t, err)
	seen := map[string]string{}
	for _, i := range list {
		seen[i.Name] = i.UUID
	}
	for _, name := range names {
		require.Equal(t, "U"+name, seen[name])
		require.NoError(t, b.Remove(name))
	}
}

// pool makes t-meta, t-data, t-pool with data of n MiB in blocks of 64 KiB, and thin device 0 as t-thin.
func (b *bench) pool(n, lowWater uint64) {
	b.t.Helper()
	meta := b.device("t-meta", dm.Linear(0, 8*sectors, b.a, 0))
	zero(b.t, dm.DevPath(meta))
	data := b.device("t-data", dm.Linear(0, n*sectors, b.a, 8*sectors))
	pool := b.device("t-pool", dm.ThinPool(n*sectors, meta.Dev, data.Dev, 128, lowWater, "skip_block_zeroing"))
	_, err := b.Message("t-pool", 0, "create_thin %d", 0)
	require.NoError(b.t, err)
	_, err = b.Message("t-pool", 0, "create_thin 0")
	require.ErrorIs(b.t, err, unix.EEXIST)
	b.device("t-thin", dm.Thin(128*sectors, pool.Dev, 0, nil))
}

func (b *bench) poolStatus() dm.PoolStatus {
	b.t.Helper()
	s, err := dm.ParsePool(b.status("t-pool"))
	require.NoError(b.t, err)
	return s
}

// write writes n MiB of ones at an offset with direct I/O, and returns how that ended.
func write(name string, at, n int) error {
	f, err := os.OpenFile("/dev/mapper/"+name, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	p, err := unix.Mmap(-1, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	copy(p, bytes.Repeat([]byte{1}, mib))
	for i := range n {
		if _, err = f.WriteAt(p, int64(at+i)*mib); err != nil {
			break
		}
	}
	return errors.Join(err, f.Sync(), f.Close(), unix.Munmap(p))
}

func TestNodePool(t *testing.T) {
	b := newBench(t)
	b.pool(32, 256) // low water at 16 MiB free
	s := b.poolStatus()
	require.Equal(t, "rw", s.Mode)
	require.True(t, s.QueueIfNoSpace)
	require.EqualValues(t, 512, s.TotalData)
	require.Zero(t, s.UsedData)
	thin, err := dm.ParseThin(b.status("t-thin"))
	require.NoError(t, err)
	require.Equal(t, dm.ThinStatus{}, thin)
	i, err := b.Info("t-pool")
	require.NoError(t, err)

	// WaitEvent and Poll both tell of low water, at once.
	require.NoError(t, b.Poll(t.Context(), 0), "what has happened so far")
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = b.WaitEvent(short, "t-pool", i.EventNr)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	woken := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		after, err := b.WaitEvent(ctx, "t-pool", i.EventNr)
		if err == nil && after.EventNr == i.EventNr {
			err = errors.New("same event number")
		}
		woken <- err
	}()
	require.NoError(t, write("t-thin", 0, 20))
	start := time.Now()
	require.NoError(t, b.Poll(t.Context(), patient))
	require.NoError(t, <-woken)
	require.Less(t, time.Since(start), patient/2)
	require.EqualValues(t, 320, b.poolStatus().UsedData)
	thin, err = dm.ParseThin(b.status("t-thin"))
	require.NoError(t, err)
	require.Equal(t, dm.ThinStatus{MappedSectors: 20 * sectors, HighestSector: 20*sectors - 1, HasHighest: true}, thin)

	// A full pool makes writes wait; its status can still be read; room lets them go on.
	done := make(chan error, 1)
	go func() { done <- write("t-thin", 20, 20) }()
	require.Eventually(t, func() bool { return b.poolStatus().Mode == "out_of_data_space" }, patient, 10*time.Millisecond)
	b.swap("t-data", dm.ResumeFlags{NoFlush: true}, dm.Linear(0, 64*sectors, b.a, 8*sectors))
	_, live, err := b.Table("t-pool")
	require.NoError(t, err)
	live[0].Length = 64 * sectors
	b.swap("t-pool", dm.ResumeFlags{NoFlush: true}, live...)
	require.NoError(t, <-done)
	require.Equal(t, "rw", b.poolStatus().Mode)
	require.EqualValues(t, 640, b.poolStatus().UsedData)

	_, err = b.Message("t-pool", 0, "reserve_metadata_snap")
	require.NoError(t, err)
	require.True(t, b.poolStatus().HasHeldRoot)
	_, err = b.Message("t-pool", 0, "release_metadata_snap")
	require.NoError(t, err)
	_, err = b.Message("t-pool", 0, "delete 77")
	require.ErrorIs(t, err, unix.ENODATA)

	// A pool refuses to start with less data than it has: nothing may stay suspended for that.
	live[0].Length = 32 * sectors
	_, err = b.Load("t-pool", false, live...)
	require.NoError(t, err)
	_, err = b.Resume("t-pool", dm.ResumeFlags{NoFlush: true})
	require.Error(t, err)
	t.Log(err)
	i, table, err := b.Table("t-pool")
	require.NoError(t, err)
	require.False(t, i.Suspended)
	require.False(t, i.InactivePresent)
	require.EqualValues(t, 64*sectors, table[0].Length)
	require.NoError(t, write("t-thin", 0, 50))
}

func TestNodeMirror(t *testing.T) {
	b := newBench(t)
	log := b.device("t-log", dm.Linear(0, 2*sectors, b.b, 0))
	old := b.device("t-old", dm.Linear(0, 32*sectors, b.a, 0))
	leg := b.device("t-new", dm.Linear(0, 32*sectors, b.b, 2*sectors))
	zero(t, dm.DevPath(log))
	b.device("t-top", dm.Linear(0, 32*sectors, old.Dev, 0))
	require.NoError(t, write("t-top", 0, 32))
	b.swap("t-top", dm.ResumeFlags{NoFlush: true}, dm.Mirror(32*sectors, log.Dev, sectors, old.Dev, leg.Dev))
	state := func() dm.MirrorStatus {
		s, err := dm.ParseMirror(b.status("t-top"))
		require.NoError(t, err)
		return s
	}
	require.Eventually(t, func() bool { s := state(); return s.InSync == s.Total }, patient, 10*time.Millisecond)
	s := state()
	require.True(t, s.AllAlive())
	require.Equal(t, []dm.Dev{old.Dev, leg.Dev}, s.Devs)
	require.EqualValues(t, 32, s.Total)
	require.Equal(t, log.Dev, s.LogDev)

	// The new leg dies under a writer, whose writes are held until the swap back and never fail.
	i, err := b.Info("t-top")
	require.NoError(t, err)
	var stop atomic.Bool
	written := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = write("t-top", 3, 2)
		}
		written <- err
	}()
	b.swap("t-new", dm.ResumeFlags{NoFlush: true}, dm.ErrorTarget(0, 32*sectors))
	for end := time.Now().Add(patient); state().AllAlive(); {
		require.True(t, time.Now().Before(end))
		require.NoError(t, b.Poll(t.Context(), patient))
	}
	failed, err := b.WaitEvent(t.Context(), "t-top", i.EventNr) // has been, so it does not wait
	require.NoError(t, err)
	require.NotEqual(t, i.EventNr, failed.EventNr)
	require.EqualValues(t, 'A', state().Health[0])
	require.NotEqualValues(t, 'A', state().Health[1])
	b.swap("t-top", dm.ResumeFlags{NoFlush: true}, dm.Linear(0, 32*sectors, old.Dev, 0))
	stop.Store(true)
	require.NoError(t, <-written)
}

// Many swaps under I/O, which is slow so that each swap has something to wait for, while every thread is
// showered with the signal that Go's scheduler sends to threads.
func TestNodeSwapUnderLoad(t *testing.T) {
	b := newBench(t)
	b.host.SetFault("vol-a", node.Fault{Kind: node.FaultDelay, DelayMS: 50})
	defer b.host.SetFault("vol-a", node.Fault{})
	old := b.device("t-x", dm.Linear(0, 32*sectors, b.a, 0))
	top := b.device("t-top", dm.Linear(0, 32*sectors, old.Dev, 0))
	inFlight := func() bool {
		count, err := os.ReadFile("/sys/dev/block/" + top.Dev.String() + "/inflight")
		require.NoError(t, err)
		return strings.TrimSpace(string(count)) != "0        0"
	}
	var stop atomic.Bool
	failed := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = write("t-top", 0, 8)
		}
		failed <- err
	}()
	signals := make(chan struct{})
	go func() {
		defer close(signals)
		for !stop.Load() {
			threads, _ := os.ReadDir("/proc/self/task")
			for _, thread := range threads {
				tid, _ := strconv.Atoi(thread.Name())
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	for n := range 16 {
		require.Eventually(t, inFlight, patient, time.Millisecond)
		table := []dm.Target{dm.Linear(0, 32*sectors, old.Dev, 0)}
		if n%2 == 0 {
			table = []dm.Target{dm.Linear(0, 16*sectors, old.Dev, 0), dm.Linear(16*sectors, 16*sectors, old.Dev, 16*sectors)}
		}
		b.swap("t-top", dm.ResumeFlags{NoFlush: n%4 < 2}, table...)
	}
	stop.Store(true)
	<-signals
	require.NoError(t, <-failed)
}

// childEnv makes TestNodeKilledInSwap the process that is killed.
const childEnv = "EBB_TEST_SWAP"

// A process that is killed at any moment of a swap leaves no device suspended (invariant I3).
func TestNodeKilledInSwap(t *testing.T) {
	b := newBench(t)
	table := func(n int) dm.Target { return dm.Linear(0, 32*sectors, b.a, uint64(n%2)*32*sectors) }
	if os.Getenv(childEnv) != "" {
		for n := 0; ; n++ { // until killed
			b.swap("t-top", dm.ResumeFlags{NoFlush: n%3 == 0}, table(n))
		}
	}
	b.host.SetFault("vol-a", node.Fault{Kind: node.FaultDelay, DelayMS: 20})
	defer b.host.SetFault("vol-a", node.Fault{})
	b.device("t-top", table(0))
	var stop atomic.Bool
	written := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = write("t-top", 0, 2)
		}
		written <- err
	}()
	for n := range 6 {
		before, err := b.Info("t-top")
		require.NoError(t, err)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestNodeKilledInSwap$")
		cmd.Env = append(os.Environ(), childEnv+"=1")
		require.NoError(t, cmd.Start())
		swapping := func() bool {
			_, live, err := b.Table("t-top")
			require.NoError(t, err)
			return live[0] == table(1)
		}
		require.Eventually(t, swapping, patient, time.Millisecond)
		time.Sleep(time.Duration(n) * 13 * time.Millisecond) // another moment each time
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		after, err := b.Info("t-top")
		require.NoError(t, err)
		require.False(t, after.Suspended)
		require.Equal(t, before.Dev, after.Dev)
		b.swap("t-top", dm.ResumeFlags{}, table(0))
	}
	stop.Store(true)
	select {
	case err := <-written:
		require.NoError(t, err)
	case <-time.After(patient):
		t.Fatal("writes hang")
	}
}

func TestNodePoll(t *testing.T) {
	b := newBench(t)
	require.NoError(t, b.Poll(t.Context(), 0))
	start := time.Now()
	require.NoError(t, b.Poll(t.Context(), 100*time.Millisecond), "a timeout is no error")
	require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond)

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	start = time.Now()
	require.ErrorIs(t, b.Poll(ctx, patient), context.Canceled)
	require.Less(t, time.Since(start), patient/2)
	require.ErrorIs(t, b.Poll(ctx, patient), context.Canceled)

	// What happens between two calls is not lost.
	b.device("t-ev", dm.ErrorTarget(0, 8))
	start = time.Now()
	require.NoError(t, b.Poll(t.Context(), patient))
	require.Less(t, time.Since(start), patient/2)

	// A removed device ends its waiters.
	i, err := b.Info("t-ev")
	require.NoError(t, err)
	timer := time.AfterFunc(50*time.Millisecond, func() { _ = b.Remove("t-ev") })
	defer timer.Stop()
	_, err = b.WaitEvent(t.Context(), "t-ev", i.EventNr)
	require.ErrorIs(t, err, dm.ErrNotFound)
	_, err = b.WaitEvent(t.Context(), "t-ev", 0)
	require.ErrorIs(t, err, dm.ErrNotFound)
}
