package dm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
