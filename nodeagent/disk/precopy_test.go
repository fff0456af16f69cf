package disk_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/node"
)

// write overwrites a file in place, durably: the same blocks hold it before and
// after.
func (b *bench) write(name, pattern string, n int64) {
	f, err := os.OpenFile(filepath.Join(b.mount, name), os.O_CREATE|os.O_WRONLY, 0o644)
	require.NoError(b.t, err)
	_, err = f.Write(bytes.Repeat([]byte(pattern), int(n)/len(pattern)+1)[:n])
	require.NoError(b.t, err)
	require.NoError(b.t, f.Sync())
	require.NoError(b.t, f.Close())
}

// identical compares the two backings of a disk byte for byte, what neither holds
// included. Nothing may write meanwhile.
func (b *bench) identical() {
	b.t.Helper()
	unix.Sync()
	var files [2]*os.File
	for i, g := range []string{"-g1", "-g2"} {
		info, err := b.dm.Info("ebb-" + string(b.disk) + g)
		require.NoError(b.t, err)
		files[i], err = os.OpenFile(dm.DevPath(info), os.O_RDONLY|unix.O_DIRECT, 0)
		require.NoError(b.t, err)
		defer files[i].Close()
	}
	x, y := volume.AlignedBuffer(4<<20), volume.AlignedBuffer(4<<20)
	for off := int64(0); ; off += int64(len(x)) {
		n, err := files[0].ReadAt(x, off)
		if n == 0 && err == io.EOF {
			return
		}
		m, _ := files[1].ReadAt(y, off)
		require.Equal(b.t, n, m)
		if !bytes.Equal(x[:n], y[:n]) {
			for i := range n {
				require.Equal(b.t, x[i], y[i], "the backings differ at byte %d", off+int64(i))
			}
		}
	}
}

// TestNodePrecopyProves: what rests is proven before there is a mirror, which then
// copies little, and the verification does not read it again.
func TestNodePrecopyProves(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.fill(200 * mib)
	in := b.prepare("m-1", 512*mib)
	var phases []contract.Phase
	ev, err := b.Evacuate(t.Context(), in, func(p contract.CopyProgress) {
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
	})
	require.NoError(t, err)
	require.Equal(t, []contract.Phase{contract.PhaseCopy, contract.PhaseVerify, contract.PhaseCopy}, phases)
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	t.Logf("%+v %+v", ev, m.Move)
	require.Greater(t, ev.CopiedBytes, 200*mib)
	require.Less(t, ev.CopiedBytes, ev.UsedBytes*3/2, "regions are copied whole, and once")
	b.identical()
	var read int
	ve, err := b.VerifyMove(t.Context(), in, func(contract.CopyProgress) { read++ })
	require.NoError(t, err)
	require.GreaterOrEqual(t, ve.VerifiedBytes, 200*mib)
	require.Less(t, read, 15, "reads of 4 MiB")
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodePrecopySeesWrites: what is written at any time of a pre-copy, or between
// it and the mirror, reaches the new volume: overwritten in place, written for the
// first time, deleted and given back. No verification runs.
func TestNodePrecopySeesWrites(t *testing.T) {
	times := []string{"copy", "compare", "proven", "log-a", "swap-a"}
	if os.Getenv("EBB_TEST_FULL") != "" {
		times = append(times, "precopy", "log-b", "swap-b")
	}
	for _, at := range times {
		t.Run(at, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.Ext4, 2*gib, gib)
			b.fill(100 * mib)
			b.write("over", "before", 24*mib)
			b.write("gone", "before", 24*mib)
			in := b.prepare("m-1", 512*mib)
			changed := 0
			change := sync.OnceFunc(func() {
				changed++
				b.write("over", "after.", 24*mib)
				b.write("new", "new...", 8*mib)
				require.NoError(t, os.Remove(filepath.Join(b.mount, "gone")))
				run(t, "sync", "-f", b.mount)
				run(t, "fstrim", b.mount)
			})
			b.step = func(s string) error {
				if s == at {
					change()
				}
				return nil
			}
			_, err := b.Evacuate(t.Context(), in, func(p contract.CopyProgress) {
				late := p.DoneBytes > p.TotalBytes*3/4
				if at == "copy" && p.Phase == contract.PhaseCopy && late || at == "compare" && p.Phase == contract.PhaseVerify && late {
					change()
				}
			})
			require.NoError(t, err)
			require.Equal(t, 1, changed)
			b.step = nil
			if at == "precopy" || at == "copy" || at == "compare" || at == "proven" || at == "log-a" {
				b.identical() // a discard that passes the kernel's own copy is a known gap
			}
			b.commit(in)
			for name, want := range map[string]string{"over": "after.", "new": "new..."} {
				got, err := os.ReadFile(filepath.Join(b.mount, name))
				require.NoError(t, err)
				require.True(t, bytes.HasPrefix(got, []byte(want)))
				require.Empty(t, bytes.Trim(got, want), "%s has other bytes", name)
			}
			b.check(contract.Ext4)
		})
	}
}

// TestNodeReadErrorAfterPrecopy is the hole of I2 for what a pre-copy has proven:
// it is overwritten before the first swap, so log A is wrong about it, and the old
// volume cannot be read just then. The new one has the bytes of before.
func TestNodeReadErrorAfterPrecopy(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.write("late", "before", 48*mib)
	in := b.prepare("m-1", 512*mib)
	asked := 0
	b.step = func(s string) error {
		switch s {
		case "log-a":
			b.write("late", "after.", 48*mib)
		case "swap-a":
			f, err := os.OpenFile(filepath.Join(b.mount, "late"), os.O_RDONLY|unix.O_DIRECT, 0)
			require.NoError(t, err)
			defer f.Close()
			b.host.SetFault(b.vols[0], node.Fault{Kind: node.FaultErrorReads})
			defer b.host.SetFault(b.vols[0], node.Fault{})
			buf := volume.AlignedBuffer(64 << 10)
			for off := int64(0); off+int64(len(buf)) <= 48*mib; off += 1 << 20 {
				asked++
				if n, err := f.ReadAt(buf, off); err == nil {
					require.Empty(t, bytes.Trim(buf[:n], "after."), "answered by the unproven leg at %d: %q", off, buf[:32])
				} else {
					require.ErrorIs(t, err, unix.EIO)
				}
			}
		}
		return nil
	}
	_, err := b.Evacuate(t.Context(), in, silent)
	require.Positive(t, asked)
	b.step = nil
	if err != nil { // the read error ended that try
		b.finish(in, b.vols[1])
	} else {
		b.commit(in)
	}
	got, err := os.ReadFile(filepath.Join(b.mount, "late"))
	require.NoError(t, err)
	require.Empty(t, bytes.Trim(got, "after."))
}

// TestNodePrecopyGoesOn: the agent dies in mid-copy. The next one compares what is
// there and copies the rest, and what was changed meanwhile.
func TestNodePrecopyGoesOn(t *testing.T) {
	b := newBench(t)
	b.create(contract.Ext4, 2*gib, gib)
	b.write("over", "before", 100*mib)
	b.fill(100 * mib)
	in := b.prepare("m-1", 512*mib)
	b.die("pass", func() error {
		_, err := b.Evacuate(t.Context(), in, silent)
		return err
	})
	b.write("over", "after.", 100*mib)
	b.nextAgent()
	ev, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	require.Greater(t, ev.ResumedFraction, 0.3)
	require.Less(t, ev.ResumedFraction, 0.7)
	b.identical()
	b.commit(in)
	b.check(contract.Ext4)
}

// TestNodeAssembledDuringPrecopy: the disk is assembled again while the pre-copy runs
// (a node that was cut off for a while). What that does to a backing which may be given
// up does not stay with it: the pool waits when it is full, once it is the disk's.
func TestNodeAssembledDuringPrecopy(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.fill(50 * mib)
	in := b.prepare("m-1", 512*mib)
	b.step = func(s string) error {
		if s == "proven" {
			_, err := b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk})
			require.NoError(t, err)
			require.Equal(t, []string{"ebb-" + string(b.disk) + "-g2-pool"}, b.failsWhenFull())
		}
		return nil
	}
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	b.step = nil
	require.Empty(t, b.failsWhenFull())
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodePrecopyFindsDamage: what reached the new volume wrong is found by the
// comparison, and copied again.
func TestNodePrecopyFindsDamage(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.write("file", "whole.", 48*mib)
	in := b.prepare("m-1", 512*mib)
	damage := sync.OnceFunc(func() {
		info, err := b.dm.Info("ebb-" + string(b.disk) + "-g2")
		require.NoError(t, err)
		f, err := os.OpenFile(dm.DevPath(info), os.O_RDWR|unix.O_DIRECT, 0)
		require.NoError(t, err)
		defer f.Close()
		buf := volume.AlignedBuffer(4096)
		copy(buf, "not what was written")
		_, err = f.WriteAt(buf, 0) // the superblock
		require.NoError(t, err)
	})
	b.step = func(s string) error {
		if s == "pass" {
			damage()
		}
		return nil
	}
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	b.step = nil
	b.identical()
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodePrecopyComesBack: a disk is taken down and brought up again in the middle
// of a move. What the pre-copy has proven went with the kernel's count: everything
// is verified.
func TestNodePrecopyComesBack(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.fill(50 * mib)
	in := b.prepare("m-1", 512*mib)
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk, Volumes: b.vols, MountPath: b.mount})
	require.NoError(t, err)
	b.finish(in, b.vols[1])
	b.check(contract.XFS)
}

// TestNodePrecopyIsInterrupted: an attempt ends in the middle of the comparison
// (Temporal did not hear of it, say). The next one goes on from there, and sees what
// was written meanwhile.
func TestNodePrecopyIsInterrupted(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.write("over", "before", 48*mib)
	b.fill(200 * mib)
	in := b.prepare("m-1", 512*mib)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var whole int64
	_, err := b.Evacuate(ctx, in, func(p contract.CopyProgress) {
		if p.Phase == contract.PhaseVerify && p.DoneBytes > p.TotalBytes*3/4 {
			whole = p.TotalBytes
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	b.write("over", "after.", 48*mib)
	var left int64
	ev, err := b.Evacuate(t.Context(), in, func(p contract.CopyProgress) {
		if left == 0 {
			left = p.TotalBytes
		}
	})
	require.NoError(t, err)
	require.Less(t, left, whole/2, "it did not go on")
	require.Less(t, ev.CopiedBytes, ev.UsedBytes*7/4)
	b.identical()
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodePrecopyIsCalledOff: an abort, and taking the disk down, end a pre-copy
// that is under way.
func TestNodePrecopyIsCalledOff(t *testing.T) {
	for _, how := range []string{"abort", "disassemble"} {
		t.Run(how, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.XFS, 2*gib, gib)
			b.fill(50 * mib)
			in := b.prepare("m-1", 512*mib)
			require.NoError(t, b.Throttle(t.Context(), contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move, MiBs: 4}))
			began := make(chan struct{})
			begin := sync.OnceFunc(func() { close(began) })
			done := make(chan error, 1)
			go func() {
				_, err := b.Evacuate(t.Context(), in, func(contract.CopyProgress) { begin() })
				done <- err
			}()
			<-began
			if how == "abort" {
				_, err := b.AbortMove(t.Context(), in)
				require.NoError(t, err)
				require.Len(t, b.devices(), 5)
			} else {
				require.NoError(t, b.Disassemble(t.Context(), b.disk))
				require.Empty(t, b.devices())
			}
			require.Error(t, <-done)
			b.nextAgent()
			b.check(contract.XFS)
		})
	}
}

// TestNodePrecopyMiscounts: the kernel loses count of some writes. The old volume
// was written more than was counted, so nothing is taken for proven.
func TestNodePrecopyMiscounts(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.write("file", "before", 48*mib)
	in := b.prepare("m-1", 512*mib)
	top := "ebb-" + string(b.disk)
	b.step = func(s string) error {
		switch s {
		case "pass":
			b.write("count", "these.", mib)
		case "proven":
			b.write("file", "after.", 48*mib)
			list, err := b.dm.Message(top, 0, "@stats_list ebb")
			require.NoError(t, err)
			for line := range strings.Lines(list) {
				id, _, _ := strings.Cut(line, ":")
				_, err = b.dm.Message(top, 0, "@stats_clear %s", id)
				require.NoError(t, err)
			}
		}
		return nil
	}
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	b.step = nil
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.Greater(t, m.Move.CopyBytes, 96*mib, "the mirror copies it all again")
	b.identical()
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodePausedPrecopy: a pause stops the copy altogether, under a writer that
// does not notice, and a rate is kept.
func TestNodePausedPrecopy(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, 4*gib)
	b.fill(150 * mib)
	in := b.prepare("m-1", 4*gib)
	stop := b.writer(20 * time.Millisecond)
	require.NoError(t, b.Throttle(t.Context(), contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move, Paused: true}))
	var mu sync.Mutex
	var last contract.CopyProgress
	done := make(chan error, 1)
	began := time.Now()
	go func() {
		_, err := b.Evacuate(t.Context(), in, func(p contract.CopyProgress) {
			mu.Lock()
			defer mu.Unlock()
			last = p
		})
		done <- err
	}()
	copied := func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return last.DoneBytes
	}
	require.Never(t, func() bool { return copied() > 0 }, 2*time.Second, 50*time.Millisecond)
	require.NoError(t, b.Throttle(t.Context(), contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move, MiBs: 50}))
	resumed := time.Now()
	require.NoError(t, <-done)
	t.Logf("paused %s, then %s", resumed.Sub(began), time.Since(resumed))
	require.Greater(t, time.Since(resumed), 4*time.Second, "two passes over 150 MiB at 50 MiB/s")
	s := stop()
	require.Less(t, s.LongestStallMS, int64(5000))
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodePrecopyExcludes: two attempts at the same copy take turns; a late write
// of one must not reach what the other has proven.
func TestNodePrecopyExcludes(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, gib)
	b.fill(100 * mib)
	in := b.prepare("m-1", 512*mib)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			_, err := b.Evacuate(t.Context(), in, silent)
			require.NoError(t, err)
		})
	}
	wg.Wait()
	b.identical()
	b.commit(in)
	r := b.check(contract.XFS)
	require.Positive(t, r.Acked)
}
