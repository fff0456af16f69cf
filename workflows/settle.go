package workflows

import (
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// settle finishes what an operation that died left behind, so that EC2's tags
// say what the headers say. The headers, as the node measured them, are the
// truth: no volume they name is ever touched. A move that is not committed is
// left alone. It is safe to repeat and does nothing on a tidy disk.
func (op *operation) settle(ctx workflow.Context, facts contract.DiskFacts, m contract.Measurement, grace time.Duration) (contract.DiskFacts, contract.Measurement, error) {
	changed := false
	if m.Move != nil && m.Move.Phase == contract.PhaseCommit {
		_, err := node(ctx, op, contract.RetireBacking, contract.MoveInput{Disk: op.disk, Move: m.Move.Move}, brief)
		if err != nil {
			return facts, m, err
		}
		m.Move, changed = nil, true
	}
	for _, v := range facts.Volumes {
		did, err := op.settleVolume(ctx, v, m, grace)
		if err != nil {
			return facts, m, err
		}
		changed = changed || did
	}
	if !changed {
		return facts, m, nil
	}
	facts, err := op.attachedFacts(ctx)
	if err != nil {
		return facts, m, err
	}
	m, err = op.measure(ctx)
	return facts, m, err
}

func (op *operation) settleVolume(ctx workflow.Context, v contract.VolumeFacts, m contract.Measurement, grace time.Duration) (bool, error) {
	switch {
	case member(m.Members, v.ID):
		if v.Role == contract.RoleActive && v.Generation == m.Generation {
			return false, nil
		}
		_, err := control(ctx, op, contract.TagVolume, contract.TagVolumeInput{
			Disk: op.disk, Volume: v.ID, Role: contract.RoleActive, Generation: m.Generation,
		}, brief)
		return true, err
	case m.Move != nil && member(m.Move.Members, v.ID):
		return false, nil
	case v.Role == contract.RoleIncoming:
		return true, op.scrap(ctx, v)
	case v.Generation < m.Generation:
		return true, op.retire(ctx, v, grace)
	}
	return false, contract.Refuse(contract.DuplicateGeneration,
		"its tags claim generation %d, which its node does not know; the disk is at %d", v.Generation, m.Generation).
		WithDisk(op.disk).WithVolume(v.ID).WithNext("look at the volume; if it is not needed, remove its ebb: tags")
}

// retire tags a volume of an old generation, detaches it and leaves it to a
// Retire workflow of its own, which outlives this one. The node uses nothing of
// it any more. It is safe to repeat, and begins no second Retire of a volume: what
// the first one left is Reap's.
func (op *operation) retire(ctx workflow.Context, v contract.VolumeFacts, grace time.Duration) error {
	if v.Role != contract.RoleRetired {
		v.RetiredAt = workflow.Now(ctx)
		_, err := control(ctx, op, contract.TagVolume, contract.TagVolumeInput{
			Disk: op.disk, Volume: v.ID, Role: contract.RoleRetired, Generation: v.Generation, RetiredAt: v.RetiredAt,
		}, brief)
		if err != nil {
			return err
		}
	}
	if v.Node != "" {
		err := op.detachOnce(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: v.Node})
		if r, stuck := isStuck(err, contract.DetachStuck); stuck {
			// The disk needs nothing of it. What waits for this operation, growth
			// above all, shall not wait for it: Retire deletes it when it has come
			// off, and the next operation looks again.
			op.progress.Refusal, op.result.Refusal = r, r
			op.show(ctx)
		} else if err != nil {
			return err
		}
	}
	child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID:        contract.RetireWorkflowID(v.ID),
		TaskQueue:         contract.ControlQueue,
		ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
		// Once ended it stays so: somebody may have cancelled it to keep the volume.
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
		StaticSummary:         "delete retired volume " + v.ID + " of " + string(op.disk),
	})
	in := contract.RetireInput{Disk: op.disk, Volume: v.ID, Generation: v.Generation, Grace: graceLeft(ctx, v, grace)}
	err := workflow.ExecuteChildWorkflow(child, contract.RetireWorkflow, in).GetChildWorkflowExecution().Get(ctx, nil)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil
	}
	return err
}
