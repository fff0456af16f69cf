package replay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

const asked = `
apiVersion: ebb.io/v1alpha1
kind: Policy
budgets: {moves: 1}
defaults:
  mode: recommend
  move: {snapshot: false}
`

func (b *bench) answer(d contract.DiskID, update string, a fleet.Answer) (p fleet.Proposed) {
	b.t.Helper()
	h, err := b.c.UpdateWorkflow(b.t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: contract.ProposeWorkflowID(d), UpdateName: update, Args: []any{a}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(b.t, err)
	require.NoError(b.t, h.Get(b.t.Context(), &p))
	return p
}

func (b *bench) proposed(d contract.DiskID) (p fleet.Proposed) {
	b.t.Helper()
	v, err := b.c.QueryWorkflow(b.t.Context(), contract.ProposeWorkflowID(d), "", contract.QueryProposal)
	require.NoError(b.t, err)
	require.NoError(b.t, v.Get(&p))
	return p
}

// runOf is the present run of a workflow.
func (b *bench) runOf(id string) string {
	b.t.Helper()
	d, err := b.c.DescribeWorkflowExecution(b.t.Context(), id, "")
	require.NoError(b.t, err)
	return d.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}

// TestAnswers tells what becomes of answers: a rejection that holds, is followed by
// another question, and taken back; an approval that waits for a budget.
func TestAnswers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	b := newBench(t)
	const quiet, busy = contract.DiskID("d-000000000000000a1"), contract.DiskID("d-000000000000000a2")
	b.create(quiet)
	b.create(busy)
	rightsize := func(story string, in contract.RightsizeInput) contract.RightsizeResult {
		t.Helper()
		run, err := b.c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "ebb-answers", TaskQueue: contract.ControlQueue}, contract.RightsizeWorkflow, in)
		require.NoError(t, err)
		var r contract.RightsizeResult
		require.NoError(t, run.Get(t.Context(), &r))
		require.Empty(t, r.Problems)
		if story != "" {
			b.told(run.GetID(), run.GetRunID(), story)
		}
		return r
	}
	// until asks again until visibility shows what was answered.
	until := func(story string, ok func(contract.RightsizeResult) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return ok(rightsize("", contract.RightsizeInput{Policy: asked})) }, 30*time.Second, 200*time.Millisecond)
		if story != "" {
			require.True(t, ok(rightsize(story, contract.RightsizeInput{Policy: asked})))
		}
	}
	id := contract.ProposeWorkflowID(quiet)
	require.Len(t, rightsize("", contract.RightsizeInput{Policy: asked}).Proposed, 2)

	// A rejection holds, and nobody is asked anew.
	first := b.runOf(id)
	require.Equal(t, "rejected", b.answer(quiet, contract.UpdateReject, fleet.Answer{By: "ada"}).Answer)
	until("rightsize-rejected", func(r contract.RightsizeResult) bool { return len(r.Proposed) == 1 && r.Totals.Held["Answered"] == 1 })
	require.Equal(t, first, b.runOf(id))

	// It is another matter when the disk fills.
	b.use(quiet, 19*contract.GiB)
	r := rightsize("rightsize-replaces", contract.RightsizeInput{Policy: asked})
	require.Len(t, r.Proposed, 2)
	require.Equal(t, "grow", r.Proposed[0].Operation)
	require.Eventually(t, func() bool { return b.runOf(id) != first }, 20*time.Second, 50*time.Millisecond)
	d, err := b.c.DescribeWorkflowExecution(t.Context(), id, first)
	require.NoError(t, err)
	require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW, d.GetWorkflowExecutionInfo().GetStatus())
	b.told(id, first, "propose-replaced")
	require.Empty(t, b.proposed(quiet).Answer)
	until("", func(r contract.RightsizeResult) bool { return len(r.Proposed) == 2 && r.Totals.Held["Answered"] == 0 })

	// A rejection is taken back: what was rejected is done.
	b.answer(quiet, contract.UpdateReject, fleet.Answer{By: "ada", For: 30 * 24 * time.Hour})
	b.answer(quiet, contract.UpdateApprove, fleet.Answer{By: "ada"})
	p := ended[fleet.Proposed](b, b.c.GetWorkflow(t.Context(), id, b.runOf(id)), "propose-taken-back")
	require.Equal(t, contract.Done, p.Outcome.Outcome, "%+v", p.Outcome.Refusal)
	require.EqualValues(t, p.Decision.GiB, b.volumes(quiet)[contract.RoleActive][0].SizeGiB)

	// An approval waits for a budget, which another move has, until it is taken back.
	release := b.nodes.Hold()
	defer release()
	b.use(quiet, contract.GiB)
	move := b.start(quiet, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: quiet, SkipSnapshot: true})
	b.phase(quiet, contract.PhaseCopy)
	b.answer(busy, contract.UpdateApprove, fleet.Answer{By: "ada"})
	id = contract.ProposeWorkflowID(busy)
	require.Eventually(t, func() bool { return strings.HasPrefix(b.proposed(busy).Waits, "a budget: ") }, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, "a budget: 1 moves run in the fleet, 1 are allowed", b.proposed(busy).Waits)
	until("", func(r contract.RightsizeResult) bool { return r.Totals.Held["Answered"] == 1 })
	b.answer(busy, contract.UpdateReject, fleet.Answer{By: "ada", For: time.Millisecond})
	p = ended[fleet.Proposed](b, b.c.GetWorkflow(t.Context(), id, ""), "propose-waits")
	require.Equal(t, "rejected", p.Answer)

	// So does a run, which begins when the other move has ended.
	enforced := contract.RightsizeInput{Policy: asked, Switches: []contract.Switch{{Mode: contract.Enforce}}, Feed: time.Second}
	r = rightsize("", enforced)
	require.Empty(t, r.Started)
	require.Len(t, r.Held, 1)
	release()
	var out contract.Result
	require.NoError(t, move.Get(t.Context(), &out))
	require.Equal(t, contract.Done, out.Outcome)
	b.told(contract.BudgetsWorkflowID, "", "budgets")
	require.Eventually(t, func() bool { return len(rightsize("rightsize-budgets", enforced).Started) > 0 }, 90*time.Second, 200*time.Millisecond)
	require.NoError(t, b.c.GetWorkflow(t.Context(), contract.WorkflowID(busy), "").Get(t.Context(), &out))
	require.Equal(t, contract.Done, out.Outcome)
}
