package heartbeat_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/heartbeat"
)

// An activity that records once and then computes for longer than its heartbeat
// timeout lives, and what it recorded stays readable. Temporal's test
// environment does not deliver such heartbeats, so a real server judges.
func TestBeatsForTheActivity(t *testing.T) {
	path := os.Getenv("EBB_TEMPORAL")
	if home, err := os.UserHomeDir(); path == "" && err == nil {
		path = filepath.Join(home, ".cache", "ebb", "bin", "temporal")
	}
	if _, err := os.Stat(path); err != nil || testing.Short() {
		t.Skip("no Temporal dev server (set EBB_TEMPORAL)")
	}
	srv, err := testsuite.StartDevServer(t.Context(), testsuite.DevServerOptions{
		ExistingPath: path, Stdout: io.Discard, Stderr: io.Discard, LogLevel: "error",
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Stop()) })

	every := 200 * time.Millisecond
	w := worker.New(srv.Client(), "q", worker.Options{
		Interceptors:                     []interceptor.WorkerInterceptor{&heartbeat.Interceptor{Every: every}},
		MaxHeartbeatThrottleInterval:     every,
		DefaultHeartbeatThrottleInterval: every,
	})
	read := make(chan struct{})
	w.RegisterActivityWithOptions(func(ctx context.Context) error {
		activity.RecordHeartbeat(ctx, "half")
		select {
		case <-read:
		case <-ctx.Done():
		}
		return ctx.Err()
	}, activity.RegisterOptions{Name: "compute"})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context) error {
		return workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			StartToCloseTimeout: time.Minute, HeartbeatTimeout: time.Second,
			RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
		}), "compute").Get(ctx, nil)
	}, workflow.RegisterOptions{Name: "run"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)

	run, err := srv.Client().ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{TaskQueue: "q"}, "run")
	require.NoError(t, err)
	began := time.Now()
	require.Eventually(t, func() bool { // long after the record itself
		d, err := srv.Client().DescribeWorkflowExecution(t.Context(), run.GetID(), "")
		if err != nil || time.Since(began) < 3*time.Second || len(d.PendingActivities) == 0 {
			return false
		}
		var details string
		err = converter.GetDefaultDataConverter().FromPayloads(d.PendingActivities[0].HeartbeatDetails, &details)
		return err == nil && details == "half"
	}, 20*time.Second, 100*time.Millisecond)
	close(read)
	require.NoError(t, run.Get(t.Context(), nil))
}
