package disk_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/tests/acked"
)

func has(events func() []disk.Event, k disk.EventKind) func() bool {
	return func() bool {
		for _, e := range events() {
			if e.Kind == k {
				return true
			}
		}
		return false
	}
}

// fillUntil writes acknowledged files until a write fails, or n bytes are written.
func (b *bench) fillUntil(n int64) error {
	ctx, cancel := context.WithCancel(b.t.Context())
	defer cancel()
	_, err := (&acked.Writer{Dir: b.mount, Journal: b.journal, Bytes: func(uint64) int {
		if n -= 4 * mib; n <= 0 {
			cancel()
		}
		return int(4 * mib)
	}}).Run(ctx)
	return err
}

// raise lifts the policy's ceiling to 2 GiB and grows the backing.
func (b *bench) raise(g contract.Guide) {
	g.CeilingGiB = 2
	b.Guide(b.disk, g)
	b.host.Resize(b.vols[0], 2*gib)
	_, err := b.GrowBacking(b.t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: 2 * gib})
	require.NoError(b.t, err)
}

// TestNodeCeilingWaits: writes that need more than the policy's ceiling wait, and
// go on when it is raised.
func TestNodeCeilingWaits(t *testing.T) {
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			b := newBench(t)
			b.create(fs, 2*gib, 320*mib)
			g := contract.Guide{CeilingGiB: 1}
			b.Guide(b.disk, g)
			events, stopWatch := b.watch()
			defer stopWatch()
			done := make(chan error, 1)
			go func() { done <- b.fillUntil(400 * mib) }()
			require.Eventually(t, has(events, disk.EventFull), time.Minute, 20*time.Millisecond)
			select {
			case <-done:
				t.Fatal("the pool is full, yet the writer has ended")
			default:
			}
			b.raise(g)
			within(t, time.Minute, "the writer", func() { require.NoError(t, <-done) })
			require.False(t, has(events, disk.EventCeiling)())
			b.check(fs)
		})
	}
}

// TestNodeCeilingFails: writes that need more than the policy's ceiling fail, as
// those to any filesystem that is full; nothing else does. What is deleted can be
// written again, and a higher ceiling lets writes go on.
func TestNodeCeilingFails(t *testing.T) {
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			b := newBench(t)
			b.create(fs, 2*gib, 512*mib)
			events, stopWatch := b.watch()
			defer stopWatch()
			measure := func() contract.Measurement {
				m, err := b.Measure(t.Context(), b.disk)
				require.NoError(t, err)
				return m
			}
			full := func(what string) {
				within(t, time.Minute, what, func() { require.ErrorIs(t, b.fillUntil(gib), syscall.ENOSPC, what) })
				m := measure()
				require.False(t, m.Full, "the pool has something left for the filesystem itself")
				t.Logf("%s: pool %d of %d MiB, filesystem %d MiB", what, m.PoolUsedBytes/mib, m.PoolBytes/mib, m.FilesystemUsedBytes/mib)
				require.Less(t, m.FilesystemUsedBytes, m.PoolBytes, "the ballast does not count as used")
				require.Greater(t, m.PoolUsedBytes, m.PoolBytes*7/10, "it failed too early")
			}
			// A writer that waits for nothing, before the ceiling is known and after:
			// what it was allowed to write can be written out.
			big := filepath.Join(b.mount, "big")
			undo := keepDirty(t)
			run(t, "dd", "if=/dev/zero", "of="+big, "bs=1M", "count=250")
			g := contract.Guide{CeilingGiB: 1, FailAtCeiling: true}
			b.Guide(b.disk, g)
			require.Eventually(t, has(events, disk.EventCeiling), 10*time.Second, time.Millisecond)
			undo()
			out, err := exec.Command("dd", "if=/dev/zero", "of="+big, "bs=1M", "oflag=append", "conv=notrunc").CombinedOutput()
			require.Error(t, err)
			require.Contains(t, string(out), "No space left on device")
			within(t, time.Minute, "the sync", func() { run(t, "sync", "-f", b.mount) })
			require.False(t, measure().Full)
			require.NoError(t, os.Remove(big))
			require.Eventually(t, b.writable(200*mib), 30*time.Second, 50*time.Millisecond, "what was deleted does not come back")

			full("first")
			// A third is deleted: soon that much can be written.
			before := measure()
			require.NoError(t, acked.Delete(b.mount, b.journal, func(i uint64) bool { return i%3 == 0 }))
			require.Eventually(t, b.writable(90*mib), 40*time.Second, 50*time.Millisecond, "what was deleted does not come back")
			require.True(t, has(events, disk.EventTrimmed)())
			full("after deleting")
			require.InDelta(t, before.FilesystemUsedBytes, measure().FilesystemUsedBytes, float64(50*mib))
			require.False(t, has(events, disk.EventFull)(), "no write waited")

			b.raise(g)
			require.Eventually(t, b.writable(gib/2), 10*time.Second, 20*time.Millisecond, "the ceiling was raised")
			require.NoError(t, b.fillUntil(100*mib))
			stopWatch()
			b.check(fs)
		})
	}
}

// keepDirty makes the kernel keep what is written in memory for a while.
func keepDirty(t *testing.T) (undo func()) {
	was := map[string]string{}
	set := func(name, v string) { require.NoError(t, os.WriteFile("/proc/sys/vm/"+name, []byte(v), 0o644)) }
	undo = func() {
		for name, v := range was {
			set(name, v)
		}
		clear(was)
	}
	t.Cleanup(undo)
	for name, v := range map[string]string{"dirty_background_ratio": "70", "dirty_ratio": "80"} {
		was[name] = readParam(t, "/proc/sys/vm/"+name)
		set(name, v)
	}
	return undo
}

// writable tells whether the filesystem says that n bytes can be written.
func (b *bench) writable(n int64) func() bool {
	return func() bool {
		var st syscall.Statfs_t
		require.NoError(b.t, syscall.Statfs(b.mount, &st))
		return int64(st.Bavail)*st.Bsize > n
	}
}

// TestNodeCeilingAndMove: a move has no limit on its disk, and taking a disk down
// does not fail over it.
func TestNodeCeilingAndMove(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 4*gib, 512*mib)
	b.Guide(b.disk, contract.Guide{CeilingGiB: 1, FailAtCeiling: true})
	_, stopWatch := b.watch()
	defer stopWatch()
	limited := func() bool { return !b.writable(gib)() }
	require.Eventually(t, limited, 10*time.Second, 20*time.Millisecond)
	in := b.prepare("m-1", gib)
	require.Eventually(t, b.writable(2*gib), 10*time.Second, 20*time.Millisecond)
	b.through(in)
	b.drop(b.vols[0])
	require.Eventually(t, limited, 10*time.Second, 20*time.Millisecond)
	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	b.nextAgent()
	require.True(t, b.writable(2*gib)(), "nobody told the next agent")
	b.check(contract.XFS)
}

// TestNodeCeilingIsNoUse: what a filesystem uses is measured right while its
// ballast comes and goes.
func TestNodeCeilingIsNoUse(t *testing.T) {
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			b := newBench(t)
			m := b.create(fs, 16*gib, 512*mib)
			_, stopWatch := b.watch()
			defer stopWatch()
			least, most := m.FilesystemUsedBytes, m.FilesystemUsedBytes
			until := func(g contract.Guide, limited bool) {
				b.Guide(b.disk, g)
				require.Eventually(t, func() bool {
					reached := b.writable(8*gib)() != limited
					m, err := b.Measure(t.Context(), b.disk)
					require.NoError(t, err)
					least, most = min(least, m.FilesystemUsedBytes), max(most, m.FilesystemUsedBytes)
					return reached
				}, 15*time.Second, 10*time.Millisecond)
			}
			for range 6 {
				until(contract.Guide{CeilingGiB: 1, FailAtCeiling: true}, true)
				until(contract.Guide{CeilingGiB: 1}, false)
			}
			t.Logf("between %d and %d MiB", least/mib, most/mib)
			require.Less(t, most-least, 64*mib)
		})
	}
}
