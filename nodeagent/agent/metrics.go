package agent

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Metrics are what the agent shows on /metrics, in a registry of their own.
// Gauges of disks are made at scrape time from the last measurements, so a disk
// that left the node leaves the metrics with it.
type Metrics struct {
	Registry *prometheus.Registry

	usage *Usage

	activities     *prometheus.CounterVec
	durations      *prometheus.HistogramVec
	running        *prometheus.GaugeVec
	errors         *prometheus.CounterVec
	signals        *prometheus.CounterVec
	signalFailures prometheus.Counter
	events         *prometheus.CounterVec
	ceilings       *prometheus.CounterVec
	trims          *prometheus.CounterVec
	trimmed        *prometheus.CounterVec
	copied         *prometheus.CounterVec
	pauses         prometheus.Histogram
	watchRestarts  prometheus.Counter
	workerStarts   prometheus.Counter
	ready          prometheus.Gauge

	mu      sync.Mutex
	moves   map[contract.DiskID]contract.CopyProgress // of running long activities
	overdue map[contract.DiskID]time.Time             // since when a growth is asked for in vain
}

// NewMetrics makes the metrics of an agent of the given version.
func NewMetrics(u *Usage, version string) *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		usage:    u,
		moves:    make(map[contract.DiskID]contract.CopyProgress),
		overdue:  make(map[contract.DiskID]time.Time),
		activities: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_activities_total", Help: "Activities ended, by outcome: ok, refused, error.",
		}, []string{"activity", "outcome"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ebb_activity_duration_seconds", Help: "How long activities took.",
			Buckets: []float64{.05, .25, 1, 5, 30, 300, 3600},
		}, []string{"activity"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ebb_activities_running", Help: "Activities running now.",
		}, []string{"activity"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_activity_errors_total", Help: "Errors of activities by refusal code; code other: not a refusal, retried.",
		}, []string{"code"}),
		signals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_pressure_signals_total", Help: "Growths asked for, by disk and kind of event.",
		}, []string{"disk", "kind"}),
		signalFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ebb_pressure_signal_failures_total", Help: "Calls for growth that failed and were tried again.",
		}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_disk_events_total", Help: "What the kernel or a measurement reported about disks, by kind.",
		}, []string{"kind"}),
		ceilings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_disk_ceiling_alerts_total", Help: "How often a disk that fills was found to have a backing that cannot grow any further.",
		}, []string{"disk"}),
		trims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_disk_trims_total", Help: "Trims, by disk and reason: pressure (before a growth), routine (hourly at most), ceiling, asked (by an operation).",
		}, []string{"disk", "reason"}),
		trimmed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_disk_trimmed_bytes_total", Help: "Pool bytes that trims gave back.",
		}, []string{"disk"}),
		copied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_move_copied_bytes_total", Help: "Bytes copied by moves whose copy ended.",
		}, []string{"disk"}),
		pauses: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ebb_move_swap_pause_seconds", Help: "How long writes were held by each swap of a disk's table, at the begin and at the commit of a move.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 10},
		}),
		watchRestarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ebb_watch_restarts_total", Help: "How often watching the disks ended and was begun again.",
		}),
		workerStarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ebb_worker_starts_total", Help: "How often the Temporal worker was started.",
		}),
		ready: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ebb_agent_ready", Help: "1 when the disks are reconciled and the worker serves its queue.",
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ebb_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version(), "arch": runtime.GOARCH},
	})
	info.Set(1)
	m.Registry.MustRegister(m.activities, m.durations, m.running, m.errors, m.signals, m.signalFailures,
		m.events, m.ceilings, m.trims, m.trimmed, m.copied, m.pauses, m.watchRestarts, m.workerStarts, m.ready, info, diskCollector{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) activityStarted(name string) { m.running.WithLabelValues(name).Inc() }

// activityDone counts the end of an activity that was started.
func (m *Metrics) activityDone(name string, took time.Duration, err error) {
	m.running.WithLabelValues(name).Dec()
	m.durations.WithLabelValues(name).Observe(took.Seconds())
	m.activityEnded(name, err)
}

// activityEnded counts an outcome; alone, that of an activity whose input was
// refused before it was started.
func (m *Metrics) activityEnded(name string, err error) {
	outcome := "ok"
	if err != nil {
		code := "other"
		outcome = "error"
		if ref, ok := contract.AsRefusal(err); ok {
			code, outcome = string(ref.Code), "refused"
		}
		m.errors.WithLabelValues(code).Inc()
	}
	m.activities.WithLabelValues(name, outcome).Inc()
}

// trimDone counts a trim.
func (m *Metrics) trimDone(id contract.DiskID, reason string, bytes int64) {
	m.trims.WithLabelValues(string(id), reason).Inc()
	m.trimmed.WithLabelValues(string(id)).Add(float64(max(0, bytes)))
}

// growthOverdue notes since when a growth is asked for in vain.
func (m *Metrics) growthOverdue(id contract.DiskID, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.overdue[id] = since
}

// growthNotOverdue forgets it.
func (m *Metrics) growthNotOverdue(id contract.DiskID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.overdue, id)
}

func (m *Metrics) overdueFor(id contract.DiskID, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if since, ok := m.overdue[id]; ok {
		return max(0, now.Sub(since))
	}
	return 0
}

// moving notes the progress of a copy or verification.
func (m *Metrics) moving(id contract.DiskID, p contract.CopyProgress) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moves[id] = p
}

// moveEnded forgets it.
func (m *Metrics) moveEnded(id contract.DiskID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.moves, id)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"disk"}, labels...), nil)
}

// diskGauges are the gauges of every disk, by how they are read.
var diskGauges = []struct {
	desc *prometheus.Desc
	read func(diskState) float64
}{
	{desc("ebb_disk_size_bytes", "The disk's own size."), func(d diskState) float64 { return float64(d.SizeBytes) }},
	{desc("ebb_disk_backing_bytes", "Sum of the volumes behind the disk."), func(d diskState) float64 { return float64(d.BackingBytes) }},
	{desc("ebb_disk_pool_bytes", "Capacity of the disk's pool."), func(d diskState) float64 { return float64(d.PoolBytes) }},
	{desc("ebb_disk_used_bytes", "Pool bytes in use."), func(d diskState) float64 { return float64(d.PoolUsedBytes) }},
	{desc("ebb_disk_utilization_ratio", "Used bytes by backing bytes: what is used of what is paid for."), func(d diskState) float64 {
		return float64(d.PoolUsedBytes) / float64(max(1, d.BackingBytes))
	}},
	{desc("ebb_disk_metadata_bytes", "Capacity of the pool's metadata."), func(d diskState) float64 { return float64(d.MetaBytes) }},
	{desc("ebb_disk_metadata_used_bytes", "Pool metadata in use."), func(d diskState) float64 { return float64(d.MetaUsedBytes) }},
	{desc("ebb_disk_full", "1 while the pool has no free block and writes wait."), func(d diskState) float64 { return flag(d.Full) }},
	{desc("ebb_disk_ceiling_bytes", "The greatest backing that growth may lead to: what holds the whole disk, or less by its policy."), func(d diskState) float64 {
		gib, _ := ceilingGiB(d.Measurement, d.guide)
		return float64(gib * contract.GiB)
	}},
	{desc("ebb_disk_at_ceiling", "1 while the backing cannot grow any further: it holds the whole disk, or has reached its policy's ceiling."), func(d diskState) float64 {
		return flag(atCeiling(d.Measurement, d.guide))
	}},
	{desc("ebb_disk_low_water_bytes", "Growth is asked for when less than this is free in the pool."), func(d diskState) float64 { return float64(d.lowWater()) }},
	{desc("ebb_disk_fill_rate_bytes_per_second", "Smoothed growth of the used bytes."), func(d diskState) float64 { return d.FillRate }},
	{desc("ebb_disk_time_to_full_seconds", "When the pool is full at the fill rate, without growth; 0: it is not filling, or it is full (ebb_disk_full)."), func(d diskState) float64 {
		left := timeToFull(d.PoolBytes-d.PoolUsedBytes, d.FillRate)
		if left == never || d.PoolBytes >= d.SizeBytes {
			return 0
		}
		return left.Seconds()
	}},
	{desc("ebb_disk_generation", "The active generation."), func(d diskState) float64 { return float64(d.Generation) }},
	{desc("ebb_disk_moving", "1 while the disk has a move."), func(d diskState) float64 { return flag(d.Move != nil) }},
	{desc("ebb_disk_guided", "1 when a survey told what the policy wants of the disk; 0: the agent's defaults hold."), func(d diskState) float64 { return flag(d.guided) }},
	{desc("ebb_disk_measured_timestamp_seconds", "When the disk was last measured."), func(d diskState) float64 { return float64(d.At.UnixMilli()) / 1000 }},
}

var (
	diskWaited  = desc("ebb_disk_write_wait_seconds_total", "How long the pool was full, so that writes waited, since the agent started.")
	diskOverdue = desc("ebb_disk_growth_overdue_seconds", "For how long a growth has been asked for in vain while the pool would be full within half an hour; 0: none is overdue.")
	diskInfo    = desc("ebb_disk_info", "Always 1; the labels say what the disk is.", "name", "filesystem", "mount")
	fsBytes     = desc("ebb_filesystem_bytes", "Size of the mounted filesystem.")
	fsUsed      = desc("ebb_filesystem_used_bytes", "Filesystem bytes in use.")
	moveBytes   = desc("ebb_move_bytes", "Bytes to copy in all.")
	moveCopied  = desc("ebb_move_copied_ratio", "Share of the move's bytes that are copied.")
	moveDone    = desc("ebb_move_done_bytes", "Bytes done by the running copy or verification.", "phase")
	moveTotal   = desc("ebb_move_total_bytes", "Bytes the running copy or verification has to do.", "phase")
	moveRate    = desc("ebb_move_rate_bytes_per_second", "Smoothed rate of the running copy or verification.", "phase")
)

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// diskCollector makes the gauges of disks and moves at scrape time.
type diskCollector struct{ m *Metrics }

// Describe implements prometheus.Collector.
func (c diskCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range diskGauges {
		ch <- g.desc
	}
	for _, d := range []*prometheus.Desc{diskWaited, diskOverdue, diskInfo, fsBytes, fsUsed, moveBytes, moveCopied, moveDone, moveTotal, moveRate} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c diskCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, m := range c.m.usage.states() {
		id := string(m.Disk)
		for _, g := range diskGauges {
			send(g.desc, g.read(m), id)
		}
		ch <- prometheus.MustNewConstMetric(diskWaited, prometheus.CounterValue, m.fullFor.Seconds(), id)
		send(diskOverdue, c.m.overdueFor(m.Disk, m.now).Seconds(), id)
		send(diskInfo, 1, id, m.Name, string(m.Filesystem), m.MountPath)
		if m.FilesystemBytes > 0 {
			send(fsBytes, float64(m.FilesystemBytes), id)
			send(fsUsed, float64(m.FilesystemUsedBytes), id)
		}
		if m.Move != nil {
			send(moveBytes, float64(m.Move.CopyBytes), id)
			if m.Move.CopyBytes > 0 {
				send(moveCopied, float64(m.Move.CopiedBytes)/float64(m.Move.CopyBytes), id)
			}
		}
	}
	c.m.mu.Lock()
	moves := maps.Clone(c.m.moves)
	c.m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(moves)) {
		p := moves[id]
		send(moveDone, float64(p.DoneBytes), string(id), string(p.Phase))
		send(moveTotal, float64(p.TotalBytes), string(id), string(p.Phase))
		send(moveRate, p.RateMiBs*(1<<20), string(id), string(p.Phase))
	}
}
