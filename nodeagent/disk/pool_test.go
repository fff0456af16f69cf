package disk_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// TestNodePoolGivenUp: a pool whose metadata cannot be written any more is reported, and
// no measurement shows it as one that holds little. Taken down and brought up again, with
// a volume that works, it is the disk it was.
func TestNodePoolGivenUp(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(20 * mib)
	events, stop := b.watch()
	defer stop()
	meta := "ebb-" + string(b.disk) + "-g1-meta"
	_, table, err := b.dm.Table(meta)
	require.NoError(t, err)
	fails := []dm.Target{{Length: table[0].Length, Type: "error"}}
	require.Len(t, table, 1)
	_, err = b.dm.Load(meta, false, fails...)
	require.NoError(t, err)
	_, err = b.dm.Resume(meta, dm.ResumeFlags{NoFlush: true, Internal: true})
	require.NoError(t, err)
	name := filepath.Join(b.mount, "lost")
	require.Eventually(t, func() bool {
		if f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err == nil {
			_, _ = f.Write(make([]byte, mib))
			_ = f.Sync()
			_ = f.Close()
		}
		for _, e := range events() {
			if strings.Contains(e.Message, "has failed") {
				return true
			}
		}
		return false
	}, 30*time.Second, 100*time.Millisecond)
	_, err = b.Measure(t.Context(), b.disk)
	r := refusal(t, err, contract.VolumeFailing)
	require.Equal(t, b.disk, r.Disk)
	require.Equal(t, b.vols[0], r.Volume)
	stop()

	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk, MountPath: b.mount})
	require.NoError(t, err)
	_ = os.Remove(name)
	b.check(contract.XFS)
}

// TestNodePoolWithoutTable: what a load that failed leaves of a new backing's pool stops
// no measurement, and is made whole by the next try.
func TestNodePoolWithoutTable(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(20 * mib)
	in := b.prepare("m-1", 512*mib)
	pool := "ebb-" + string(b.disk) + "-g2-pool"
	run(t, "dmsetup", "create", "--noudevsync", "--notable", "-u", "EBB-"+strings.TrimPrefix(pool, "ebb-"), pool)
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	require.NotNil(t, m.Move)
	b.through(in)
	b.check(contract.XFS)
}
