package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/devserver"
	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

const (
	nodeID    = "i-0123456789abcdef0"
	diskID    = contract.DiskID("d-0123456789abcdef0")
	firstVol  = "vol-0123456789abcdef0"
	secondVol = "vol-0123456789abcdef1"
	mountPath = "/run/ebb-test"
	callQueue = "test-calls"
	probes    = "127.0.0.1:9465"
)

// bench is a node that runs the real agent, and the Temporal it talks to.
type bench struct {
	t      *testing.T
	node   node.Node
	binary string
	server string // Temporal's address as the node sees it
	client client.Client
	agent  node.Process
	log    *bytes.Buffer
}

// callInput asks the workflow call for one activity.
type callInput struct {
	Activity string
	Input    json.RawMessage
}

func call(ctx workflow.Context, in callInput) (json.RawMessage, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: contract.NodeQueue(nodeID), StartToCloseTimeout: 2 * time.Minute, HeartbeatTimeout: 30 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 3},
	})
	var out converter.RawValue
	if err := workflow.ExecuteActivity(ctx, in.Activity, in.Input).Get(ctx, &out); err != nil {
		return nil, err
	}
	return out.Payload().GetData(), nil
}

func do[In, Out any](b *bench, a contract.Activity[In, Out], in In) Out {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Minute)
	defer cancel()
	raw, err := json.Marshal(in)
	require.NoError(b.t, err)
	run, err := b.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: callQueue}, call, callInput{string(a), raw})
	require.NoError(b.t, err)
	var back json.RawMessage
	require.NoError(b.t, run.Get(ctx, &back), "%s\n%s", a, b.log)
	var out Out
	require.NoError(b.t, json.Unmarshal(back, &out))
	return out
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a node")
	}
	temporal := devserver.Need(t)
	n := nodetest.Boot(t, node.Options{ID: nodeID})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	logger := sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))
	srv, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		ExistingPath: temporal, LogLevel: "error", Stdout: io.Discard, Stderr: io.Discard, ClientOptions: &client.Options{Logger: logger},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = srv.Stop() })
	c := srv.Client()
	t.Cleanup(c.Close)
	w := worker.New(c, callQueue, worker.Options{})
	w.RegisterWorkflow(call)
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)

	_, port, err := net.SplitHostPort(srv.FrontendHostPort())
	require.NoError(t, err)
	b := &bench{t: t, node: n, client: c, server: net.JoinHostPort(n.HostAddress(), port), binary: filepath.Join(n.Dir(), "ebb-agent"), log: &bytes.Buffer{}}
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", b.binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return b
}

func (b *bench) env() []string {
	return []string{"TEMPORAL_ADDRESS=" + b.server, "EBB_NODE=" + nodeID, "TEMPORAL_CONFIG_FILE=/none"}
}

func (b *bench) start() {
	b.t.Helper()
	p, err := b.node.Start(context.Background(), node.Command{Path: b.binary, Args: []string{"--listen", probes}, Env: b.env(), Stdout: b.log, Stderr: b.log})
	require.NoError(b.t, err)
	b.agent = p
	require.Eventually(b.t, func() bool { return strings.HasPrefix(b.get("/readyz"), "ready") }, time.Minute, 200*time.Millisecond, "%s", b.log)
}

// get asks the agent over HTTP from inside its node.
func (b *bench) get(path string) string {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	host, port, _ := strings.Cut(probes, ":")
	script := fmt.Sprintf(`exec 3<>/dev/tcp/%s/%s; printf 'GET %s HTTP/1.0\r\n\r\n' >&3; cat <&3`, host, port, path)
	if _, err := b.node.Exec(ctx, node.Command{Path: "bash", Args: []string{"-c", script}, Stdout: &out}); err != nil {
		return err.Error()
	}
	_, body, _ := strings.Cut(out.String(), "\r\n\r\n")
	return body
}

// TestAgentOnANode runs the agent's binary on a real kernel: preflight, the
// life of a disk, pressure, a stop that leaves the disk up, a power cut.
func TestAgentOnANode(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	nodetest.AttachVolume(t, b.node, firstVol, 1<<30)

	var out, talk bytes.Buffer
	code, err := b.node.Exec(ctx, node.Command{Path: b.binary, Args: []string{"preflight", "-o", "json"}, Env: b.env(), Stdout: &out, Stderr: &talk})
	require.NoError(t, err)
	require.Zero(t, code, "%s%s", &out, &talk)
	var pf contract.PreflightResult
	require.NoError(t, json.Unmarshal(out.Bytes(), &pf))
	require.True(t, pf.OK)
	require.Equal(t, nodeID, pf.Node)

	b.start()
	m := do(b, contract.FormatDisk, contract.FormatDiskInput{
		Disk: diskID, Name: "test/data", SizeBytes: 8 << 30, Volumes: []string{firstVol}, Filesystem: contract.XFS, MountPath: mountPath,
	})
	require.Equal(t, mountPath, m.MountPath)
	rss, cpu := b.footprint(10 * time.Second)
	t.Logf("idle agent with one disk: %.1f MiB RSS, %.2f%% of a core", rss, cpu)
	require.LessOrEqual(t, rss, 50.0)
	require.LessOrEqual(t, cpu, 5.0, "on a node without a clock interrupt of its own; see the benchmark")

	// A writer runs into the end of the pool: growth is asked for, and the
	// write waits for the second volume instead of failing.
	random := make([]byte, 64<<20)
	_, _ = rand.Read(random)
	source := filepath.Join(b.node.Dir(), "random")
	require.NoError(t, os.WriteFile(source, random, 0o600))
	fill := fmt.Sprintf("set -e; for i in $(seq 17); do cat %s; done > %s/data; sync %[2]s/data", source, mountPath)
	writer, err := b.node.Start(ctx, node.Command{Path: "sh", Args: []string{"-c", fill}})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := b.client.DescribeWorkflowExecution(ctx, contract.WorkflowID(diskID), "")
		return err == nil
	}, 2*time.Minute, 100*time.Millisecond, "no Grow was started\n%s", b.log)
	nodetest.AttachVolume(t, b.node, secondVol, 2<<30)
	m = do(b, contract.AppendVolume, contract.AppendVolumeInput{Disk: diskID, Volume: secondVol})
	require.EqualValues(t, 3<<30, m.BackingBytes)
	code, err = writer.Wait()
	require.NoError(t, err)
	require.Zero(t, code, "the write failed")
	sum := nodetest.Shell(t, b.node, "sync; sha256sum "+mountPath+"/data")

	text := b.get("/metrics")
	require.Contains(t, text, `ebb_pressure_signals_total{disk="`+string(diskID)+`"`)
	require.Contains(t, text, `ebb_disk_backing_bytes{disk="`+string(diskID)+`"}`)

	// Stopping leaves the disk mounted and readable.
	require.NoError(t, b.agent.Signal(syscall.SIGTERM))
	code, err = b.agent.Wait()
	require.NoError(t, err)
	require.Zero(t, code, "%s", b.log)
	require.Equal(t, sum, nodetest.Shell(t, b.node, "echo 3 > /proc/sys/vm/drop_caches; sha256sum "+mountPath+"/data"))
	b.start()
	require.Equal(t, diskID, do(b, contract.MeasureDisk, contract.MeasureDiskInput{Disk: diskID}).Disk)

	// After a power cut the agent brings the disk up by itself.
	require.NoError(t, b.node.PowerCut())
	require.NoError(t, b.node.Boot(ctx))
	b.start()
	m = do(b, contract.MeasureDisk, contract.MeasureDiskInput{Disk: diskID})
	require.Equal(t, mountPath, m.MountPath)
	require.Equal(t, sum, nodetest.Shell(t, b.node, "sha256sum "+mountPath+"/data"))

	// A survey asks for all there is, and tells what the policy wants.
	survey := do(b, contract.SurveyNode, contract.SurveyInput{Disks: []contract.SurveyDisk{
		{Disk: diskID, LookBack: 24 * time.Hour, Guide: &contract.Guide{HeadroomBytes: 64 << 20, CeilingGiB: 3}},
		{Disk: "d-0123456789abcdef9", LookBack: 24 * time.Hour},
	}})
	require.Empty(t, survey.Disks[0].Problem)
	require.Equal(t, diskID, survey.Disks[0].Measurement.Disk)
	require.Positive(t, survey.Disks[0].Usage.PeakUsedBytes)
	require.Contains(t, survey.Disks[1].Problem, string(contract.DiskUnknown))
	text = b.get("/metrics")
	require.Contains(t, text, `ebb_disk_at_ceiling{disk="`+string(diskID)+`"} 1`)
	require.Contains(t, text, `ebb_disk_guided{disk="`+string(diskID)+`"} 1`)
	headers := do(b, contract.ReadHeaders, contract.ReadHeadersInput{Volumes: []string{secondVol, "vol-0123456789abcdef9"}})
	require.Equal(t, []contract.VolumeHeader{
		{Volume: secondVol, Present: true, InUse: true, Disk: diskID, Generation: 1, Role: contract.RoleActive},
		{Volume: "vol-0123456789abcdef9"},
	}, headers.Headers)

	// What it remembers of itself is on its volumes.
	past := do(b, contract.ReadHistory, contract.ReadHistoryInput{Disk: diskID, Since: m.At.Add(-time.Hour)})
	require.NotEmpty(t, past.Hours)
	last := past.Hours[len(past.Hours)-1]
	require.GreaterOrEqual(t, last.UsedMaxBytes, m.PoolUsedBytes)
	require.EqualValues(t, 3<<30, last.BackingBytes)
}

// footprint is the agent's resident memory in MiB and its share of a core, in
// percent, while nothing is asked of it.
func (b *bench) footprint(idle time.Duration) (rss, cpu float64) {
	b.t.Helper()
	ticks := func() float64 {
		f := strings.Fields(nodetest.Shell(b.t, b.node, fmt.Sprintf("cat /proc/%d/stat", b.agent.Pid())))
		u, err := strconv.ParseFloat(f[13], 64)
		require.NoError(b.t, err)
		s, err := strconv.ParseFloat(f[14], 64)
		require.NoError(b.t, err)
		return u + s
	}
	before := ticks()
	time.Sleep(idle) // what is measured is idleness
	used := ticks() - before
	kib, err := strconv.ParseFloat(nodetest.Shell(b.t, b.node, fmt.Sprintf("awk '/^VmRSS/ {print $2}' /proc/%d/status", b.agent.Pid())), 64)
	require.NoError(b.t, err)
	return kib / 1024, used / 100 / idle.Seconds() * 100
}
