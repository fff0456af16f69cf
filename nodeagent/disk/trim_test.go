package disk_test

import (
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/acked"
)

// TestNodeTrim: what was deleted a moment ago comes back at once, on a disk much
// larger than its backing.
func TestNodeTrim(t *testing.T) {
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			b := newBench(t)
			before := b.create(fs, 64*gib, gib)
			require.NoError(t, os.Mkdir(filepath.Join(b.mount, "fill"), 0o755))
			top, live := b.mount, b.journal
			b.mount, b.journal = filepath.Join(top, "fill"), b.journal+".fill"
			b.fill(300 * mib)
			require.NoError(t, acked.Delete(b.mount, b.journal, func(i uint64) bool { return i%6 == 0 }))
			b.mount, b.journal = top, live
			stop := b.writer(5 * time.Millisecond)
			tr, err := b.Trim(t.Context(), b.disk)
			require.NoError(t, err)
			require.Less(t, stop().LongestStallMS, int64(2000), "the trim holds writes")
			m := tr.Measurement
			require.LessOrEqual(t, tr.TrimmedBytes, m.SizeBytes)
			t.Logf("%d MiB trimmed; pool %d MiB (%d when made), filesystem %d MiB", tr.TrimmedBytes/mib, m.PoolUsedBytes/mib, before.PoolUsedBytes/mib, m.FilesystemUsedBytes/mib)
			require.Less(t, m.PoolUsedBytes, before.PoolUsedBytes+110*mib)
		})
	}
}

// TestNodeTrimGivesWay: a growth waits neither for a trim nor for its look at the
// pool's map, and a move has no trim beside it.
func TestNodeTrimGivesWay(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(100 * mib)
	require.NoError(t, acked.Delete(b.mount, b.journal, func(i uint64) bool { return i%2 == 0 }))
	size := 512 * mib
	grow := func() {
		size += 64 * mib
		b.host.Resize(b.vols[0], size)
		within(t, time.Second, "the growth", func() {
			_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: size})
			require.NoError(t, err)
		})
	}
	// beside runs a trim that stops at a step until release is true, and grows the
	// disk meanwhile.
	beside := func(step string, release func() bool) error {
		there := make(chan struct{})
		var once sync.Once
		b.step = func(s string) error {
			if s == step {
				once.Do(func() { close(there) })
				for !release() {
					runtime.Gosched()
				}
			}
			return nil
		}
		done := make(chan error, 1)
		go func() {
			_, err := b.Reclaim(t.Context(), b.disk)
			done <- err
		}()
		<-there
		grow()
		err := <-done
		b.step = nil
		return err
	}
	err := beside("trim-map", func() bool { return b.Growing(b.disk) })
	require.ErrorContains(t, err, "a growth comes first")

	var grown atomic.Bool
	wanted := size + 64*mib
	err = beside("trim-span", func() bool {
		if m, err := b.Measure(t.Context(), b.disk); err == nil && m.BackingBytes == wanted {
			grown.Store(true)
		}
		return grown.Load()
	})
	require.NoError(t, err)
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.Less(t, m.PoolUsedBytes, 150*mib)

	b.prepare("m-1", gib)
	b.fill(50 * mib)
	require.NoError(t, acked.Delete(b.mount, b.journal, func(i uint64) bool { return i%3 == 0 }))
	out, err := b.Reclaim(t.Context(), b.disk)
	require.NoError(t, err)
	require.Zero(t, out.TrimmedBytes)
	b.check(contract.XFS)
}
