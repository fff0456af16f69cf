package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

// Budgets says who may begin operations now. There is one of it, and it answers one
// after the other, so that all who begin operations share what the budgets allow,
// though Temporal and EC2 show what was begun a moment later. It ends when nobody
// has asked for as long as it has to remember.
func Budgets(ctx workflow.Context, ledger fleet.Ledger) error {
	mu := workflow.NewMutex(ctx)
	last := workflow.Now(ctx)
	err := workflow.SetUpdateHandler(ctx, contract.UpdateTake, func(ctx workflow.Context, ask fleet.Ask) (fleet.Room, error) {
		if err := mu.Lock(ctx); err != nil {
			return fleet.Room{}, err
		}
		defer mu.Unlock()
		if now := workflow.Now(ctx); ledger.Stale(now) {
			c, err := fleet.CountRunning.Execute(fleetControl(ctx), struct{}{})
			if err != nil {
				return fleet.Room{}, err
			}
			ledger.Count(now, c)
		}
		last = workflow.Now(ctx)
		room := ledger.Take(last, ask)
		workflow.SetCurrentDetails(ctx, fmt.Sprintf("%d moves run or may begin; counted at %s", room.Running.Moves+len(room.Begin), ledger.At.UTC().Format(time.RFC3339)))
		return room, nil
	})
	if err != nil {
		return err
	}
	long := func() bool { return workflow.GetInfo(ctx).GetContinueAsNewSuggested() }
	for !long() && workflow.Now(ctx).Before(last.Add(fleet.Remember)) {
		if _, err := workflow.AwaitWithTimeout(ctx, last.Add(fleet.Remember).Sub(workflow.Now(ctx)), long); err != nil {
			return err
		}
	}
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	if workflow.Now(ctx).Before(last.Add(fleet.Remember)) {
		return workflow.NewContinueAsNewError(ctx, contract.BudgetsWorkflow, ledger)
	}
	return nil
}

// budgetControl is for questions to Budgets, which may have to count first.
func budgetControl(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              contract.ControlQueue,
		ScheduleToCloseTimeout: 10 * time.Minute,
		StartToCloseTimeout:    2 * time.Minute,
		HeartbeatTimeout:       contract.NodeHeartbeat,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, MaximumInterval: 30 * time.Second},
	})
}
