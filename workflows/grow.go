package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// Grow makes a disk's backing larger, online: to ToGiB, or as usage asks for.
// The agent starts it together with a pressure signal; one that comes while it
// runs is served before it ends, and grows nothing twice.
func Grow(ctx workflow.Context, in contract.GrowInput) (contract.Result, error) {
	return operate(ctx, header{
		name: contract.GrowWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(),
		phases: []contract.Phase{contract.PhaseCheck, contract.PhaseModify, contract.PhaseExtend},
	}, func(ctx workflow.Context, op *operation) error {
		facts, err := op.attachedFacts(ctx)
		if err != nil {
			return err
		}
		// Growth never takes anything away: there is nothing to undo, and a step
		// begun is finished.
		return op.step(ctx, contract.PhaseCheck, alone, func() error { return grow(ctx, op, in, facts.Name) })
	})
}

func grow(ctx workflow.Context, op *operation, in contract.GrowInput, name string) error {
	m, err := op.measure(ctx)
	if err != nil {
		return err
	}
	op.grown(m)
	if op.result.BeforeGiB == 0 {
		op.result.BeforeGiB = plan.CeilGiB(m.BackingBytes)
	}
	if p, ok := op.incomingPressure(m); ok && in.ToGiB == 0 && !in.DryRun {
		return op.growIncoming(ctx, m, p)
	}
	d, err := op.growDecision(ctx, m, in)
	if err != nil {
		return err
	}
	if d.Enough && op.result.BeforeGiB < plan.CeilGiB(m.BackingBytes) {
		return nil // an earlier run of this step grew it
	}
	if d.Enough {
		return contract.Refuse(contract.NothingToGrow, "the backing has %d GiB: %s", d.GiB, d.Reason).
			WithDisk(op.disk).WithNext("ask for a size to grow it all the same: ebb grow --to")
	}
	op.planned(ctx, name, op.result.BeforeGiB, d.GiB, d.Reason)
	if in.DryRun {
		op.result.AfterGiB = d.GiB
		op.result.Steps = []string{
			fmt.Sprintf("modify volume %s so that the backing has %d GiB instead of %d (%s)", m.Members[len(m.Members)-1].Volume, d.GiB, op.result.BeforeGiB, d.Reason),
			"extend the pool over it, online",
			"if EBS refuses to modify the volume: create, attach and append another one",
		}
		return nil
	}
	m, err = op.extend(ctx, m, d)
	if err == nil {
		op.grown(m)
	}
	return err
}

// growDecision decides with the pressure that came with the start, if any: it is
// served by this growth.
func (op *operation) growDecision(ctx workflow.Context, m contract.Measurement, in contract.GrowInput) (plan.Decision, error) {
	u, how := op.usage(ctx, m), op.plan
	if in.ToGiB != 0 {
		if op.result.BeforeGiB < plan.CeilGiB(m.BackingBytes) && in.ToGiB <= plan.CeilGiB(m.BackingBytes) {
			return plan.Decision{GiB: plan.CeilGiB(m.BackingBytes), Enough: true}, nil
		}
		return plan.GrowTo(u, in.ToGiB)
	}
	forced := m.Full
	for _, p := range op.signals.pressure {
		if p.Generation == m.Generation || p.Generation == 0 {
			forced = forced || p.BackingBytes == 0 || m.BackingBytes <= p.BackingBytes
			u.FillRate = max(u.FillRate, p.FillRate)
			how, op.patience = op.asked(p)
		}
	}
	return plan.GrowTarget(u, how, forced)
}

// incomingPressure takes a pressure signal of a move's new backing.
func (op *operation) incomingPressure(m contract.Measurement) (contract.Pressure, bool) {
	for i, p := range op.signals.pressure {
		if m.Move != nil && p.Generation == m.Move.Generation && p.Generation != m.Generation {
			op.signals.pressure = append(op.signals.pressure[:i:i], op.signals.pressure[i+1:]...)
			return p, true
		}
	}
	return contract.Pressure{}, false
}

// grown fills the result from what the node measured.
func (op *operation) grown(m contract.Measurement) {
	op.result.Generation = m.Generation
	op.result.AfterGiB = plan.CeilGiB(m.BackingBytes)
	op.result.UsedBytes = m.PoolUsedBytes
	op.result.Volumes = nil
	for _, b := range m.Members {
		op.result.Volumes = append(op.result.Volumes, b.Volume)
	}
}
