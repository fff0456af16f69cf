package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// Expand raises the disk's own size and its filesystem, online. The backing
// stays: data makes it grow.
func Expand(ctx workflow.Context, in contract.ExpandInput) (contract.Result, error) {
	return operate(ctx, header{
		name: contract.ExpandWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(),
		phases: []contract.Phase{contract.PhaseCheck, contract.PhaseExtend},
	}, func(ctx workflow.Context, op *operation) error {
		err := op.step(ctx, contract.PhaseCheck, alone, func() error {
			if _, err := op.attachedFacts(ctx); err != nil {
				return err
			}
			m, err := op.measure(ctx)
			if err == nil && m.SizeBytes > in.SizeBytes {
				return contract.Refuse(contract.BadInput, "the disk has %s already and its own size never shrinks", plan.Bytes(m.SizeBytes)).
					WithDisk(op.disk).WithNext("ask for a larger size; to pay for less, shrink its backing")
			}
			return err
		})
		if err != nil {
			return err
		}
		op.keepRoom(ctx)
		return op.step(ctx, contract.PhaseExtend, shared, func() error {
			m, err := node(ctx, op, contract.ExpandDisk, contract.ExpandDiskInput{Disk: in.Disk, SizeBytes: in.SizeBytes}, brief)
			if err == nil {
				op.grown(m)
			}
			return err
		})
	})
}
