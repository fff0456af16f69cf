package replay_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/activities/fleet"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/tests/devserver"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/replay"
	"github.com/ebb-storage/ebb/tests/stubnode"
	"github.com/ebb-storage/ebb/worker/control"
	"github.com/ebb-storage/ebb/workflows"
)

const (
	nodeA = "i-0000000000000000a"
	nodeB = "i-0000000000000000b"
	nodeC = "i-0000000000000000c" // for the story that kills one
	zone  = "us-east-1a"
)

// bench is everything but a kernel.
type bench struct {
	t     *testing.T
	sim   *ec2sim.Server
	nodes *stubnode.Nodes
	c     client.Client
	api   *awsec2.Client

	// restart ends the control worker, if any, and starts another.
	restart, stopWorker func()

	mu     sync.Mutex
	agents map[string]worker.Worker
}

// AttachedGiB implements stubnode.EC2.
func (b *bench) AttachedGiB(node string) map[string]int64 {
	out := map[string]int64{}
	for _, v := range b.sim.Attached(node) {
		if v.Attachment != nil && v.Attachment.State == "attached" {
			out[v.ID] = int64(v.SizeGiB)
		}
	}
	return out
}

// lags of EC2; that of a snapshot is given, 0 being as short as the others.
// stale is how far describes run behind.
const stale = 100 * time.Millisecond

func lags(snapshot time.Duration) ec2sim.Lag {
	lag := ec2sim.Range{Min: 10 * time.Millisecond, Max: 60 * time.Millisecond}
	l := ec2sim.Lag{Create: lag, Delete: lag, Attach: lag, Detach: lag, Modify: lag, Optimize: ec2sim.Fixed(time.Hour), Snapshot: lag}
	if snapshot != 0 {
		l.Snapshot = ec2sim.Fixed(snapshot)
	}
	return l
}

func newBench(t *testing.T) *bench {
	t.Helper()
	path := devserver.Need(t)
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	srv, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		ExistingPath: path, Stdout: io.Discard, Stderr: io.Discard, LogLevel: "error", SearchAttributes: attributes(),
		ClientOptions: &client.Options{Logger: sdklog.NewStructuredLogger(log)},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Stop()) })

	b := &bench{t: t, c: srv.Client(), agents: map[string]worker.Worker{}}
	b.sim, err = ec2sim.New(ec2sim.Options{
		StateDir: t.TempDir(), Seed: 1, GiB: 1 << 20, NoSnapshotData: true,
		Lag:           lags(0),
		StaleDescribe: stale, StaleJitter: true,
		Instances: []ec2sim.Instance{{ID: nodeA, Zone: zone}, {ID: nodeB, Zone: zone}, {ID: nodeC, Zone: zone}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.sim.Close()) })
	b.nodes = stubnode.New(b)

	b.api = awsec2.New(awsec2.Options{
		BaseEndpoint: aws.String(b.sim.URL()), Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	acts := ec2.New(b.api, ec2.Options{PollMin: 20 * time.Millisecond, PollMax: 200 * time.Millisecond, Settle: 2 * time.Second, Log: log, Cluster: "bench"})
	prices, _ := price.BuiltIn().In("us-east-1")
	b.restart = func() {
		b.stopWorker()
		run, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		// The worker closes its client, so it has one of its own.
		own, err := client.NewLazyClient(client.Options{HostPort: srv.FrontendHostPort(), Logger: sdklog.NewStructuredLogger(log)})
		require.NoError(t, err)
		w := control.New(control.Connection{Client: own, Namespace: client.DefaultNamespace}, control.Options{
			Log: log, Register: func(r worker.Registry) {
				workflows.Register(r)
				acts.Register(r)
				fleet.New(fleet.Options{World: fleet.EC2{API: acts}, Prices: prices, Cluster: "bench"}).Register(r)
			},
		})
		go func() { done <- w.Run(run) }()
		b.stopWorker = func() {
			stop()
			require.NoError(t, <-done)
			b.stopWorker = func() {}
		}
	}
	b.stopWorker = func() {}
	b.restart()
	t.Cleanup(func() { b.stopWorker() })
	b.up(nodeA)
	b.up(nodeB)
	b.up(nodeC)
	t.Cleanup(func() {
		b.down(nodeA)
		b.down(nodeB)
		b.down(nodeC)
	})
	return b
}

// up starts a node's agent.
func (b *bench) up(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := worker.New(b.c, contract.NodeQueue(node), worker.Options{
		DisableWorkflowWorker: true, WorkerStopTimeout: time.Second,
		MaxHeartbeatThrottleInterval: time.Second, DefaultHeartbeatThrottleInterval: time.Second,
	})
	b.nodes.Register(w)
	require.NoError(b.t, w.Start())
	b.agents[node] = w
}

// down stops it; its disks are down too.
func (b *bench) down(node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.agents[node]; w != nil {
		w.Stop()
		delete(b.agents, node)
	}
	b.nodes.Off(node)
}

func (b *bench) start(disk contract.DiskID, name string, in any) client.WorkflowRun {
	b.t.Helper()
	run, err := b.c.ExecuteWorkflow(b.t.Context(), client.StartWorkflowOptions{
		ID: contract.WorkflowID(disk), TaskQueue: contract.ControlQueue, WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, name, in)
	require.NoError(b.t, err)
	return run
}

// end waits for a run, checks that it replays, and records it when asked to.
func (b *bench) end(run client.WorkflowRun, story string) contract.Result {
	b.t.Helper()
	r := ended[contract.Result](b, run, story)
	b.t.Logf("%s: %s", story, r.Outcome)
	return r
}

// ended is end for results of any type.
func ended[R any](b *bench, run client.WorkflowRun, story string) R {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 90*time.Second)
	defer cancel()
	var r R
	require.NoError(b.t, run.Get(ctx, &r), story)
	b.told(run.GetID(), run.GetRunID(), story)
	return r
}

// told checks that a run replays as far as it has come, and records it when asked to.
func (b *bench) told(id, run, story string) {
	b.t.Helper()
	h, err := replay.Fetch(b.t.Context(), b.c, id, run)
	require.NoError(b.t, err)
	require.NoError(b.t, replay.Replay(h, workflows.Register), story)
	b.t.Logf("%s: %d events", story, len(h.Events))
	for _, e := range h.Events {
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil && a.GetHeartbeatTimeout().AsDuration() == 0 {
			require.LessOrEqual(b.t, a.GetStartToCloseTimeout().AsDuration(), 20*time.Second,
				"%s: %s would be missed late when its task is lost", story, a.GetActivityType().GetName())
		}
	}
	if dir := os.Getenv("EBB_RECORD"); dir != "" && story != "" {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join("..", "..", dir)
		}
		_, err := replay.Save(h, dir, story)
		require.NoError(b.t, err)
	}
}

func (b *bench) run(disk contract.DiskID, name string, in any, story string) contract.Result {
	b.t.Helper()
	return b.end(b.start(disk, name, in), story)
}

// newDisk is 64 GiB with 20 GiB behind it.
func newDisk(disk contract.DiskID, node string) contract.CreateDiskInput {
	return contract.CreateDiskInput{
		Disk: disk, Name: "team/data", Node: node, SizeBytes: 64 * contract.GiB, BackingGiB: 20,
		Volume: contract.VolumeSpec{Tags: map[string]string{"team": "a"}},
	}
}

// create makes a newDisk on nodeA, 4 GiB of it used.
func (b *bench) create(disk contract.DiskID) {
	b.t.Helper()
	b.createAs(newDisk(disk, nodeA), "create")
}

func (b *bench) createAs(in contract.CreateDiskInput, story string) {
	b.t.Helper()
	disk := in.Disk
	r := b.run(disk, contract.CreateDiskWorkflow, in, story)
	require.Equal(b.t, contract.Done, r.Outcome, "%+v", r.Refusal)
	b.use(disk, 4*contract.GiB)
}

func (b *bench) use(disk contract.DiskID, bytes int64) {
	b.nodes.With(disk, func(d *stubnode.Disk) { d.UsedBytes = bytes })
}

// volumes is the disk's volumes by role.
func (b *bench) volumes(disk contract.DiskID) map[contract.Role][]ec2sim.Volume {
	out := map[contract.Role][]ec2sim.Volume{}
	for _, v := range b.sim.Volumes() {
		if v.Tags[contract.TagDisk] == string(disk) && v.State != "deleting" && v.State != "deleted" {
			role := contract.Role(v.Tags[contract.TagRole])
			out[role] = append(out[role], v)
		}
	}
	return out
}
