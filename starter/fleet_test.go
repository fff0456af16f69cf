package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	activity_fleet "github.com/ebb-storage/ebb/activities/fleet"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/tests/stubnode"
	"github.com/ebb-storage/ebb/workflows"
)

const nodeB = "i-0000000000000000b"

// herd is a small fleet: disks as EC2 knows them and, in stub nodes, as their
// nodes do. The fleet's workflows and activities are the real ones; Grow and
// Shrink change the volumes and nothing else.
type herd struct{ *stubnode.Herd }

func newHerd() *herd { return &herd{stubnode.NewHerd()} }

// smallHerd is the fleet of the stories.
func smallHerd() *herd {
	h := newHerd()
	h.Add(1, "prod/ledger", nodeA, 100, 97)
	h.Add(2, "prod/search", nodeA, 500, 120)
	h.Add(3, "dev/home", nodeB, 400, 60)
	h.Add(4, "dev/scratch", nodeB, 300, 30)
	h.Add(5, "dev/cache", nodeB, 100, 76)
	h.Found = []contract.Leftover{
		{
			Disk: stubnode.HerdDisk(2), Volume: "vol-00000000000000902", GiB: 800, Role: contract.RoleRetired, Zone: "us-east-1a",
			Since: time.Now().Add(-72 * time.Hour), Reason: "retired, and past its grace period",
		},
		{
			Disk: stubnode.HerdDisk(3), Volume: "vol-00000000000000903", GiB: 40, Role: contract.RoleActive, Generation: 1, Zone: "us-east-1a",
			Since: time.Now().Add(-9 * time.Hour), Reason: "two backings say that they are generation 1", Suspect: true,
		},
	}
	return h
}

// serve runs the workers of a herd in a namespace of a server.
func (h *herd) serve(t *testing.T, address, namespace string) {
	c, err := client.Dial(client.Options{HostPort: address, Namespace: namespace, Logger: quiet{}})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	w := worker.New(c, contract.ControlQueue, worker.Options{})
	for name, fn := range map[string]any{
		contract.RightsizeWorkflow: workflows.Rightsize, contract.RightsizeShardWorkflow: workflows.RightsizeShard,
		contract.ProposeWorkflow: workflows.Propose, contract.BudgetsWorkflow: workflows.Budgets, contract.ReapWorkflow: workflows.Reap, contract.CleanWorkflow: workflows.Clean,
		contract.GrowWorkflow: h.grow, contract.ShrinkWorkflow: h.shrink,
	} {
		w.RegisterWorkflowWithOptions(fn, workflow.RegisterOptions{Name: name})
	}
	workflows.RegisterInspect(w)
	prices, _ := price.BuiltIn().In(price.DefaultRegion)
	activity_fleet.New(activity_fleet.Options{World: h, Prices: prices}).Register(w)
	contract.ListDisks.Register(w, h.list)
	contract.DescribeDisk.Register(w, func(_ context.Context, in contract.DescribeDiskInput) (contract.DiskFacts, error) {
		return h.Disk(in.Disk), nil
	})
	w.RegisterActivityWithOptions(h.resize, activity.RegisterOptions{Name: "resize"})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	census, err := h.Census(t.Context())
	require.NoError(t, err)
	for _, n := range census.Nodes {
		node := worker.New(c, contract.NodeQueue(n.Node), worker.Options{})
		h.Nodes.Register(node)
		require.NoError(t, node.Start())
		t.Cleanup(node.Stop)
	}
}

// resize is what an operation does here: the disk's only volume has another size.
func (h *herd) resize(_ context.Context, disk contract.DiskID, toGiB int64) (int64, error) {
	was, ok := h.Resize(disk, toGiB)
	if !ok {
		return 0, temporal.NewNonRetryableApplicationError("no such disk", "Test", nil)
	}
	return was, nil
}

// operation changes the volume's size. A shrink at 1 MiB/s lasts until it is
// cancelled.
func (h *herd) operation(ctx workflow.Context, name string, disk contract.DiskID, toGiB int64, slow bool) (contract.Result, error) {
	p := contract.Progress{Disk: disk, Operation: name, Phase: contract.PhaseCheck, Step: 1, Steps: 1, ToGiB: toGiB}
	if err := workflow.SetQueryHandler(ctx, contract.QueryProgress, func() (contract.Progress, error) { return p, nil }); err != nil {
		return contract.Result{}, err
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
	r := contract.Result{Disk: disk, Operation: name, Outcome: contract.Done, AfterGiB: toGiB}
	if slow {
		workflow.GetSignalChannel(ctx, contract.SignalCancel).Receive(ctx, nil)
		r.Outcome = contract.Cancelled
		return r, nil
	}
	return r, workflow.ExecuteActivity(ctx, "resize", disk, toGiB).Get(ctx, &r.BeforeGiB)
}

func (h *herd) grow(ctx workflow.Context, in contract.GrowInput) (contract.Result, error) {
	if err := in.Validate(); err != nil {
		return contract.Result{}, temporal.NewNonRetryableApplicationError(err.Error(), "Test", nil)
	}
	return h.operation(ctx, contract.GrowWorkflow, in.Disk, in.ToGiB, false)
}

func (h *herd) shrink(ctx workflow.Context, in contract.ShrinkInput) (contract.Result, error) {
	if err := in.Validate(); err != nil {
		return contract.Result{}, temporal.NewNonRetryableApplicationError(err.Error(), "Test", nil)
	}
	return h.operation(ctx, contract.ShrinkWorkflow, in.Disk, in.ToGiB, in.ThrottleMiBs == 1)
}

func (h *herd) list(ctx context.Context, in contract.ListDisksInput) (contract.ListDisksResult, error) {
	var nodes []string
	if in.Node != "" {
		nodes = []string{in.Node}
	}
	disks, err := h.DisksOn(ctx, nodes)
	return contract.ListDisksResult{Disks: disks}, err
}

// TestPlanOfManyDisks reads what a run decided about 600 disks back from its
// histories; with EBB_TEST_FULL about 10,000.
func TestPlanOfManyDisks(t *testing.T) {
	nodes, each := 2, 300
	if os.Getenv("EBB_TEST_FULL") != "" {
		nodes, each = 25, 400
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	server := startTemporal(ctx, t)
	address := server.FrontendHostPort()
	h := newHerd()
	for n := range nodes * each {
		h.Add(n, fmt.Sprintf("ns%d/data-%d", n%7, n), fmt.Sprintf("i-%017x", n%nodes), 500, int64(50+n%400))
	}
	ebb := func(args ...string) []byte {
		var out, talk bytes.Buffer
		began := time.Now()
		require.Zero(t, run(ctx, &out, &talk, append([]string{"--address", address}, args...)...), "%s", &talk)
		t.Logf("ebb %s: %s, %d KiB; %s", strings.Join(args, " "), time.Since(began).Round(time.Millisecond), out.Len()>>10, talk.String())
		return out.Bytes()
	}
	ebb("setup")
	h.serve(t, address, "default")
	ebb("schedule", "apply", "--every", "12h", "--no-fleet-check")
	ebb("schedule", "run", "--watch", "-o", "json")
	var v struct {
		All       int
		Missing   int
		Decisions []struct {
			Name    string
			Reasons []string
		}
	}
	require.NoError(t, json.Unmarshal(ebb("plan", "--limit", "0", "-o", "json"), &v))
	require.Equal(t, nodes*each, v.All)
	require.Zero(t, v.Missing)
	require.Len(t, v.Decisions, v.All)
	names := map[string]bool{}
	for _, d := range v.Decisions {
		require.NotEmpty(t, d.Reasons)
		names[d.Name] = true
	}
	require.Len(t, names, v.All)
	require.Contains(t, string(ebb("plan", "ns3/data-10")), "mode       observe")
	// By name: 10,000 disks are more than one answer holds.
	var m struct{ Selected int }
	require.NoError(t, json.Unmarshal(ebb("mode", "recommend", "namespace=ns3", "-o", "json"), &m))
	require.InDelta(t, nodes*each/7, m.Selected, 1)
	ebb("mode", "enforce", "disk=ns3/data-10", "-o", "json")
	ebb("schedule", "run", "--watch", "-o", "json")
	ebb("proposals", "-o", "json")
	ebb("reject", "ns3/data-17", "--dry-run")
}

// TestReportOfManyNodes asks a fleet for the pasts of 30 days; with EBB_TEST_FULL
// 1,000 disks on 50 nodes, one of which does not answer.
func TestReportOfManyNodes(t *testing.T) {
	nodes, each := 3, 10
	if os.Getenv("EBB_TEST_FULL") != "" {
		nodes, each = 50, 20
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	server := startTemporal(ctx, t)
	h := newHerd()
	const hours = 40 * 24
	past, at := make([]contract.HistoryHour, hours), time.Now().UTC().Truncate(time.Hour)
	for i := range past {
		past[i] = contract.HistoryHour{
			Hour: at.Add(time.Duration(i-hours+1) * time.Hour), UsedMinBytes: 100<<30 + 12345, UsedMaxBytes: 101<<30 + 12345, FSUsedMaxBytes: 101<<30 + 678,
			WrittenBytes: 17<<30 + 42, PeakIOPS: 2345, PeakMiBs: 119, BackingBytes: 500 << 30,
		}
	}
	for n := range nodes * each {
		d := h.Add(n, fmt.Sprintf("ns%d/data-%d", n%7, n), fmt.Sprintf("i-%017x", n%nodes), 500, int64(50+n%400))
		h.Nodes.With(d, func(s *stubnode.Disk) { s.Hours = past })
	}
	address := server.FrontendHostPort()
	var out, talk bytes.Buffer
	require.Zero(t, run(ctx, &out, &talk, "--address", address, "setup"), "%s", &talk)
	h.serve(t, address, "default")
	for n := range each { // of a node without an agent
		h.Add(nodes*each+n, fmt.Sprintf("dead/data-%d", n), "i-0000000000000dead", 500, 100)
	}
	out.Reset()
	began := time.Now()
	require.Zero(t, run(ctx, &out, &talk, "--address", address, "report", "--since", "30d", "-o", "json"), "%s", &talk)
	took := time.Since(began)
	var r struct {
		Totals struct {
			Disks, Unknown int
			DiskHours      float64
		}
		Unknown []struct{ Why string }
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	t.Logf("the report of %d disks on %d nodes and %d on a dead one took %s: %.0f disk-hours", nodes*each, nodes, each, took.Round(10*time.Millisecond), r.Totals.DiskHours)
	require.Equal(t, each, r.Totals.Unknown)
	require.Equal(t, (nodes+1)*each, r.Totals.Disks)
	require.InDelta(t, nodes*each*30*24, r.Totals.DiskHours, float64(nodes*each))
	require.Contains(t, r.Unknown[0].Why, "no agent answers on node i-0000000000000dead")
	require.Less(t, took, time.Minute)
}

// editsAtTheSameTime: of changes to a schedule that come together none is lost, the
// emergency stop least of all.
func editsAtTheSameTime(t *testing.T, address string) {
	connect := func() *control.Client {
		c, err := control.Connect(t.Context(), control.Settings{Address: address, Namespace: "edits", Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c
	}
	c := connect()
	_, err := c.EditRightsize(t.Context(), control.EditOptions{Create: true}, func(x *control.Timed[contract.RightsizeInput]) error {
		x.Every = time.Hour
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, c.PauseSchedule(t.Context(), contract.RightsizeSchedule, "test"))
	const editors = 8
	errs := make(chan error, editors)
	for n := range editors {
		own := connect()
		go func() { // ends with its edit
			_, err := own.EditRightsize(t.Context(), control.EditOptions{}, func(x *control.Timed[contract.RightsizeInput]) error {
				s := contract.Switch{Mode: contract.Observe, Disk: string(stubnode.HerdDisk(n))}
				x.Input.Switches = append(slices.DeleteFunc(x.Input.Switches, s.Same), s)
				slices.SortFunc(x.Input.Switches, func(a, b contract.Switch) int { return strings.Compare(a.Disk, b.Disk) })
				return nil
			})
			errs <- err
		}()
	}
	for range editors {
		require.NoError(t, <-errs)
	}
	in, err := c.RightsizeInput(t.Context())
	require.NoError(t, err)
	require.Len(t, in.Switches, editors)
	s, err := c.DescribeSchedule(t.Context(), contract.RightsizeSchedule)
	require.NoError(t, err)
	require.True(t, s.Paused, "an edit resumes nothing")
	require.Contains(t, s.Note, "test")
	require.Equal(t, time.Hour, s.Every)
}
