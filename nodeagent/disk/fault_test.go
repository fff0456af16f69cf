package disk_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/acked"
	"github.com/ebb-storage/ebb/tests/node"
)

func openDM(t *testing.T) *dm.Client {
	c, err := dm.Open()
	require.NoError(t, err)
	return c
}

// watch runs the agent's watch and gathers its events.
func (b *bench) watch() (events func() []disk.Event, stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	var mu sync.Mutex
	var list []disk.Event
	done := make(chan struct{})
	m := b.Manager
	go func() {
		defer close(done)
		_ = m.Watch(ctx, func(e disk.Event) {
			mu.Lock()
			defer mu.Unlock()
			list = append(list, e)
		})
	}()
	return func() []disk.Event {
			mu.Lock()
			defer mu.Unlock()
			return append([]disk.Event(nil), list...)
		}, func() {
			cancel()
			<-done
		}
}

func refusal(t *testing.T, err error, code contract.RefusalCode) *contract.Refusal {
	t.Helper()
	r, ok := contract.AsRefusal(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, r.Code, "%v", r)
	require.NotEmpty(t, r.Next, "a refusal says what to do: %v", r)
	return r
}

// TestNodeNewVolumeFails: the new volume dies in mid-move. The move ends, the
// application sees a short wait and no error (I2).
func TestNodeNewVolumeFails(t *testing.T) {
	for _, c := range []struct {
		kind  string
		alone bool
	}{{node.FaultErrorWrites, false}, {node.FaultErrorWrites, true}, {node.FaultError, true}} {
		kind := c.kind
		t.Run(fmt.Sprintf("%s mirror=%t", kind, c.alone), func(t *testing.T) {
			b := newBench(t)
			if c.alone {
				b.alone()
			}
			b.create(contract.Ext4, 8*gib, gib)
			b.fill(100 * mib)
			events, stopWatch := b.watch()
			defer stopWatch()
			stop := b.writer(0)
			in := b.prepare("m-1", gib)
			var once sync.Once
			_, err := b.Evacuate(t.Context(), in, func(p contract.CopyProgress) {
				if p.DoneBytes > p.TotalBytes/8 {
					once.Do(func() { b.host.SetFault(b.vols[1], node.Fault{Kind: kind}) })
				}
			})
			if err == nil { // the copy was over before the fault: the writer meets it
				require.Eventually(t, func() bool {
					_, err = b.VerifyMove(t.Context(), in, silent)
					return err != nil
				}, 30*time.Second, 50*time.Millisecond)
			}
			r := refusal(t, err, contract.MoveFailed)
			require.Equal(t, b.vols[1], r.Volume)
			time.Sleep(100 * time.Millisecond) // let it write on the old volume alone for a moment
			s := stop()
			t.Logf("writer: %+v", s)
			require.Less(t, s.LongestStallMS, int64(10_000))
			m, err := b.AbortMove(t.Context(), in)
			require.NoError(t, err)
			require.Nil(t, m.Move, "the new volume still says that it is incoming")
			require.Len(t, b.devices(), 5)
			require.Eventually(t, func() bool {
				for _, e := range events() {
					if e.Kind == disk.EventMoveFailed {
						return true
					}
				}
				return false
			}, 5*time.Second, 10*time.Millisecond)
			b.host.SetFault(b.vols[1], node.Fault{})
			b.check(contract.Ext4)
		})
	}
}

// TestNodeNewVolumeFailsUnseen: the new volume dies between the copy and the
// comparison, and nobody has written since. The refusal says which volume it is,
// and the abort leaves nothing on it.
func TestNodeNewVolumeFailsUnseen(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 20*mib)
	b.host.SetFault(b.vols[1], node.Fault{Kind: node.FaultError})
	t.Cleanup(func() { // else a failure would leave a mirror that holds the unmount's writes
		for _, v := range b.vols {
			b.host.SetFault(v, node.Fault{})
		}
	})
	_, err := b.VerifyMove(t.Context(), in, silent)
	r := refusal(t, err, contract.MoveFailed)
	require.Equal(t, b.vols[1], r.Volume)
	for range 2 {
		m, err := b.AbortMove(t.Context(), in)
		require.NoError(t, err)
		require.Nil(t, m.Move)
		require.Len(t, b.devices(), 5)
	}
	b.drop(b.vols[1])
	b.check(contract.XFS)
}

// TestNodeNewVolumeFailsWithoutAgent: nobody is there when the new volume dies.
// Writes wait; the next agent's start lets them go on.
func TestNodeNewVolumeFailsWithoutAgent(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 20*mib)
	stop := b.writer(0)
	b.host.SetFault(b.vols[1], node.Fault{Kind: node.FaultErrorWrites})
	require.Eventually(t, func() bool { // the mirror has noticed
		_, s, err := b.dm.Status("ebb-" + string(b.disk))
		require.NoError(t, err)
		st, err := dm.ParseMirror(s[0].Params)
		return err == nil && !st.AllAlive()
	}, 30*time.Second, 10*time.Millisecond)
	b.nextAgent()
	stop()
	m, err := b.AbortMove(t.Context(), in)
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Generation)
	b.host.SetFault(b.vols[1], node.Fault{})
	b.check(contract.XFS)
}

// TestNodeOldVolumeFails: the old volume cannot be read. The application gets an
// error or the right bytes, never wrong ones, and the operation says which
// volume it is.
func TestNodeOldVolumeFails(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("mirror=%t", alone), func(t *testing.T) {
			b := newBench(t)
			if alone {
				b.alone()
			}
			b.create(contract.XFS, 8*gib, gib)
			b.fill(100 * mib)
			in := b.prepare("m-1", gib)
			require.NoError(t, b.Throttle(t.Context(), contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move, MiBs: 20}))
			dropCaches(t)
			var once sync.Once
			_, err := b.Evacuate(t.Context(), in, func(p contract.CopyProgress) {
				if p.DoneBytes > p.TotalBytes/8 {
					once.Do(func() {
						b.host.SetFault(b.vols[0], node.Fault{Kind: node.FaultErrorReads})
						b.rightOrError()
					})
				}
			})
			r := refusal(t, err, contract.VolumeFailing)
			require.Equal(t, b.vols[0], r.Volume)
			b.host.SetFault(b.vols[0], node.Fault{})
			_, err = b.AbortMove(t.Context(), in)
			require.NoError(t, err)
			b.check(contract.XFS)
		})
	}
}

// rightOrError reads acknowledged files from the volumes: an error is honest,
// other bytes are not.
func (b *bench) rightOrError() {
	names, err := filepath.Glob(filepath.Join(b.mount, "w*"))
	require.NoError(b.t, err)
	before, err := acked.Contents(b.journal)
	require.NoError(b.t, err)
	for _, name := range names {
		want, ok := before[filepath.Base(name)]
		if !ok {
			continue
		}
		got, err := readDirect(name)
		if err == nil {
			require.True(b.t, bytes.Equal(want[:min(len(want), len(got))], got), "%s: wrong bytes", name)
		}
	}
}

func readDirect(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := volume.AlignedBuffer(64 << 10)
	n, err := f.Read(buf)
	return buf[:n], err
}

// TestNodeReadErrorWhileBeginning is the narrow hole of I2: a region that was
// first written between the first map and the first swap is marked in sync in
// log A though the new leg has nothing. A read error on the old volume in just
// that moment must not be answered with the new leg's zeros.
func TestNodeReadErrorWhileBeginning(t *testing.T) {
	b := newBench(t).alone()
	b.create(contract.XFS, 8*gib, gib)
	b.fill(8 * mib)
	in := b.prepare("m-1", gib)
	file := filepath.Join(b.mount, "late")
	// Large enough to fill whole regions that nothing was in before.
	data := bytes.Repeat([]byte("false-clean."), 24<<20/12)
	asked := 0
	b.step = func(s string) error {
		switch s {
		case "log-a": // mapped, not yet mirrored
			f, err := os.Create(file)
			require.NoError(t, err)
			_, err = f.Write(data)
			require.NoError(t, err)
			require.NoError(t, f.Sync())
			require.NoError(t, f.Close())
		case "swap-a":
			f, err := os.OpenFile(file, os.O_RDONLY|unix.O_DIRECT, 0)
			require.NoError(t, err)
			defer f.Close()
			b.host.SetFault(b.vols[0], node.Fault{Kind: node.FaultErrorReads})
			defer b.host.SetFault(b.vols[0], node.Fault{})
			buf := volume.AlignedBuffer(64 << 10)
			for off := 0; off+len(buf) <= len(data); off += 1 << 20 {
				asked++
				if n, err := f.ReadAt(buf, int64(off)); err == nil {
					require.True(t, bytes.Equal(data[off:off+n], buf[:n]), "answered by the unproven leg at %d: %q", off, buf[:32])
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
		_, err = b.CommitMove(t.Context(), in)
		require.NoError(t, err)
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, data, got)
	b.check(contract.XFS)
}

// TestNodeFalseCleanIsCopied: what is written between the first map and the
// first swap reaches the new volume too (I1).
func TestNodeFalseCleanIsCopied(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprintf("mirror=%t", alone), func(t *testing.T) {
			b := newBench(t)
			if alone {
				b.alone()
			}
			b.create(contract.Ext4, 8*gib, gib)
			b.fill(8 * mib)
			in := b.prepare("m-1", gib)
			b.step = func(s string) error {
				if s == "log-a" {
					b.fill(30 * mib)
				}
				return nil
			}
			_, err := b.Evacuate(t.Context(), in, silent)
			require.NoError(t, err)
			b.step = nil
			b.commit(in)
			b.check(contract.Ext4)
		})
	}
}

// TestNodeVerifyFindsDamage: bytes changed on the new volume behind the mirror's
// back are found, and the abort leaves the disk as it was.
func TestNodeVerifyFindsDamage(t *testing.T) {
	b := newBench(t).alone()
	in := b.copied(contract.XFS, 50*mib)
	list, err := b.dm.Info("ebb-" + string(b.disk) + "-g2")
	require.NoError(t, err)
	f, err := os.OpenFile(dm.DevPath(list), os.O_RDWR|unix.O_DIRECT, 0)
	require.NoError(t, err)
	buf := volume.AlignedBuffer(4096)
	copy(buf, "not what was written")
	_, err = f.WriteAt(buf, 0) // the superblock
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = b.VerifyMove(t.Context(), in, silent)
	r := refusal(t, err, contract.MoveFailed)
	require.Equal(t, b.vols[1], r.Volume)
	_, err = b.AbortMove(t.Context(), in)
	require.NoError(t, err)
	b.check(contract.XFS)
}

// TestNodeStaleLogIsNeverResumed: after an abort whose mark never reached the
// new volume, that volume's log is stale. It must not be taken up again.
func TestNodeStaleLogIsNeverResumed(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 20*mib)
	b.host.SetFault(b.vols[1], node.Fault{Kind: node.FaultErrorWrites})
	_, err := b.AbortMove(t.Context(), in) // cannot write to the new volume
	require.NoError(t, err)
	b.fill(20 * mib) // the new volume misses this
	b.host.SetFault(b.vols[1], node.Fault{})
	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	b.nextAgent()
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.EqualValues(t, 1, m.Generation)
	require.True(t, m.Move == nil || m.Move.Phase == contract.PhasePrepare || m.Move.InSync == 0, "%+v", m.Move)
	b.check(contract.XFS)
}

// TestNodeFullPoolWaits: a full pool holds writes, the growth releases them, and
// nothing fails, not even after the minute that the kernel's default allows.
func TestNodeFullPoolWaits(t *testing.T) {
	b := newBench(t)
	b.create(contract.Ext4, 8*gib, 640*mib)
	events, stopWatch := b.watch()
	defer stopWatch()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.fill(700 * mib)
	}()
	has := func(k disk.EventKind) func() bool {
		return func() bool {
			for _, e := range events() {
				if e.Kind == k {
					return true
				}
			}
			return false
		}
	}
	require.Eventually(t, has(disk.EventPressure), time.Minute, 20*time.Millisecond, "no pressure before the pool is full")
	require.Eventually(t, has(disk.EventFull), time.Minute, 20*time.Millisecond)
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.True(t, m.Full)
	select {
	case <-done:
		t.Fatal("the pool is full, yet the writer has ended")
	default:
	}
	b.host.Resize(b.vols[0], 2*gib)
	m, err = b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: 2 * gib})
	require.NoError(t, err)
	require.False(t, m.Full)
	require.Equal(t, 2*gib, m.BackingBytes)
	<-done
	b.check(contract.Ext4)
}

// TestNodeNewVolumeFailsWhileCommitting: the agent dies between the headers of a
// commit, and then the new volume. Nobody can read any more whether its header
// had become active; but the mirror runs, so the old volume has everything. The
// next agent takes it, above whatever the new one may say when it comes back.
func TestNodeNewVolumeFailsWhileCommitting(t *testing.T) {
	for _, c := range []struct{ step, fault string }{
		{"committing", node.FaultError}, {"committed", node.FaultError}, {"committed", node.FaultErrorWrites},
	} {
		step := c.step
		t.Run(step+" "+c.fault, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.XFS, 8*gib, gib)
			b.fill(20 * mib)
			in := contract.MoveInput{Disk: b.disk, Move: "m-1"}
			vol := b.volume(gib)
			b.dieAt(step, in, vol)
			stop := b.writer(0)
			b.host.SetFault(vol, node.Fault{Kind: c.fault})
			require.Eventually(t, func() bool {
				_, s, err := b.dm.Status("ebb-" + string(b.disk))
				require.NoError(t, err)
				st, err := dm.ParseMirror(s[0].Params)
				return err == nil && !st.AllAlive()
			}, 30*time.Second, 10*time.Millisecond)
			b.nextAgent()
			stop()
			_, err := b.AbortMove(t.Context(), in)
			require.NoError(t, err)
			require.EqualValues(t, 3, b.generation(), "above both")
			b.fill(10 * mib)
			b.host.SetFault(vol, node.Fault{})
			require.NoError(t, b.Disassemble(t.Context(), b.disk))
			b.nextAgent()
			require.EqualValues(t, 3, b.generation(), "above both")
			b.check(contract.XFS)
		})
	}
}

// TestNodeDiskBesideItsMirror: the disk ran without its mirror while both headers
// say that a copy is under way (a hand has been at work). The log is stale: it is
// not taken up again.
func TestNodeDiskBesideItsMirror(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 20*mib)
	top := "ebb-" + string(b.disk)
	old, err := b.dm.Info(top + "-g1")
	require.NoError(t, err)
	_, err = b.dm.Load(top, false, dm.Linear(0, uint64(8*gib/512), old.Dev, 0))
	require.NoError(t, err)
	_, err = b.dm.Resume(top, dm.ResumeFlags{NoFlush: true, Internal: true})
	require.NoError(t, err)
	b.fill(20 * mib) // the new volume misses this
	b.nextAgent()
	b.through(in)
	b.check(contract.XFS)
}

// TestNodeOldVolumeFailsAfterCommit: the old volume dies before it is taken down.
// The disk runs over the new one, and goes on: it grows, and the old one is
// given up.
func TestNodeOldVolumeFailsAfterCommit(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 20*mib)
	_, err := b.CommitMove(t.Context(), in)
	require.NoError(t, err)
	b.host.SetFault(b.vols[0], node.Fault{Kind: node.FaultError})
	b.host.Resize(b.vols[1], 2*gib)
	_, err = b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[1], Bytes: 2 * gib})
	require.NoError(t, err)
	b.nextAgent()
	_, err = b.RetireBacking(t.Context(), in)
	require.NoError(t, err)
	b.check(contract.XFS)
}
