package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/starter/internal/cmd"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/ui"
	"github.com/ebb-storage/ebb/workflows"
)

// reportServer is a Temporal server with a worker of the world's disks, all on node
// A, and of more workflows.
func reportServer(ctx context.Context, t *testing.T, w *world, more map[string]any) client.Client {
	t.Helper()
	server := startTemporal(ctx, t)
	t.Setenv("TEMPORAL_ADDRESS", server.FrontendHostPort())
	ctl := worker.New(server.Client(), contract.ControlQueue, worker.Options{})
	workflows.RegisterInspect(ctl)
	w.register(ctl)
	for name, fn := range more {
		ctl.RegisterWorkflowWithOptions(fn, workflow.RegisterOptions{Name: name})
	}
	require.NoError(t, ctl.Start())
	t.Cleanup(ctl.Stop)
	node := worker.New(server.Client(), contract.NodeQueue(nodeA), worker.Options{})
	w.registerNode(node)
	require.NoError(t, node.Start())
	t.Cleanup(node.Stop)
	return server.Client()
}

// reported is the report as JSON.
func reported(ctx context.Context, t *testing.T, args ...string) (r report.Account) {
	t.Helper()
	var out, talk bytes.Buffer
	code := cmd.Main(ctx, "test", append([]string{"report", "-o", "json"}, args...), ui.Streams{Out: &out, Err: &talk})
	require.Zero(t, code, talk.String())
	require.NoError(t, json.Unmarshal(out.Bytes(), &r))
	return r
}

// withDisk adds a disk of 64 GiB with a backing of 4.
func (w *world) withDisk(i int) contract.DiskID {
	id := contract.DiskID(fmt.Sprintf("d-%017x", i))
	w.sizes[id] = 64 * contract.GiB
	w.disks[id] = contract.DiskFacts{Disk: id, Name: fmt.Sprintf("team-%d/claim-%d", i%10, i), Volumes: []contract.VolumeFacts{{
		ID: fmt.Sprintf("vol-%08x", i), State: "in-use", SizeGiB: 4, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125, Zone: "us-east-1a",
		Role: contract.RoleActive, Generation: 1, Node: nodeA, AttachState: "attached",
	}}}
	return id
}

// TestReportOfManyDisks reports a fleet with 30 days of hours for each disk, through
// a real Temporal server: 50 disks, with EBB_TEST_FULL 1,000.
func TestReportOfManyDisks(t *testing.T) {
	disks, limit := 50, 30*time.Second
	if os.Getenv("EBB_TEST_FULL") != "" {
		disks, limit = 1000, 4*time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	w := newWorld()
	for i := range disks {
		w.withDisk(i)
	}
	reportServer(ctx, t, w, nil)
	began := time.Now()
	r := reported(ctx, t, "--since", "30d")
	took := time.Since(began)
	t.Logf("%d disks: %s", disks, took.Round(time.Millisecond))
	require.Less(t, took, limit)
	require.Equal(t, disks, r.Totals.Known)
	require.Zero(t, r.Totals.Unknown)
	require.LessOrEqual(t, len(r.Series), report.MaxSamples)
	page := filepath.Join(t.TempDir(), "report.html")
	require.Zero(t, cmd.Main(ctx, "test", []string{"report", "-o", "html", "--out", page}, ui.Streams{Out: io.Discard, Err: io.Discard}))
	info, err := os.Stat(page)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(2<<20))
}

// TestReportReadsTemporal: what is not an operation of a disk counts, too: when old
// volumes and snapshots went, what nobody approved, what the planner held back.
func TestReportReadsTemporal(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w := newWorld()
	id := w.withDisk(1)
	now := time.Now()
	// Stand-ins that end with what is to be read.
	c := reportServer(ctx, t, w, map[string]any{
		contract.RetireWorkflow: func(ctx workflow.Context, grace time.Duration) (contract.Result, error) {
			return contract.Result{Operation: contract.RetireWorkflow, Outcome: contract.Done}, workflow.Sleep(ctx, grace)
		},
		contract.ProposeWorkflow: func(ctx workflow.Context, answer string) (fleet.Proposed, error) {
			if answer == "holds" {
				return fleet.Proposed{}, workflow.Sleep(ctx, time.Hour)
			}
			return fleet.Proposed{Decision: plan.Decision{Disk: id, Wanted: plan.Shrink, FromGiB: 4, GiB: 2, Reason: "less is needed"}, Answer: answer, By: "ann"}, nil
		},
		contract.RightsizeWorkflow: func(_ workflow.Context, held int) (contract.RightsizeResult, error) {
			return contract.RightsizeResult{Totals: contract.Totals{Held: map[string]int{"budget": held}}}, nil
		},
		contract.ReapWorkflow: func(workflow.Context) (contract.ReapResult, error) {
			return contract.ReapResult{Fates: []contract.Fate{{Leftover: contract.Leftover{Disk: id, Snapshot: "snap-1"}, Deleted: true}}}, nil
		},
	})
	run := func(id, name string, wait bool, args ...any) {
		r, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: contract.ControlQueue}, name, args...)
		require.NoError(t, err)
		if wait {
			require.NoError(t, r.Get(ctx, nil))
		}
	}
	run("retire/vol-0000000a", contract.RetireWorkflow, false, time.Hour) // it waits
	run("propose/a", contract.ProposeWorkflow, true, "rejected")
	run("propose/b", contract.ProposeWorkflow, true, "expired")
	run("propose/c", contract.ProposeWorkflow, true, "approved")
	holds := fleet.Proposed{Decision: plan.Decision{Disk: id, Wanted: plan.Grow, FromGiB: 4, GiB: 9}, Answer: "rejected", By: "ann", At: now.Add(-time.Minute), Until: now.Add(time.Hour)}
	_, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: "propose/d", TaskQueue: contract.ControlQueue, Memo: map[string]any{fleet.MemoAnswered: holds},
	}, contract.ProposeWorkflow, "holds") // it goes on as long as its rejection holds
	require.NoError(t, err)
	run("rightsize/1", contract.RightsizeWorkflow, true, 7)
	run("reap/1", contract.ReapWorkflow, true)
	run("disk/"+string(id), contract.GrowWorkflow, true, contract.GrowInput{Disk: id, ToGiB: 40})

	var r report.Account
	require.Eventually(t, func() bool { // visibility lags a moment
		r = reported(ctx, t, "--since", "1d")
		return r.Totals.Grows == 1 && r.Totals.RefusedOps == 3 && len(r.Held) == 1
	}, 30*time.Second, 100*time.Millisecond)
	var codes []string
	for _, o := range r.Operations {
		codes = append(codes, o.Operation+" "+o.Outcome+" "+o.Code)
	}
	require.ElementsMatch(t, []string{"grow done ", "grow refused ProposalRejected", "shrink refused ProposalRejected", "shrink refused ProposalExpired"}, codes)
	require.Equal(t, 7, r.Held[0].Times)
	require.WithinDuration(t, now, r.To, time.Minute)
	cl, err := control.Connect(ctx, control.Settings{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer cl.Close()
	past, err := cl.Past(ctx, now.Add(-time.Hour))
	require.NoError(t, err)
	end, known := past.Retired["vol-0000000a"]
	require.True(t, known && end.IsZero(), "it still waits: %v", past.Retired)
	require.WithinDuration(t, time.Now(), past.Snapshots["snap-1"], time.Minute)
	require.Positive(t, past.Retention)
	require.Zero(t, past.Unread)
	// What ended before the time is not read, what still waits is.
	past, err = cl.Past(ctx, time.Now().Add(time.Hour))
	require.NoError(t, err)
	require.Empty(t, past.Operations)
	require.Empty(t, past.Snapshots)
	require.Len(t, past.Retired, 1)
}
