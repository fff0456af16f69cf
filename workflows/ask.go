package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// propose asks for approvals. One that is asked for already stands as it is, with
// the figures of its day.
func (r *rightsize) propose(ctx workflow.Context) {
	slices.SortStableFunc(r.ask, func(a, b plan.Decision) int {
		return strings.Compare(order(a), order(b))
	})
	expiry := r.in.ProposalExpiry
	if expiry == 0 {
		expiry = contract.DefaultExpiry
	}
	most := asksAtMost(r.in.MaxStarts, len(r.do))
	ask := r.ask[:min(len(r.ask), most)]
	for _, d := range r.ask[len(ask):] {
		r.held(d, fmt.Sprintf("this run asks for %d approvals at most", most))
	}
	for part := range slices.Chunk(ask, childrenTogether) {
		r.proposeThese(beyond(ctx), part, expiry)
	}
}

// asksAtMost is how many approvals a run asks for beside the operations it may
// begin: those go first where there is no room for both.
func asksAtMost(maxStarts, operations int) int {
	return min(maxStarts, childrenMost-min(operations, maxStarts, childrenMost))
}

func (r *rightsize) proposeThese(ctx workflow.Context, ask []plan.Decision, expiry time.Duration) {
	children, inputs := make([]workflow.ChildWorkflowFuture, len(ask)), make([]fleet.Proposal, len(ask))
	for i, d := range ask {
		name, input, why := fleet.Operation(d, r.rules[d.Rule], r.in.Settings)
		if why != "" {
			r.held(d, why)
			continue
		}
		in := fleet.Proposal{Decision: d, Workflow: name, Expiry: expiry, Budgets: r.census.Budgets}
		if d.Wanted == plan.Shrink || d.Wanted == plan.Retype && d.SavingUSDMonth > 0 && !d.Lacks {
			in.Windows = r.rules[d.Rule].Windows
		}
		switch input := input.(type) {
		case contract.GrowInput:
			in.Grow = &input
		case contract.ShrinkInput:
			in.Shrink = &input
		case contract.RetypeInput:
			in.Retype = &input
		}
		child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID: contract.ProposeWorkflowID(d.Disk), TaskQueue: contract.ControlQueue,
			ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
			WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			StaticSummary:         "Approve? " + d.Reason,
			TypedSearchAttributes: temporal.NewSearchAttributes(attrDisk.ValueSet(string(d.Disk)), attrOperation.ValueSet(name)),
			Memo:                  map[string]any{"fromGiB": d.FromGiB, "toGiB": d.GiB, "reason": d.Reason, "savingUsdMonth": d.SavingUSDMonth},
		})
		children[i] = workflow.ExecuteChildWorkflow(child, contract.ProposeWorkflow, in)
		inputs[i] = in
	}
	for i, d := range ask {
		if children[i] == nil {
			continue
		}
		err := children[i].GetChildWorkflowExecution().Get(ctx, nil)
		if err != nil && !runs(err) {
			r.problem("disk %s: its proposal was not begun: %v", d.Disk, err)
			continue
		}
		if err != nil && d.Replaces {
			err = workflow.SignalExternalWorkflow(ctx, contract.ProposeWorkflowID(d.Disk), "", contract.SignalReplace, inputs[i]).Get(ctx, nil)
			if err != nil {
				r.held(d, fmt.Sprintf("what was rejected ends just now: %v", err))
				continue
			}
		}
		r.result.Proposed = append(r.result.Proposed, begun(d))
	}
}

// order puts proposals with the greatest saving first, growth before all.
func order(d plan.Decision) string {
	if d.Wanted != plan.Shrink && d.Wanted != plan.Retype {
		return "0" + string(d.Disk)
	}
	return fmt.Sprintf("1%015.2f%s", 1e11-d.SavingUSDMonth, d.Disk)
}
