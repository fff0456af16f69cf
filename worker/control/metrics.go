package control

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"

	"github.com/ebb-storage/ebb/internal/contract"
)

type metrics struct {
	registry   *prometheus.Registry
	ready      prometheus.Gauge
	activities *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
}

func newMetrics(version string, registry *prometheus.Registry) *metrics {
	m := &metrics{
		registry: registry,
		ready:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "ebb_worker_ready", Help: "1 while the control queue is served."}),
		activities: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ebb_worker_activities_total", Help: "Control activities by name and outcome: done, refused, failed or cancelled.",
		}, []string{"activity", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ebb_worker_activity_seconds", Help: "How long control activities took.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
		}, []string{"activity"}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "ebb_build_info", Help: "Always 1.", ConstLabels: prometheus.Labels{"version": version, "component": "worker"},
	})
	info.Set(1)
	m.registry.MustRegister(m.ready, m.activities, m.seconds, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// counter counts what activities end with.
type counter struct {
	interceptor.WorkerInterceptorBase
	metrics *metrics
}

// InterceptActivity implements interceptor.WorkerInterceptor.
func (c *counter) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	in := &counted{metrics: c.metrics}
	in.Next = next
	return in
}

type counted struct {
	interceptor.ActivityInboundInterceptorBase
	metrics *metrics
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor.
func (c *counted) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	name, began := activity.GetInfo(ctx).ActivityType.Name, time.Now()
	out, err := c.Next.ExecuteActivity(ctx, in)
	outcome := "done"
	if err != nil {
		outcome = "failed"
		if _, refused := contract.AsRefusal(err); refused {
			outcome = "refused"
		} else if errors.Is(err, context.Canceled) {
			outcome = "cancelled"
		}
	}
	c.metrics.activities.WithLabelValues(name, outcome).Inc()
	c.metrics.seconds.WithLabelValues(name).Observe(time.Since(began).Seconds())
	return out, err
}
