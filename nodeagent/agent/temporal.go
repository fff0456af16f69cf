package agent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/connect"
	"github.com/ebb-storage/ebb/internal/contract"
)

const (
	// maxActivities is far above what a node's disks need at once: a copy may
	// hold a slot for hours and must never keep out the activity that ends it.
	maxActivities = 256
	// pollers is the least that does not delay a second disk's activity.
	pollers = 2
	// workerRetryMax is the longest pause between two attempts to start the
	// worker, so that a node serves its queue soon after Temporal is back.
	workerRetryMax = 5 * time.Second
	// reconnectMax is the longest pause between two connection attempts.
	reconnectMax = 2 * time.Second
	healthCall   = 5 * time.Second
)

// Dial makes a Temporal client for the agent of a node, as connect.Temporal says.
func Dial(node string, log *slog.Logger) (client.Client, error) {
	c, _, err := connect.Temporal(connect.Options{Identity: "ebb-agent@" + node, RetryMax: reconnectMax, Log: log})
	return c, err
}

// CheckTemporal reaches the Temporal service once.
func CheckTemporal(ctx context.Context, c client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, healthCall)
	defer cancel()
	_, err := c.CheckHealth(ctx, &client.CheckHealthRequest{})
	return err
}

// serve keeps a worker on the node's queue until ctx is done. It waits for
// Temporal as long as it takes, and starts a new worker when one died.
func (a *Agent) serve(ctx context.Context, c client.Client, node string, acts *Activities) {
	log := a.options.Logger
	queue := contract.NodeQueue(node)
	wait := 200 * time.Millisecond
	for ctx.Err() == nil {
		err := a.serveOnce(ctx, c, queue, acts, func() { wait = 200 * time.Millisecond })
		if ctx.Err() != nil {
			return
		}
		a.state.set("worker", fmt.Sprintf("not serving %s: %v", queue, err))
		log.Warn("the Temporal worker does not run, trying again", "queue", queue, "error", err, "wait", wait)
		sleep(ctx, wait)
		wait = min(2*wait, workerRetryMax)
	}
}

func (a *Agent) serveOnce(ctx context.Context, c client.Client, queue string, acts *Activities, started func()) error {
	if err := CheckTemporal(ctx, c); err != nil {
		return fmt.Errorf("temporal is not reachable: %w", err)
	}
	fatal := make(chan error, 1)
	w := worker.New(c, queue, worker.Options{
		DisableWorkflowWorker:              true,
		MaxConcurrentActivityTaskPollers:   pollers,
		MaxConcurrentActivityExecutionSize: maxActivities,
		WorkerStopTimeout:                  stopGrace + 5*time.Second,
		// Heartbeats pass as they come: they carry cancellations back.
		MaxHeartbeatThrottleInterval:     heartbeatEvery,
		DefaultHeartbeatThrottleInterval: heartbeatEvery,
		OnFatalError: func(err error) {
			select {
			case fatal <- err:
			default:
			}
		},
	})
	acts.Register(w)
	if err := w.Start(); err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	started()
	a.metrics.workerStarts.Inc()
	a.state.set("worker", "")
	a.options.Logger.Info("serving", "queue", queue)
	select {
	case <-ctx.Done():
		w.Stop()
		return ctx.Err()
	case err := <-fatal:
		w.Stop()
		return err
	}
}
