package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// Count implements fleet.CountRunning.
func (a *Activities) Count(ctx context.Context, _ struct{}) (fleet.Counted, error) {
	c, err := a.World.Census(ctx)
	if err != nil {
		return fleet.Counted{}, err
	}
	return a.counted(ctx, c)
}

// counted is a census' moves beside those of Temporal.
func (a *Activities) counted(ctx context.Context, c fleet.Census) (fleet.Counted, error) {
	operations, err := a.Operations(ctx)
	if err != nil {
		return fleet.Counted{}, fmt.Errorf("which operations run: %w", err)
	}
	zones := map[string]string{}
	for _, n := range c.Nodes {
		zones[n.Node] = n.Zone
	}
	out := fleet.Counted{EC2: c.Running}
	for d, op := range operations {
		if op.Type == contract.ShrinkWorkflow {
			out.Moves = append(out.Moves, fleet.Move{Disk: d, Node: op.Node, Zone: zones[op.Node], GiB: op.GiB})
		}
	}
	slices.SortFunc(out.Moves, func(x, y fleet.Move) int { return strings.Compare(string(x.Disk), string(y.Disk)) })
	return out, nil
}

// TakeBudget implements fleet.TakeBudget.
func (a *Activities) TakeBudget(ctx context.Context, in fleet.Ask) (fleet.Room, error) {
	r := plan.Rule{Windows: in.Windows}
	if err := locate(&r); err != nil {
		return fleet.Room{}, err
	}
	if open, next := r.Open(in.At); !open {
		out := fleet.Room{NotBefore: next}
		for _, d := range in.Want {
			out.Held = append(out.Held, plan.Held{Disk: d.Disk, Why: plan.WhyWindow, Reason: "outside of the maintenance windows"})
		}
		return out, nil
	}
	return a.Take(ctx, in)
}

// take asks the workflow Budgets, which begins with the question where it does not
// run. The same activity asks the same question only once.
func take(ctx context.Context, in fleet.Ask) (fleet.Room, error) {
	info := activity.GetInfo(ctx)
	c := activity.GetClient(ctx)
	start := c.NewWithStartWorkflowOperation(client.StartWorkflowOptions{
		ID: contract.BudgetsWorkflowID, TaskQueue: contract.ControlQueue, StaticSummary: "Say who may begin operations now",
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, contract.BudgetsWorkflow, fleet.Ledger{})
	var out fleet.Room
	h, err := c.UpdateWithStartWorkflow(ctx, client.UpdateWithStartWorkflowOptions{
		StartWorkflowOperation: start,
		UpdateOptions: client.UpdateWorkflowOptions{
			UpdateID: info.WorkflowExecution.RunID + "/" + info.ActivityID, UpdateName: contract.UpdateTake, Args: []any{in},
			WaitForStage: client.WorkflowUpdateStageCompleted,
		},
	})
	if err == nil {
		err = h.Get(ctx, &out)
	}
	if err != nil {
		return out, fmt.Errorf("ask %s for room: %w", contract.BudgetsWorkflowID, err)
	}
	return out, nil
}
