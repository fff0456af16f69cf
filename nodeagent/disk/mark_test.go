package disk_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// kernelMark is the low-water mark of the disk's pool, in bytes.
func (b *bench) kernelMark() int64 {
	_, table, err := b.dm.Table("ebb-" + string(b.disk) + "-g1-pool")
	require.NoError(b.t, err)
	blocks, ok := dm.LowWater(table[0])
	require.True(b.t, ok)
	return int64(blocks) * 128 << 10
}

// TestNodeGuideMovesTheMark: the headroom of a policy becomes the mark that the
// kernel watches, under a writer, and crossing it is told at once.
func TestNodeGuideMovesTheMark(t *testing.T) {
	b := newBench(t)
	m := b.create(contract.XFS, 8*gib, gib)
	events, stopWatch := b.watch()
	defer stopWatch()
	pressed := func() bool {
		for _, e := range events() {
			if e.Kind == disk.EventPressure {
				return true
			}
		}
		return false
	}
	usual := b.kernelMark()
	require.InDelta(t, 256*mib, usual, float64(mib))
	free := m.PoolBytes - m.PoolUsedBytes
	stop := b.writer(20 * time.Millisecond)
	b.Guide(b.disk, contract.Guide{HeadroomBytes: free - 150*mib, HeadroomTime: time.Second}) // looks every second
	require.Eventually(t, func() bool { return b.kernelMark() > 2*usual }, 10*time.Second, 20*time.Millisecond)
	require.InDelta(t, free-150*mib, b.kernelMark(), float64(mib))
	s := stop()
	t.Logf("longest stall of a writer: %d ms", s.LongestStallMS)
	require.Less(t, s.LongestStallMS, int64(1000), "the swap of the pool's table holds writes")
	require.False(t, pressed(), "%d bytes written", s.Bytes)
	b.Guide(b.disk, contract.Guide{HeadroomBytes: free - 150*mib}) // looks every 15 seconds: the kernel must tell
	b.fill(160*mib - int64(s.Bytes))
	require.Eventually(t, pressed, time.Second, 10*time.Millisecond)
	last := events()[len(events())-1]
	require.Greater(t, free-150*mib, m.PoolBytes-last.Pressure.UsedBytes)

	// An extension takes the mark along, and a headroom the pool lacks is told by
	// the next look.
	b.host.Resize(b.vols[0], 2*gib)
	b.Guide(b.disk, contract.Guide{HeadroomBytes: 200 * mib, HeadroomTime: time.Second})
	_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: 2 * gib})
	require.NoError(t, err)
	require.InDelta(t, 200*mib, b.kernelMark(), float64(mib))
	n := len(events())
	b.Guide(b.disk, contract.Guide{HeadroomTime: time.Second, ExtraBytes: 3 * gib, ExtraUntil: time.Now().Add(time.Hour)})
	require.Eventually(t, func() bool { return len(events()) > n }, 20*time.Second, 20*time.Millisecond)
	b.check(contract.XFS)
}
