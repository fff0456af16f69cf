package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
)

// keptPatience bounds the question how one Retire workflow ended.
const keptPatience = 10 * time.Second

// runs is what of Temporal's client tells how a workflow ended.
type runs interface {
	GetWorkflow(ctx context.Context, id, run string) client.WorkflowRun
}

// kept tells that somebody cancelled a volume's Retire workflow, which keeps the
// volume. Temporal forgets that when the retention of its namespace is over.
func kept(ctx context.Context, volume string) (bool, error) {
	activity.RecordHeartbeat(ctx, volume)
	return keptBy(ctx, activity.GetClient(ctx), volume)
}

func keptBy(ctx context.Context, c runs, volume string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, keptPatience)
	defer cancel()
	var res contract.Result
	err := c.GetWorkflow(ctx, contract.RetireWorkflowID(volume), "").Get(ctx, &res)
	var unknown *serviceerror.NotFound
	var stopped *temporal.TerminatedError
	var ended *temporal.WorkflowExecutionError
	switch {
	case err == nil:
		return res.Outcome == contract.Cancelled, nil
	case errors.As(err, &unknown):
		return false, nil // it never had one, or Temporal forgot it
	case temporal.IsCanceledError(err), errors.As(err, &stopped):
		return true, nil
	case errors.As(err, &ended):
		return false, nil // it failed: what is left is Reap's
	}
	return false, fmt.Errorf("how the Retire workflow of volume %s ended: %w", volume, err)
}
