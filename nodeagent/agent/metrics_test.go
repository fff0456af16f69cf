package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ebb-storage/ebb/internal/contract"
)

// What a dashboard shows of a disk.
func TestDiskMetrics(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	watching(t, func(w *watched) {
		gib := float64(contract.GiB)
		w.set(func(m *contract.Measurement) {
			m.BackingBytes, m.OverheadBytes, m.PoolBytes, m.PoolUsedBytes = 10*contract.GiB, contract.GiB, 9*contract.GiB, 5*contract.GiB
			m.FilesystemUsedBytes, m.FillRate = 5*contract.GiB, gib/3600
		})
		w.wait(MeasureEvery)
		all := func(want map[string]float64) {
			t.Helper()
			for name, v := range want {
				require.InDelta(t, v, w.gauge(name), 1e-6*v, name)
			}
		}
		all(map[string]float64{
			"ebb_disk_guided": 0, "ebb_disk_ceiling_bytes": 65 * gib, "ebb_disk_at_ceiling": 0, "ebb_disk_low_water_bytes": 1.35 * gib,
			"ebb_disk_time_to_full_seconds": 4 * 3600, "ebb_disk_growth_overdue_seconds": 0, "ebb_disk_write_wait_seconds_total": 0,
		})
		require.InDelta(t, .5, w.gauge("ebb_disk_utilization_ratio"), 1e-9)
		w.guide(contract.Guide{HeadroomTime: 2 * time.Hour, CeilingGiB: 10})
		all(map[string]float64{
			"ebb_disk_guided": 1, "ebb_disk_ceiling_bytes": 10 * gib, "ebb_disk_low_water_bytes": 2 * gib,
		})
		require.InDelta(t, 1, w.gauge("ebb_disk_at_ceiling"), 0)
		w.set(func(m *contract.Measurement) { m.FillRate = 0 })
		w.wait(20 * time.Minute) // the agent's own estimate sinks to nothing
		require.Zero(t, w.gauge("ebb_disk_time_to_full_seconds"))
	})
}
