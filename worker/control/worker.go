package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/connect"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/heartbeat"
	"github.com/ebb-storage/ebb/internal/probe"
)

const (
	heartbeatEvery = 5 * time.Second
	firstRetry     = 200 * time.Millisecond
	longestRetry   = 5 * time.Second
	callTimeout    = 5 * time.Second
	stopGrace      = 15 * time.Second
	// maxActivities is far above what is in flight, also when a whole fleet waits for
	// its backups: waiting for EC2 costs a goroutine.
	maxActivities = 5000
)

// Options of a Worker. Register is required.
type Options struct {
	// Register binds workflows and activities; it is called for every
	// connection anew.
	Register func(worker.Registry)
	Listen   string // address of the HTTP server; empty: none
	Version  string
	Log      *slog.Logger
	// Metrics are served beside the worker's own, which are registered there; nil:
	// the worker's own alone.
	Metrics *prometheus.Registry
}

// Worker serves ebb-control.
type Worker struct {
	client    client.Client
	namespace string
	o         Options
	state     *state
	metrics   *metrics
}

// New makes a worker; Run starts it.
func New(c Connection, o Options) *Worker {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
	m := newMetrics(o.Version, o.Metrics)
	return &Worker{client: c.Client, namespace: c.Namespace, o: o, metrics: m, state: newState(m.ready)}
}

// Connection is a Temporal client and the namespace it works in.
type Connection struct {
	Client    client.Client
	Namespace string
}

// Dial makes a Temporal client, as connect.Temporal says.
func Dial(log *slog.Logger) (Connection, error) {
	c, namespace, err := connect.Temporal(connect.Options{RetryMax: longestRetry, Log: log})
	return Connection{Client: c, Namespace: namespace}, err
}

// Run serves until ctx is done. It waits for Temporal as long as it takes, and
// starts a new worker when one died. It returns an error only when its address
// cannot be listened on.
func (w *Worker) Run(ctx context.Context) error {
	if w.o.Listen != "" {
		_, stop, err := probe.Listen(ctx, w.o.Listen, probe.Handler(w.metrics.registry, w.state.describe), w.o.Log)
		if err != nil {
			return err
		}
		defer stop()
	}
	defer w.client.Close()
	wait := firstRetry
	for ctx.Err() == nil {
		err := w.serve(ctx, func() { wait = firstRetry })
		if ctx.Err() != nil {
			break
		}
		w.state.set(err.Error())
		w.o.Log.Warn("the control queue is not served, trying again", "error", err, "wait", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, longestRetry)
	}
	w.state.set("stopping")
	return nil
}

func (w *Worker) serve(ctx context.Context, started func()) error {
	if err := w.prepare(ctx); err != nil {
		return err
	}
	fatal := make(chan error, 1)
	tw := worker.New(w.client, contract.ControlQueue, worker.Options{
		MaxConcurrentActivityExecutionSize: maxActivities,
		WorkerStopTimeout:                  stopGrace,
		MaxHeartbeatThrottleInterval:       heartbeatEvery,
		DefaultHeartbeatThrottleInterval:   heartbeatEvery,
		Interceptors: []interceptor.WorkerInterceptor{
			&heartbeat.Interceptor{Every: heartbeatEvery},
			&counter{metrics: w.metrics},
		},
		OnFatalError: func(err error) {
			select {
			case fatal <- err:
			default:
			}
		},
	})
	w.o.Register(tw)
	if err := tw.Start(); err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	defer tw.Stop()
	started()
	w.state.set("")
	w.o.Log.Info("serving", "queue", contract.ControlQueue)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-fatal:
		return errors.Join(errors.New("the worker died"), err)
	}
}
