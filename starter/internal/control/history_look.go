package control

import (
	"context"
	"errors"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Look is how far a running operation is, as Follow would show it once. ok is false
// when it has ended meanwhile.
func (c *Client) Look(ctx context.Context, r Running) (s Snapshot, ok bool, err error) {
	run := &Run{Disk: r.Disk, Operation: r.Operation, run: c.temporal.GetWorkflow(ctx, contract.WorkflowID(r.Disk.ID), r.RunID)}
	s, err = c.snapshot(ctx, run)
	if errors.Is(err, errNotRunning) {
		return s, false, nil
	}
	return s, err == nil, c.callError("look at the operation", err)
}
