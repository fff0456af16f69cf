package fleet_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/activities/fleet"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/tests/devserver"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/stubnode"
	"github.com/ebb-storage/ebb/workflows"
)

const (
	zone    = "us-east-1a"
	sizeGiB = 1000 // of every disk
)

// herd is the fleet and everything it needs.
type herd struct {
	t        *testing.T
	sim      *ec2sim.Server
	temporal client.Client
	nodes    *stubnode.Nodes
	ids      []string // of the nodes
	disks    []contract.DiskID
}

// AttachedGiB implements stubnode.EC2.
func (h *herd) AttachedGiB(node string) map[string]int64 {
	out := map[string]int64{}
	for _, v := range h.sim.Attached(node) {
		out[v.ID] = int64(v.SizeGiB)
	}
	return out
}

// newHerd makes nodes with as many disks each, two thirds of them too large, some
// too full, the rest as they should be.
func newHerd(t *testing.T, nodes, each int, throttle map[string]ec2sim.Bucket) *herd {
	t.Helper()
	server, err := testsuite.StartDevServer(t.Context(), testsuite.DevServerOptions{
		ExistingPath: devserver.Need(t), LogLevel: "error", ClientOptions: &client.Options{Logger: quiet{}},
		// What a server for production has by default or more: one poller a queue.
		ExtraArgs: settings("frontend.namespaceRPS=20000", "frontend.rps=20000", "frontend.namespaceCount=20000", "history.rps=50000",
			"matching.rps=50000", "matching.numTaskqueueReadPartitions=1", "matching.numTaskqueueWritePartitions=1"),
	})
	require.NoError(t, err)
	// The workers end with the process: each would wait a minute for its last poll.
	t.Cleanup(func() { _ = server.Stop() })
	h := &herd{t: t, temporal: server.Client()}
	h.attributes()

	h.sim, err = ec2sim.New(ec2sim.Options{StateDir: t.TempDir(), Zones: []string{zone}, NoSnapshotData: true, Seed: 1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = h.sim.Close() })
	h.seed(nodes, each)
	h.sim.SetThrottle(throttle)

	api := awsec2.New(awsec2.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(h.sim.URL()), Credentials: credentials.NewStaticCredentialsProvider("AKIA", "secret", ""),
	})
	a := ec2.New(api, ec2.Options{PollMin: 200 * time.Millisecond, Settle: 4 * time.Second})
	prices, _ := price.BuiltIn().In("us-east-1")
	control := worker.New(h.temporal, contract.ControlQueue, worker.Options{MaxConcurrentActivityExecutionSize: 500})
	workflows.Register(control)
	a.Register(control)
	fleet.New(fleet.Options{World: fleet.EC2{API: a}, Prices: prices}).Register(control)
	require.NoError(t, control.Start())
	h.serve()
	return h
}

// settings of the server that its command takes one by one.
func settings(values ...string) (args []string) {
	for _, v := range values {
		args = append(args, "--dynamic-config-value", v)
	}
	return args
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

func (h *herd) attributes() {
	names := map[string]enumspb.IndexedValueType{}
	for _, n := range []string{contract.AttrDisk, contract.AttrClaim, contract.AttrNode, contract.AttrPhase, contract.AttrOperation} {
		names[n] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	_, err := h.temporal.OperatorService().AddSearchAttributes(h.t.Context(), &operatorservice.AddSearchAttributesRequest{
		Namespace: "default", SearchAttributes: names,
	})
	require.NoError(h.t, err)
}

func (h *herd) seed(nodes, each int) {
	r := rand.New(rand.NewPCG(1, 2))
	h.nodes = stubnode.New(h)
	var seed ec2sim.Seed
	for n := range nodes {
		id := fmt.Sprintf("i-%017x", n+1)
		h.ids = append(h.ids, id)
		seed.Instances = append(seed.Instances, ec2sim.Instance{ID: id, Type: "m5.large", Zone: zone, State: "running"})
	}
	var put []stubnode.Disk
	for n := range nodes * each {
		disk := contract.DiskID(fmt.Sprintf("d-%017x", n+1))
		node := h.ids[n%nodes]
		gib := int64(100 + r.IntN(800))
		var used int64
		switch {
		case n%100 == 0: // must grow
			used = gib * 97 / 100
		case n%3 == 0: // as it should be
			used = gib * 79 / 100
		default: // too large
			used = gib * int64(10+r.IntN(30)) / 100
		}
		vol := fmt.Sprintf("vol-%017x", n+1)
		seed.Volumes = append(seed.Volumes, ec2sim.Volume{
			ID: vol, Shape: ec2sim.Shape{SizeGiB: int32(gib)}, Attachment: &ec2sim.Attachment{InstanceID: node},
			Tags: map[string]string{
				contract.TagDisk: string(disk), contract.TagGeneration: "1", contract.TagIndex: "0", contract.TagRole: string(contract.RoleActive),
				contract.TagName: fmt.Sprintf("team-%d/data-%d", n%20, n), "team": strconv.Itoa(n % 20),
			},
		})
		put = append(put, stubnode.Disk{
			ID: disk, SizeBytes: sizeGiB * contract.GiB, UsedBytes: used * contract.GiB, Node: node, Filesystem: contract.XFS,
			Members: []contract.Member{{Volume: vol, Bytes: gib * contract.GiB}},
		})
		h.disks = append(h.disks, disk)
	}
	_, err := h.sim.Seed(seed)
	require.NoError(h.t, err)
	for _, d := range put {
		h.nodes.Put(d)
	}
}

// serve has a worker on every node's queue, as every node has an agent, and waits
// until all of them are heard.
func (h *herd) serve() {
	for _, id := range h.ids {
		w := worker.New(h.temporal, contract.NodeQueue(id), worker.Options{
			MaxConcurrentActivityTaskPollers: 2, DisableWorkflowWorker: true, MaxConcurrentActivityExecutionSize: 20,
		})
		h.nodes.Register(w)
		require.NoError(h.t, w.Start())
	}
	for _, id := range h.ids {
		require.Eventually(h.t, func() bool {
			q, err := h.temporal.DescribeTaskQueue(h.t.Context(), contract.NodeQueue(id), enumspb.TASK_QUEUE_TYPE_ACTIVITY)
			return err == nil && len(q.GetPollers()) > 0
		}, time.Minute, 50*time.Millisecond, "nobody polls for node %s", id)
	}
}

func (h *herd) rightsize(in contract.RightsizeInput) (contract.RightsizeResult, client.WorkflowRun, time.Duration) {
	h.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Minute)
	defer cancel()
	run, err := h.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "rightsize-test", TaskQueue: contract.ControlQueue}, contract.RightsizeWorkflow, in)
	require.NoError(h.t, err)
	var r contract.RightsizeResult
	require.NoError(h.t, run.Get(ctx, &r))
	require.Nil(h.t, r.Refusal)
	return r, run, time.Since(began)
}

// history is a run's events and bytes.
func (h *herd) history(id, run string) (events int64, bytes int64) {
	d, err := h.temporal.DescribeWorkflowExecution(h.t.Context(), id, run)
	require.NoError(h.t, err)
	i := d.GetWorkflowExecutionInfo()
	return i.GetHistoryLength(), i.GetHistorySizeBytes()
}

// rssMiB is what this process - simulator, nodes, worker, all - has in memory.
func rssMiB(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			require.NoError(t, err)
			return n >> 10
		}
	}
	return 0
}

// throttled is EC2's buckets for describes and changes, as AWS documents them for
// an account: 100 and 20 a second for most, fewer for what changes volumes.
var throttled = map[string]ec2sim.Bucket{
	"Describe*": {Burst: 100, Rate: 20},
	"*":         {Burst: 50, Rate: 5},
}

// TestTenThousandDisks: a run over 10,000 disks on 250 nodes ends in 5 minutes,
// with bounded histories and memory.
func TestTenThousandDisks(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	debug.SetGCPercent(50)
	h := newHerd(t, 250, 40, throttled)
	base := rssMiB(t)
	runtime.GC()

	r, run, took := h.rightsize(contract.RightsizeInput{})
	require.Empty(t, r.Problems)
	require.Equal(t, 10_000, r.Totals.Disks)
	require.Equal(t, 10_000, r.Totals.Measured)
	require.Empty(t, r.Started)
	require.GreaterOrEqual(t, r.Totals.Wanted["grow"], 100)
	require.Greater(t, r.Totals.Wanted["shrink"], 6000)
	events, bytes := h.history(run.GetID(), run.GetRunID())
	shardEvents, shardBytes := h.history(run.GetID()+"/shard-001", "")
	t.Logf("observed 10,000 disks in %s: %d events and %d KiB of history, %d and %d KiB in a shard; %d MiB in memory (%d before), calls to EC2: %v",
		took.Round(time.Millisecond), events, bytes>>10, shardEvents, shardBytes>>10, rssMiB(t), base, h.sim.Counts())
	require.Less(t, took, 5*time.Minute)
	require.Less(t, events, int64(2000))
	require.Less(t, bytes, int64(10<<20))
	require.Less(t, shardEvents, int64(1000))
	require.Less(t, shardBytes, int64(8<<20))
}

// TestEnforcedFleet: a run over 10,000 disks that changes them starts what its
// budgets allow and ends, and nothing is done twice.
func TestEnforcedFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	h := newHerd(t, 250, 40, throttled)
	r, run, took := h.rightsize(contract.RightsizeInput{
		Policy: `
apiVersion: ebb.io/v1alpha1
kind: Policy
budgets: {moves: 40, movesPerNode: 2}
defaults:
  mode: enforce
  move: {snapshot: false, verify: none}
`, MaxStarts: 150, Feed: 3 * time.Minute,
	})
	require.Empty(t, r.Problems)
	require.Len(t, r.Started, 150)
	require.Equal(t, "grow", r.Started[0].Operation, "growth goes first")
	done, seen := 0, map[contract.DiskID]bool{}
	for _, b := range r.Started {
		require.False(t, seen[b.Disk], "%s twice", b.Disk)
		seen[b.Disk] = true
		if b.Outcome == string(contract.Done) {
			done++
		}
		require.NotContains(t, b.Outcome, "failed")
	}
	events, bytes := h.history(run.GetID(), run.GetRunID())
	t.Logf("150 of 10,000 disks changed in %s, %d done before the run ended: %d events, %d KiB of history; %d MiB in memory; calls to EC2: %v",
		took.Round(time.Millisecond), done, events, bytes>>10, rssMiB(t), h.sim.Counts())
	require.Less(t, took, 5*time.Minute)
	require.Greater(t, done, 10)
	require.Less(t, events, int64(5000))
}
