package dm_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// TestNodeCountIO: every write is counted in the area it is for, whatever made it,
// across a swap of tables.
func TestNodeCountIO(t *testing.T) {
	b := newBench(t)
	info := b.device("counted", dm.Linear(0, 8*sectors, b.a, 0))
	id, err := b.CountIO("counted", sectors, "test")
	require.NoError(t, err)
	writes := func() []dm.Counters {
		w, err := b.CountersOf("counted", id, 0, 100)
		require.NoError(t, err)
		require.Len(t, w, 8)
		return w
	}
	for _, w := range writes() {
		require.Zero(t, w)
	}

	f, err := os.OpenFile(dm.DevPath(info), os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 4096), 0) // by way of the page cache
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.EqualValues(t, 8, writes()[0].Written)

	b.swap("counted", dm.ResumeFlags{NoFlush: true, Internal: true}, dm.Linear(0, 8*sectors, b.b, 0))
	d, err := os.OpenFile(dm.DevPath(info), os.O_RDWR|unix.O_DIRECT|unix.O_DSYNC, 0)
	require.NoError(t, err)
	defer d.Close()
	buf, err := unix.Mmap(-1, 0, 2*mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	require.NoError(t, err)
	defer func() { _ = unix.Munmap(buf) }()
	_, err = d.WriteAt(buf[:mib], 3*mib-mib/2) // half in one area, half in the next
	require.NoError(t, err)
	_, err = d.ReadAt(buf, 5*mib)
	require.NoError(t, err)
	require.Eventually(t, func() bool { // an I/O is counted just after it has ended
		w := writes()
		return w[2].Written == sectors/2 && w[3].Written == sectors/2
	}, patient, time.Millisecond)
	require.Positive(t, writes()[5].Reads)
	for _, i := range []int{1, 4, 5, 6, 7} {
		require.Zero(t, writes()[i].Writes)
	}

	w, err := b.CountersOf("counted", id, 3, 1)
	require.NoError(t, err)
	require.EqualValues(t, sectors/2, w[0].Written)
	require.NoError(t, b.StopCounting("counted", "other"))
	writes()
	require.NoError(t, b.StopCounting("counted", "test"))
	require.NoError(t, b.StopCounting("counted", "test"))
	_, err = b.CountersOf("counted", id, 0, 1)
	require.Error(t, err)
}

// TestNodeReadElsewhere: what is written goes to one device, what is read comes
// from another.
func TestNodeReadElsewhere(t *testing.T) {
	b := newBench(t)
	require.NoError(t, b.EnsureTargets(t.Context(), "delay"))
	one := b.device("one", dm.Linear(0, sectors, b.a, 0))
	two := b.device("two", dm.Linear(0, sectors, b.b, 0))
	gate := b.device("gate", dm.ReadElsewhere(sectors, one.Dev, two.Dev))
	put := func(i dm.Info, s string) {
		f, err := os.OpenFile(dm.DevPath(i), os.O_WRONLY|unix.O_SYNC, 0)
		require.NoError(t, err)
		defer f.Close()
		_, err = f.WriteString(s)
		require.NoError(t, err)
	}
	get := func(i dm.Info) string {
		f, err := os.Open(dm.DevPath(i))
		require.NoError(t, err)
		defer f.Close()
		require.NoError(t, unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0))
		buf := make([]byte, 3)
		_, err = f.Read(buf)
		require.NoError(t, err)
		return string(buf)
	}
	put(one, "old")
	put(two, "two")
	put(gate, "new")
	require.Equal(t, "two", get(gate))
	require.Equal(t, "new", get(one))
	require.Equal(t, "two", get(two))
}
