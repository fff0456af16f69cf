package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/devserver"
)

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func startServer(t *testing.T, address string, args ...string) client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	srv, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		ExistingPath: devserver.Need(t), LogLevel: "error", ExtraArgs: args, Stdout: io.Discard, Stderr: io.Discard,
		ClientOptions: &client.Options{HostPort: address, Logger: sdklog.NewStructuredLogger(quiet())},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Stop() })
	c := srv.Client()
	t.Cleanup(c.Close)
	return c
}

// running is an agent under test.
type running struct {
	*Agent
	t      *testing.T
	cancel context.CancelFunc
	done   chan error
}

func startAgent(t *testing.T, d *fakeDisks, address string, change func(*Options)) *running {
	t.Helper()
	t.Setenv("TEMPORAL_ADDRESS", address)
	t.Setenv("TEMPORAL_NAMESPACE", "default")
	t.Setenv("TEMPORAL_CONFIG_FILE", filepath.Join(t.TempDir(), "none.toml"))
	u := NewUsage()
	o := Options{
		Logger: quiet(), Usage: u, Metrics: NewMetrics(u, "test"), Identity: FixedIdentity(testNode), Prober: goodProber(t),
		OpenDisks: func(string) (Disks, error) { return d, nil },
		Dial:      func(node string) (client.Client, error) { return Dial(node, quiet()) },
		Listen:    "127.0.0.1:0",
	}
	if change != nil {
		change(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Agent: New(o), t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(func() { r.cancel() })
	return r
}

func (r *running) stop() error {
	r.cancel()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(40 * time.Second):
		return errors.New("the agent did not stop")
	}
}

func (r *running) get(path string) (int, string) {
	if r.Address() == "" {
		return 0, ""
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Get("http://" + r.Address() + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (r *running) waitReady() {
	r.t.Helper()
	require.Eventually(r.t, func() bool { code, _ := r.get("/readyz"); return code == http.StatusOK }, 30*time.Second, 20*time.Millisecond)
}

const callQueue = "test-calls"

// callInput asks the workflow call for one activity.
type callInput struct {
	Activity  string
	Input     json.RawMessage
	Attempts  int32
	Heartbeat time.Duration
}

// call is a workflow that runs one activity on the test node.
func call(ctx workflow.Context, in callInput) (json.RawMessage, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: contract.NodeQueue(testNode), StartToCloseTimeout: time.Minute, HeartbeatTimeout: in.Heartbeat,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 100 * time.Millisecond, MaximumAttempts: in.Attempts},
		WaitForCancellation: true,
	})
	var out converter.RawValue
	if err := workflow.ExecuteActivity(ctx, in.Activity, in.Input).Get(ctx, &out); err != nil {
		return nil, err
	}
	return out.Payload().GetData(), nil
}

func startCall[In, Out any](t *testing.T, c client.Client, a contract.Activity[In, Out], in In, attempts int32) client.WorkflowRun {
	t.Helper()
	b, err := json.Marshal(in)
	require.NoError(t, err)
	run, err := c.ExecuteWorkflow(context.Background(), client.StartWorkflowOptions{TaskQueue: callQueue}, call,
		callInput{Activity: string(a), Input: b, Attempts: attempts, Heartbeat: 20 * time.Second})
	require.NoError(t, err)
	return run
}

func do[In, Out any](t *testing.T, c client.Client, a contract.Activity[In, Out], in In) (Out, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out Out
	var raw json.RawMessage
	if err := startCall(t, c, a, in, 1).Get(ctx, &raw); err != nil {
		return out, err
	}
	require.NoError(t, json.Unmarshal(raw, &out))
	return out, nil
}
