package disk_test

import (
	"os"
	"path/filepath"
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
