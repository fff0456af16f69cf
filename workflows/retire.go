package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// A volume that does not come off its instance is looked at again after offPause, for
// offPatience: nobody begins another Retire of it.
const (
	offPause    = time.Hour
	offPatience = 7 * 24 * time.Hour
)

// retireLimit bounds one attempt, with its retries, to delete a volume.
const retireLimit = 24 * time.Hour

// Retire deletes one retired volume after its grace period, and after it has come off
// its instance. Cancelling it keeps the volume. A volume that is active again, or no longer tagged retired, is
// kept too, and the result says so.
func Retire(ctx workflow.Context, in contract.RetireInput) (contract.Result, error) {
	result := contract.Result{Disk: in.Disk, Operation: contract.RetireWorkflow, Generation: in.Generation, Outcome: contract.Done}
	refuse := func(r *contract.Refusal) (contract.Result, error) {
		result.Outcome, result.Refusal = contract.Refused, r
		return result, nil
	}
	if err := in.Validate(); err != nil {
		return refuse(badInput(err))
	}
	err := workflow.UpsertTypedSearchAttributes(ctx, attrDisk.ValueSet(string(in.Disk)), attrOperation.ValueSet(contract.RetireWorkflow), attrPhase.ValueSet(string(contract.PhaseRetire)))
	if err != nil {
		workflow.GetLogger(ctx).Warn("Search attributes were not set", "error", err)
	}
	until := workflow.Now(ctx).Add(in.Grace)
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("Volume `%s`, generation %d of `%s`, is kept until %s. Cancel this workflow to keep it for good.",
		in.Volume, in.Generation, in.Disk, until.Format(time.RFC3339)))
	cancelled := func() (contract.Result, error) {
		result.Outcome = contract.Cancelled
		return result, nil
	}
	if err := workflow.Sleep(ctx, in.Grace); err != nil {
		return cancelled()
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              contract.ControlQueue,
		ScheduleToCloseTimeout: retireLimit,
		StartToCloseTimeout:    time.Hour,
		HeartbeatTimeout:       contract.NodeHeartbeat,
		WaitForCancellation:    true,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 10 * time.Minute},
	})
	for {
		_, err = contract.DeleteVolume.Execute(ctx, contract.DeleteVolumeInput{
			Disk: in.Disk, Volume: in.Volume, Roles: []contract.Role{contract.RoleRetired},
		})
		r, refused := contract.AsRefusal(err)
		switch {
		case refused && r.Code == contract.DetachStuck && workflow.Now(ctx).Before(until.Add(offPatience)):
			workflow.SetCurrentDetails(ctx, fmt.Sprintf("Volume `%s` is deleted when it has come off its instance: %s. Cancel this workflow to keep it for good.",
				in.Volume, r.Error()))
			if err := workflow.Sleep(ctx, offPause); err != nil {
				return cancelled()
			}
		case refused:
			return refuse(r)
		case temporal.IsCanceledError(err):
			return cancelled()
		default:
			return result, err
		}
	}
}
