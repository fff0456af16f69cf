package disk_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/node"
)

// fillPool makes the pool of generation 1 full, by another thin device of its, and
// leaves the filesystem as it is. The device goes when the pool grows.
func (b *bench) fillPool() {
	m, err := b.Measure(b.t.Context(), b.disk)
	require.NoError(b.t, err)
	pool, err := b.dm.Info("ebb-" + string(b.disk) + "-g1-pool")
	require.NoError(b.t, err)
	_, err = b.dm.Message(pool.Name, 0, "create_thin 99")
	require.NoError(b.t, err)
	filler := "filler-" + string(b.disk)
	_, err = b.dm.Create(filler, "")
	require.NoError(b.t, err)
	_, err = b.dm.Load(filler, false, dm.Thin(uint64(m.SizeBytes)/512, pool.Dev, 99, nil))
	require.NoError(b.t, err)
	info, err := b.dm.Resume(filler, dm.ResumeFlags{NoFlush: true, Internal: true})
	require.NoError(b.t, err)
	f, err := os.OpenFile(dm.DevPath(info), os.O_WRONLY|unix.O_DIRECT, 0)
	require.NoError(b.t, err)
	done := make(chan error, 1)
	go func() {
		buf := volume.AlignedBuffer(int(m.BlockBytes))
		var err error
		for off := int64(0); err == nil && off <= m.PoolBytes-m.PoolUsedBytes; off += m.BlockBytes { // one block too many
			_, err = f.WriteAt(buf, off)
		}
		_ = f.Close()
		_ = b.dm.Remove(filler)
		done <- err
	}()
	b.t.Cleanup(func() { require.NoError(b.t, <-done) })
	require.Eventually(b.t, func() bool {
		m, err := b.Measure(b.t.Context(), b.disk)
		require.NoError(b.t, err)
		return m.Full
	}, time.Minute, 20*time.Millisecond)
}

// waitsForRoom begins do, which has writes inside the disk that find no room. The
// watch says so, the disk is measured and grown meanwhile, and that ends it.
func (b *bench) waitsForRoom(what string, do func() error) {
	t := b.t
	events, stopWatch := b.watch()
	defer stopWatch()
	top, err := b.dm.Info("ebb-" + string(b.disk))
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- do() }()
	require.Eventually(t, func() bool {
		count, err := os.ReadFile("/sys/dev/block/" + top.Dev.String() + "/inflight")
		require.NoError(t, err)
		f := strings.Fields(string(count)) // reads, writes
		return len(f) == 2 && f[1] != "0"
	}, 30*time.Second, 20*time.Millisecond, "%s does not wait", what)
	told := len(events())
	require.Eventually(t, func() bool {
		for _, e := range events()[told:] {
			if e.Kind == disk.EventFull {
				return true
			}
		}
		return false
	}, 30*time.Second, 20*time.Millisecond, "nobody says that the pool is full")
	select {
	case err := <-done:
		t.Fatalf("%s ended: %v", what, err)
	default:
	}
	within(t, 30*time.Second, "the growth", func() {
		m, err := b.Measure(t.Context(), b.disk)
		require.NoError(t, err)
		require.True(t, m.Full)
		b.host.Resize(b.vols[0], gib)
		_, err = b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: gib})
		require.NoError(t, err)
	})
	within(t, 30*time.Second, what, func() { require.NoError(t, <-done) })
}

// unsaved writes a file and leaves it in memory.
func (b *bench) unsaved(name string, n int) {
	require.NoError(b.t, os.WriteFile(filepath.Join(b.mount, name), bytes.Repeat([]byte{'u'}, n), 0o644))
}

// TestNodeUnmountAtFullPool: a disk is taken down whose filesystem has more in memory
// than its pool has room for, known before or written while the rest is flushed.
func TestNodeUnmountAtFullPool(t *testing.T) {
	for _, when := range []string{"before", "flushed"} {
		t.Run(when, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.XFS, 8*gib, 320*mib)
			b.fillPool()
			undo := keepDirty(t)
			defer undo()
			if when == "before" {
				b.unsaved("late", 20<<20)
			}
			b.step = func(s string) error {
				if s == when {
					b.unsaved("late", 20<<20)
				}
				return nil
			}
			b.waitsForRoom("taking the disk down", func() error { return b.Disassemble(t.Context(), b.disk) })
			b.step = nil
			require.Empty(t, b.devices())
			b.nextAgent()
			got, err := os.ReadFile(filepath.Join(b.mount, "late"))
			require.NoError(t, err)
			require.True(t, bytes.Equal(bytes.Repeat([]byte{'u'}, 20<<20), got))
			b.fill(10 * mib)
			b.check(contract.XFS)
		})
	}
}

// TestNodeMountAtFullPool: a mount replays the journal, into blocks that the full
// pool does not have.
func TestNodeMountAtFullPool(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, 320*mib)
	const files = 4000
	for i := range files {
		require.NoError(t, os.WriteFile(filepath.Join(b.mount, fmt.Sprint(i)), nil, 0o644))
	}
	b.cutFilesystem()
	b.fillPool()
	b.restart()
	b.waitsForRoom("the assembly", func() error {
		_, err := b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk, MountPath: b.mount})
		return err
	})
	list, err := os.ReadDir(b.mount)
	require.NoError(t, err)
	require.Len(t, list, files)
	b.fill(10 * mib)
	b.check(contract.XFS)
}

// cutFilesystem ends the filesystem as a power cut does: what it has logged is on the
// disk, nothing else any more.
func (b *bench) cutFilesystem() {
	const goingDown = 0x8004587D // XFS_IOC_GOINGDOWN
	flushLog := uint32(1)
	f, err := os.Open(b.mount)
	require.NoError(b.t, err)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), goingDown, uintptr(unsafe.Pointer(&flushLog)))
	require.Zero(b.t, e)
	require.NoError(b.t, f.Close())
	run(b.t, "umount", b.mount)
}

// TestNodeExpandAtFullPool: a filesystem grows, and writes where the full pool has no
// blocks.
func TestNodeExpandAtFullPool(t *testing.T) {
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			b := newBench(t)
			b.create(fs, 8*gib, 320*mib)
			b.fillPool()
			b.waitsForRoom("the expansion", func() error {
				_, err := b.Expand(t.Context(), contract.ExpandDiskInput{Disk: b.disk, SizeBytes: 24 * gib})
				return err
			})
			b.fill(10 * mib)
			b.check(fs)
		})
	}
}

// TestNodeNewVolumeFailsInUnmount: the new volume of a move dies while the disk is
// unmounted, so that the mirror holds what the unmount writes. The leg is dropped all
// the same.
func TestNodeNewVolumeFailsInUnmount(t *testing.T) {
	b := newBench(t)
	b.copied(contract.XFS, 20*mib)
	undo := keepDirty(t)
	defer undo()
	_, stopWatch := b.watch()
	defer stopWatch()
	b.step = func(s string) error {
		if s == "flushed" {
			b.host.SetFault(b.vols[1], node.Fault{Kind: node.FaultErrorWrites})
			b.unsaved("late", 20<<20)
		}
		return nil
	}
	within(t, 30*time.Second, "taking the disk down", func() {
		require.NoError(t, b.Disassemble(t.Context(), b.disk))
	})
	b.step = nil
	b.host.SetFault(b.vols[1], node.Fault{})
	b.nextAgent()
	got, err := os.ReadFile(filepath.Join(b.mount, "late"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(bytes.Repeat([]byte{'u'}, 20<<20), got))
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Generation)
	b.check(contract.XFS)
}
