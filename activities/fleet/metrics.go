package fleet

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ebb-storage/ebb/internal/contract"
)

// metrics show the last run this worker published; of several workers the one
// with the latest ebb_rightsize_last_run_timestamp_seconds counts.
type metrics struct {
	disks                                      *prometheus.GaugeVec
	used, backing, measured, size, usd, saving prometheus.Gauge
	wanted                                     *prometheus.GaugeVec
	held                                       *prometheus.GaugeVec
	last                                       prometheus.Gauge
	runs                                       *prometheus.CounterVec
	started                                    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauges := func(name, help, label string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{label})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		disks:    gauges("ebb_fleet_disks", "Disks at the last run of Rightsize, by mode; mode unmeasured: those whose node did not answer.", "mode"),
		used:     gauge("ebb_fleet_used_bytes", "What the measured disks used at the last run of Rightsize."),
		backing:  gauge("ebb_fleet_backing_bytes", "What the volumes of all disks had at the last run of Rightsize: what is paid for."),
		measured: gauge("ebb_fleet_measured_bytes", "What the volumes of the measured disks had at the last run of Rightsize; ebb_fleet_used_bytes by this is the utilization."),
		size:     gauge("ebb_fleet_size_bytes", "What the filesystems of the measured disks were made for."),
		usd:      gauge("ebb_fleet_usd_month", "What all volumes cost a month, in US dollars, by the worker's price list."),
		saving:   gauge("ebb_fleet_saving_usd_month", "What the shrinks wanted at the last run of Rightsize would save a month, in US dollars."),
		wanted:   gauges("ebb_fleet_wanted", "Disks by the action wanted for them at the last run of Rightsize.", "action"),
		held:     gauges("ebb_fleet_held", "Disks whose wanted action was held back at the last run of Rightsize, by reason.", "reason"),
		last:     gauge("ebb_rightsize_last_run_timestamp_seconds", "Unix time at which the last run of Rightsize ended; 0: none since this worker started."),
		runs:     counters("ebb_rightsize_runs_total", "Runs of Rightsize by outcome: done, problems (parts of the fleet could not be looked at) or refused.", "outcome"),
		started:  counters("ebb_operations_started_total", "Operations that Rightsize started or proposed, by operation.", "operation"),
	}
	if r != nil {
		r.MustRegister(m.disks, m.used, m.backing, m.measured, m.size, m.usd, m.saving, m.wanted, m.held, m.last, m.runs, m.started)
	}
	return m
}

// Publish implements fleet.PublishRun.
func (a *Activities) Publish(_ context.Context, in contract.RightsizeResult) (struct{}, error) {
	m, t := a.metrics, in.Totals
	switch {
	case in.Refusal != nil:
		m.runs.WithLabelValues("refused").Inc()
		return struct{}{}, nil
	case len(in.Problems) > 0:
		m.runs.WithLabelValues("problems").Inc()
	default:
		m.runs.WithLabelValues("done").Inc()
	}
	for _, b := range in.Started {
		m.started.WithLabelValues(b.Operation).Inc()
	}
	for _, b := range in.Proposed {
		m.started.WithLabelValues("propose " + b.Operation).Inc()
	}
	for _, mode := range []contract.Mode{contract.Observe, contract.Recommend, contract.Enforce} {
		m.disks.WithLabelValues(string(mode)).Set(float64(t.Modes[mode]))
	}
	m.disks.WithLabelValues("unmeasured").Set(float64(t.Unmeasured))
	m.used.Set(float64(t.UsedBytes))
	m.backing.Set(float64(t.BackingBytes))
	m.measured.Set(float64(t.MeasuredBytes))
	m.size.Set(float64(t.SizeBytes))
	m.usd.Set(t.USDMonth)
	m.saving.Set(t.SavingUSDMonth)
	set := func(g *prometheus.GaugeVec, counts map[string]int) {
		g.Reset()
		for k, n := range counts {
			g.WithLabelValues(k).Set(float64(n))
		}
	}
	set(m.wanted, t.Wanted)
	set(m.held, t.Held)
	m.last.SetToCurrentTime()
	return struct{}{}, nil
}
