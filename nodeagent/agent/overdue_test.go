package agent

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// watched is a sentinel and a measurer in a synctest bubble.
type watched struct {
	*Sentinel
	t     *testing.T
	disks *fakeDisks
	asked *fakeSignals
	stays int64 // what a trim leaves in the pool beyond what the filesystem uses
	log   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.b.Reset()
	return l.b.String()
}

// watching runs f in a bubble.
func watching(t *testing.T, f func(w *watched)) {
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t, stays: 10 << 20, disks: newFakeDisks(testDisk), asked: &fakeSignals{}, log: &lockedBuffer{}}
		w.set(func(m *contract.Measurement) { m.PoolUsedBytes, m.FilesystemUsedBytes = 3*contract.GiB, 3*contract.GiB })
		u := NewUsage()
		log := slog.New(slog.NewTextHandler(w.log, nil))
		w.Sentinel = NewSentinel(w.disks, u, w.asked, NewMetrics(u, "test"), testNode, log)
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { w.Run(ctx) })
		m := &measurer{disks: w.disks, usage: u, every: MeasureEvery, notify: w.Notify, measured: w.tend, log: log}
		wg.Go(func() { m.run(ctx) })
		defer wg.Wait()
		defer cancel()
		<-w.disks.ready
		w.wait(0)
		f(w)
	})
}

func (w *watched) wait(d time.Duration) {
	sleep(w.t.Context(), d)
	synctest.Wait()
}

func (w *watched) set(change func(*contract.Measurement)) { w.disks.set(testDisk, change) }

// guide is what a survey does with a guide.
func (w *watched) guide(g contract.Guide) {
	_, err := newSurveyor(w.disks, w.usage).disks(w.t.Context(), contract.SurveyInput{Disks: []contract.SurveyDisk{{Disk: testDisk, Guide: &g}}})
	require.NoError(w.t, err)
	synctest.Wait()
}

// gauge is a metric's value for the test's disk.
func (w *watched) gauge(name string) float64 {
	families, err := w.metrics.Registry.Gather()
	require.NoError(w.t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "disk" && l.GetValue() == string(testDisk) {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
	}
	require.Fail(w.t, "no metric "+name)
	return 0
}

// Temporal cannot be reached while a disk fills: that is told early, with the time
// that is left, and seen in the metrics until growth was asked for.
func TestSentinelWarnsWhenItCannotAsk(t *testing.T) {
	watching(t, func(w *watched) {
		w.asked.fail = func(int, client.StartWorkflowOptions) error { return serviceerror.NewUnavailable("away") }
		const overdue = "ebb_disk_growth_overdue_seconds"
		// It fills slowly: no alarm.
		w.set(func(m *contract.Measurement) { m.FillRate = float64(contract.GiB) / 3600 })
		w.wait(MeasureEvery)
		w.disks.pressure(testDisk, disk.EventPressure)
		w.wait(5 * time.Minute)
		require.Zero(t, w.gauge(overdue))
		require.NotContains(t, w.log.take(), "cannot be asked for")
		require.InDelta(t, 3600, w.gauge("ebb_disk_time_to_full_seconds"), 1)
		// Faster.
		w.set(func(m *contract.Measurement) { m.FillRate = float64(contract.GiB) / 1200 })
		w.wait(5 * time.Minute)
		require.InDelta(t, 600, w.gauge(overdue), 5)
		text := w.log.take()
		require.Contains(t, text, "level=ERROR")
		require.Contains(t, text, "time_to_full=20m0s")
		require.Contains(t, text, string(testDisk))
		w.wait(time.Minute)
		require.NotContains(t, w.log.take(), "level=ERROR", "not every two seconds")

		w.asked.mu.Lock()
		w.asked.fail = nil
		w.asked.mu.Unlock()
		w.set(func(m *contract.Measurement) { m.BackingBytes, m.PoolBytes = 8*contract.GiB, 8*contract.GiB })
		w.wait(time.Minute)
		require.Len(t, w.asked.sent(), 1)
		require.Zero(t, w.gauge(overdue))
	})
}

// Growth was asked for and does not come: EC2 cannot be reached, say.
func TestSentinelWarnsWhenGrowthDoesNotCome(t *testing.T) {
	watching(t, func(w *watched) {
		w.set(func(m *contract.Measurement) { m.FillRate = float64(contract.GiB) / 1200 })
		w.wait(MeasureEvery)
		w.disks.pressure(testDisk, disk.EventPressure)
		w.wait(4 * time.Minute)
		require.Zero(t, w.gauge("ebb_disk_growth_overdue_seconds"))
		w.wait(26 * time.Minute)
		require.InDelta(t, 1800, w.gauge("ebb_disk_growth_overdue_seconds"), 5)
		require.Contains(t, w.log.take(), "has not grown since it was asked for")
		w.set(func(m *contract.Measurement) { m.BackingBytes, m.PoolBytes = 8*contract.GiB, 8*contract.GiB })
		w.wait(15 * time.Minute)
		require.Zero(t, w.gauge("ebb_disk_growth_overdue_seconds"))
	})
}

// A policy's ceiling is told once, then rarely, even when the pool is full; a
// higher one wakes who waits.
func TestSentinelAtThePolicysCeiling(t *testing.T) {
	watching(t, func(w *watched) {
		w.guide(contract.Guide{CeilingGiB: 4})
		require.InDelta(t, 1, w.gauge("ebb_disk_at_ceiling"), 0)
		require.InDelta(t, float64(4*contract.GiB), w.gauge("ebb_disk_ceiling_bytes"), 0)
		w.set(func(m *contract.Measurement) { m.PoolUsedBytes = m.PoolBytes - contract.GiB/8 })
		w.disks.pressure(testDisk, disk.EventPressure)
		w.wait(time.Minute)
		require.Len(t, w.asked.sent(), 1, "so that the refusal stands where operators look")
		require.EqualValues(t, 4, w.asked.sent()[0].grow.Settings.CeilingGiB)
		require.Contains(t, w.log.take(), "its policy's ceiling is reached")

		w.set(func(m *contract.Measurement) { m.PoolUsedBytes, m.Full = m.PoolBytes, true })
		w.disks.pressure(testDisk, disk.EventFull)
		w.wait(time.Minute)
		require.Len(t, w.asked.sent(), 2)
		require.Contains(t, w.log.take(), "writes wait")
		for range 50 {
			w.disks.pressure(testDisk, disk.EventFull)
			w.wait(time.Minute)
		}
		require.Len(t, w.asked.sent(), 2)
		require.NotContains(t, w.log.take(), "level=ERROR")
		require.InDelta(t, 51*60, w.gauge("ebb_disk_write_wait_seconds_total"), 60)
		require.Zero(t, w.gauge("ebb_disk_growth_overdue_seconds"), "it is not wanted")

		w.guide(contract.Guide{CeilingGiB: 6})
		require.Len(t, w.asked.sent(), 3, "at once")
		require.Zero(t, w.gauge("ebb_disk_at_ceiling"))
		w.set(func(m *contract.Measurement) {
			m.BackingBytes, m.PoolBytes, m.Full = 6*contract.GiB, 6*contract.GiB, false
		})
		w.wait(time.Minute)
		require.Empty(t, w.pending)
		waited := w.gauge("ebb_disk_write_wait_seconds_total")
		w.wait(time.Minute)
		require.InDelta(t, waited, w.gauge("ebb_disk_write_wait_seconds_total"), 0)
	})
}

// A pool that did grow, and fills again, is not overdue since it was first asked for;
// neither is one whose ceiling was lifted a moment ago.
func TestSentinelCountsFromTheLastGrowth(t *testing.T) {
	const overdue = "ebb_disk_growth_overdue_seconds"
	watching(t, func(w *watched) {
		fill := func(m *contract.Measurement) {
			m.PoolUsedBytes, m.FilesystemUsedBytes, m.FillRate = m.PoolBytes-contract.GiB/8, m.PoolBytes-contract.GiB/8, float64(contract.GiB)/120
		}
		for range 8 { // each growth comes within a minute, and is used up
			w.set(fill)
			w.disks.pressure(testDisk, disk.EventPressure)
			w.wait(50 * time.Second)
			w.set(func(m *contract.Measurement) { m.BackingBytes += contract.GiB; m.PoolBytes += contract.GiB })
			w.set(fill)
			w.disks.pressure(testDisk, disk.EventPressure)
			w.wait(10 * time.Second)
		}
		require.Greater(t, len(w.asked.sent()), 8)
		require.Zero(t, w.gauge(overdue))
		require.NotContains(t, w.log.take(), "has not grown since it was asked for")
		w.wait(10 * time.Minute)
		require.InDelta(t, 600, w.gauge(overdue), 30)
	})
	watching(t, func(w *watched) {
		w.guide(contract.Guide{CeilingGiB: 4})
		w.set(func(m *contract.Measurement) {
			m.PoolUsedBytes, m.FilesystemUsedBytes, m.Full = m.PoolBytes, m.PoolBytes, true
		})
		w.disks.pressure(testDisk, disk.EventFull)
		for range 10 { // it is told again now and then
			w.wait(30 * time.Minute)
			require.Zero(t, w.gauge(overdue))
		}
		w.guide(contract.Guide{CeilingGiB: 6})
		w.log.take()
		w.wait(4 * time.Minute)
		require.Zero(t, w.gauge(overdue), "it has been wanted for 4 minutes only")
		require.NotContains(t, w.log.take(), "has not grown since it was asked for")
		w.wait(26 * time.Minute)
		require.InDelta(t, 1800, w.gauge(overdue), 20)
	})
}
