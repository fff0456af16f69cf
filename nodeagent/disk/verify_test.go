package disk_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// hotBytes is one chunk of the verification; coldBlock is the one block of it that
// is left alone.
const (
	hotBytes  = 4 << 20
	hotBlocks = hotBytes / 4096
	coldBlock = hotBlocks / 2
)

// hot writes to one area of 4 MiB without end, some hundred times a second: blocks
// here and there, and one over and over again, as the tail of a log is. What it
// writes is never the same. It returns when it is at it.
func (b *bench) hot() (writes *atomic.Int64, stop func()) {
	b.write("hot", "before", hotBytes)
	f, err := os.OpenFile(filepath.Join(b.mount, "hot"), os.O_WRONLY|unix.O_DIRECT, 0)
	require.NoError(b.t, err)
	ctx, cancel := context.WithCancel(b.t.Context())
	writes = new(atomic.Int64)
	var all sync.WaitGroup
	errs := make(chan error, 6)
	for w := range cap(errs) {
		all.Go(func() {
			buf := volume.AlignedBuffer(4096)
			pace := time.NewTicker(10 * time.Millisecond)
			defer pace.Stop()
			for i := uint64(w); ctx.Err() == nil; i += 7919 {
				<-pace.C
				at := i % hotBlocks
				if w == 0 || at == coldBlock {
					at = 0
				} else if at == 0 {
					at = 1
				}
				n := writes.Add(1)
				for k := 0; k < len(buf); k += 512 {
					binary.LittleEndian.PutUint64(buf[k:], uint64(n))
				}
				if _, err := f.WriteAt(buf, int64(at)*4096); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	require.Eventually(b.t, func() bool { return writes.Load() > 200 }, time.Minute, 10*time.Millisecond)
	return writes, sync.OnceFunc(func() {
		cancel()
		all.Wait()
		require.NoError(b.t, f.Close())
		close(errs)
		require.NoError(b.t, <-errs)
	})
}

// far makes reads of both backings take as long as those of a volume far away, or a
// busy one.
func (b *bench) far() (near func()) {
	var undo []func()
	for _, gen := range []string{"-g1", "-g2"} {
		name := "ebb-" + string(b.disk) + gen + "-data"
		_, before, err := b.dm.Table(name)
		require.NoError(b.t, err)
		set := func(table []dm.Target) {
			_, err := b.dm.Load(name, false, table...)
			require.NoError(b.t, err)
			_, err = b.dm.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true})
			require.NoError(b.t, err)
		}
		var slow []dm.Target
		for _, t := range before { // milliseconds, of reads and of writes
			slow = append(slow, dm.Target{Start: t.Start, Length: t.Length, Type: "delay", Params: fmt.Sprintf("%s 30 %s 0", t.Params, t.Params)})
		}
		set(slow)
		undo = append(undo, func() { set(before) })
	}
	return sync.OnceFunc(func() {
		for _, f := range undo {
			f()
		}
	})
}

// TestNodeVerifyHotChunk: a chunk is written hundreds of times a second while it is
// verified, so that it is never equal as a whole. Every byte of it is at some time.
// A difference that lasts is found in the middle of it all the same.
func TestNodeVerifyHotChunk(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		t.Run(fmt.Sprintf("damaged=%t", damaged), func(t *testing.T) {
			b := newBench(t).alone()
			in := b.copied(contract.XFS, 20*mib)
			near := b.far()
			defer near()
			writes, stop := b.hot()
			defer stop()
			var at int64
			if damaged {
				at = b.damage("hot", coldBlock)
			}
			began, before := time.Now(), writes.Load()
			ve, err := b.VerifyMove(t.Context(), in, silent)
			t.Logf("%+v in %s, %d writes meanwhile", ve, time.Since(began), writes.Load()-before)
			stop()
			near()
			if damaged {
				r := refusal(t, err, contract.MoveFailed)
				require.Equal(t, b.vols[1], r.Volume)
				require.Contains(t, r.Message, fmt.Sprintf("at byte %d", at))
				_, err = b.AbortMove(t.Context(), in)
				require.NoError(t, err)
			} else {
				require.NoError(t, err)
				require.Positive(t, ve.Retried, "it was never caught in a write")
				require.Less(t, ve.Retried, int64(hotBytes), "no more is read again than differs")
				b.commit(in)
			}
			b.check(contract.XFS)
		})
	}
}

// damage changes one byte of a block of a file on the new volume, behind the
// mirror's back, and tells where.
func (b *bench) damage(name string, block int64) int64 {
	f, err := os.Open(filepath.Join(b.mount, name))
	require.NoError(b.t, err)
	defer f.Close()
	where := uint32(block)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 1 /* FIBMAP */, uintptr(unsafe.Pointer(&where)))
	require.Zero(b.t, e)
	info, err := b.dm.Info("ebb-" + string(b.disk) + "-g2")
	require.NoError(b.t, err)
	leg, err := os.OpenFile(dm.DevPath(info), os.O_RDWR|unix.O_DIRECT, 0)
	require.NoError(b.t, err)
	defer leg.Close()
	buf := volume.AlignedBuffer(4096)
	_, err = leg.ReadAt(buf, int64(where)*4096)
	require.NoError(b.t, err)
	buf[700] ^= 1
	_, err = leg.WriteAt(buf, int64(where)*4096)
	require.NoError(b.t, err)
	return int64(where)*4096 + 700
}
