package fleet_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

const twoMoves = `
apiVersion: ebb.io/v1alpha1
kind: Policy
budgets: {moves: 2}
defaults:
  mode: enforce
  move: {snapshot: false, verify: none}
`

// moves are the shrinks that a workflow has begun and that run.
func (h *herd) moves(id string) (n int) {
	d, err := h.temporal.DescribeWorkflowExecution(h.t.Context(), id, "")
	require.NoError(h.t, err)
	for _, c := range d.GetPendingChildren() {
		if c.GetWorkflowTypeName() == contract.ShrinkWorkflow {
			n++
		}
	}
	return n
}

// details are what Temporal's UI shows of a workflow.
func (h *herd) details(id string) string {
	var m sdkpb.WorkflowMetadata
	v, err := h.temporal.QueryWorkflow(h.t.Context(), id, "", "__temporal_workflow_metadata")
	require.NoError(h.t, err)
	require.NoError(h.t, v.Get(&m))
	return m.GetCurrentDetails()
}

// together is how many shrinks ran at the same time at most, by Temporal's clock.
func (h *herd) together(disks []contract.DiskID) int {
	type edge struct {
		at time.Time
		n  int
	}
	var edges []edge
	for _, d := range disks {
		w, err := h.temporal.DescribeWorkflowExecution(h.t.Context(), contract.WorkflowID(d), "")
		require.NoError(h.t, err)
		i := w.GetWorkflowExecutionInfo()
		if i.GetType().GetName() != contract.ShrinkWorkflow {
			continue
		}
		edges = append(edges, edge{i.GetStartTime().AsTime(), 1})
		if i.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			edges = append(edges, edge{i.GetCloseTime().AsTime(), -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	now, most := 0, 0
	for _, e := range edges {
		now += e.n
		most = max(most, now)
	}
	return most
}

// TestRunsShareBudgets: two runs at the same time begin no more moves together than
// one may.
func TestRunsShareBudgets(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	h := newHerd(t, 3, 6, nil)
	release := h.nodes.Hold()
	defer release()
	ids := []string{"rightsize-a", "rightsize-b"}
	runs := make([]client.WorkflowRun, len(ids))
	for i, id := range ids {
		in := contract.RightsizeInput{Policy: twoMoves, Feed: 15 * time.Second}
		for _, d := range h.disks[9*i:][:9] { // on the others: two runs that want the same are kept apart by the disks' locks
			in.Switches = append(in.Switches, contract.Switch{Mode: contract.Observe, Disk: string(d)})
		}
		var err error
		runs[i], err = h.temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: contract.ControlQueue}, contract.RightsizeWorkflow, in)
		require.NoError(t, err)
	}
	for _, id := range ids {
		require.Eventually(t, func() bool { return strings.Contains(h.details(id), "wait for a budget") }, 30*time.Second, 50*time.Millisecond, id)
	}
	require.Equal(t, 2, h.moves(ids[0])+h.moves(ids[1]))

	release()
	var disks []contract.DiskID
	for _, run := range runs {
		var r contract.RightsizeResult
		require.NoError(t, run.Get(t.Context(), &r))
		require.Empty(t, r.Problems)
		for _, b := range r.Started {
			disks = append(disks, b.Disk)
		}
	}
	t.Logf("%d operations by both", len(disks))
	require.Greater(t, len(disks), 2, "what ends makes room")
	require.LessOrEqual(t, h.together(disks), 2)
}

// TestApprovalsShareBudgets: what is approved at the same time waits for the room
// that the budgets have, and a person may think better of it meanwhile.
func TestApprovalsShareBudgets(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	h := newHerd(t, 10, 9, nil) // more than Temporal lets ask one workflow at a time
	release := h.nodes.Hold()
	defer release()
	r, _, _ := h.rightsize(contract.RightsizeInput{Policy: twoMoves, Switches: []contract.Switch{{Mode: contract.Recommend}}})
	var disks []contract.DiskID
	for _, b := range r.Proposed {
		if b.Operation == "shrink" {
			disks = append(disks, b.Disk)
		}
	}
	require.GreaterOrEqual(t, len(disks), 50)
	answer := func(d contract.DiskID, update string) (p fleet.Proposed) {
		u, err := h.temporal.UpdateWorkflow(t.Context(), client.UpdateWorkflowOptions{
			WorkflowID: contract.ProposeWorkflowID(d), UpdateName: update, Args: []any{fleet.Answer{By: "ada"}}, WaitForStage: client.WorkflowUpdateStageCompleted,
		})
		if assert.NoError(t, err) {
			assert.NoError(t, u.Get(t.Context(), &p))
		}
		return p
	}
	var all sync.WaitGroup
	for part := range slices.Chunk(disks, 5) {
		all.Go(func() {
			for _, d := range part {
				assert.Equal(t, "approved", answer(d, contract.UpdateApprove).Answer)
			}
		})
	}
	all.Wait()
	var begun, wait []contract.DiskID
	require.Eventually(t, func() bool {
		begun, wait = nil, nil
		for _, d := range disks {
			id := contract.ProposeWorkflowID(d)
			switch {
			case h.moves(id) > 0:
				begun = append(begun, d)
			case strings.Contains(h.details(id), "approved by ada, waits for a budget: 2 moves run in the fleet, 2 are allowed"):
				wait = append(wait, d)
			}
		}
		return len(begun)+len(wait) == len(disks)
	}, time.Minute, 200*time.Millisecond)
	require.Len(t, begun, 2)
	require.Equal(t, "rejected", answer(wait[0], contract.UpdateReject).Answer)
	require.Contains(t, h.details(contract.ProposeWorkflowID(wait[0])), "rejected by ada")
}
