package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// Retype gives a disk's volume another type or other performance in place: one
// modification of the volume, nothing is copied, and size and filesystem stay. Neither
// the node nor its agent has a part in it. Room is made beside it: EBS takes no other
// modification of the volume meanwhile, so growth takes another volume then.
func Retype(ctx workflow.Context, in contract.RetypeInput) (contract.Result, error) {
	return operate(ctx, header{
		name: contract.RetypeWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(),
		phases: []contract.Phase{contract.PhaseCheck, contract.PhaseModify},
	}, func(ctx workflow.Context, op *operation) error {
		var old contract.VolumeFacts
		var p plan.Performance
		err := op.step(ctx, contract.PhaseCheck, alone, func() (err error) {
			old, p, err = op.retypable(ctx, in)
			return err
		})
		if err != nil || in.DryRun {
			return err
		}
		op.keepRoom(ctx)
		// What was asked of EBS goes on by itself: there is nothing to undo.
		return op.step(ctx, contract.PhaseModify, shared, func() error { return op.retype(ctx, old.ID, p) })
	})
}

// retypable is the volume and what it is to be.
func (op *operation) retypable(ctx workflow.Context, in contract.RetypeInput) (contract.VolumeFacts, plan.Performance, error) {
	facts, err := op.located(ctx)
	if err != nil {
		return contract.VolumeFacts{}, plan.Performance{}, err
	}
	active := facts.Active()
	if len(active) != 1 {
		return contract.VolumeFacts{}, plan.Performance{}, contract.Refuse(contract.BadInput, "the backing has %d volumes, and one is changed in place", len(active)).
			WithDisk(op.disk).WithNext("have it folded into one: ebb shrink DISK, with --type or --iops for what it shall be")
	}
	v := active[0]
	p, err := retyped(v, in)
	if err != nil {
		if r, refused := contract.AsRefusal(err); refused {
			err = r.WithDisk(op.disk).WithVolume(v.ID)
		}
		return v, p, err
	}
	op.result.BeforeGiB, op.result.AfterGiB, op.result.Generation, op.result.Volumes = v.SizeGiB, v.SizeGiB, v.Generation, []string{v.ID}
	change := fmt.Sprintf("%d GiB of %s become %s", v.SizeGiB, shown(v.Type, v.IOPS, v.ThroughputMiBs), shown(p.Type, p.IOPS, p.ThroughputMiBs))
	reason := change
	if in.Reason != "" {
		reason = in.Reason
	}
	op.planned(ctx, facts.Name, v.SizeGiB, v.SizeGiB, reason)
	if in.DryRun {
		op.result.Steps = []string{
			fmt.Sprintf("modify volume %s in place: %s (%s)", v.ID, change, p.Reason),
			"its size, the pool and the filesystem stay as they are; EBS modifies the volume no other time for some hours",
		}
	}
	return v, p, nil
}

// retyped is what the volume is to be, refused where EBS does not change it in place,
// and where it is so already: asking all the same would spend a modification.
func retyped(v contract.VolumeFacts, in contract.RetypeInput) (plan.Performance, error) {
	if !plan.Elastic(v.Type) {
		return plan.Performance{}, contract.Refuse(contract.SizeLimit, "a %s volume is not changed in place", v.Type).
			WithNext("move the disk to a volume of another type: ebb shrink DISK --type gp3")
	}
	spec := contract.VolumeSpec{Type: in.Type, IOPS: in.IOPS, ThroughputMiBs: in.ThroughputMiBs}
	if spec.Type == "" && v.Type != "gp2" {
		spec.Type = v.Type
	}
	if spec.ThroughputMiBs == 0 {
		spec.ThroughputMiBs = plan.Carried(v) // which comes with the IOPS of io1 and io2
	}
	p, err := plan.KeepPerformance(&v, v.SizeGiB, spec)
	if err != nil {
		return p, err
	}
	if p.ThroughputMiBs == 0 && in.ThroughputMiBs > 0 {
		return p, contract.Refuse(contract.BadInput, "an %s volume has no throughput to set", p.Type).WithNext("ask for IOPS, or for gp3")
	}
	if p.Type == v.Type && (p.IOPS == 0 || p.IOPS == v.IOPS) && (p.ThroughputMiBs == 0 || p.ThroughputMiBs == v.ThroughputMiBs) {
		return p, contract.Refuse(contract.NothingToRetype, "the volume is %s already", shown(v.Type, v.IOPS, v.ThroughputMiBs)).
			WithNext("ask for another type, IOPS or throughput")
	}
	return p, nil
}

func shown(typ string, iops, mibs int32) string {
	return plan.Volume{Type: typ, IOPS: iops, ThroughputMiBs: mibs}.String()
}

// retype asks EBS and waits for the volume to be so. Nothing but this operation waits
// for it: room is made beside.
func (op *operation) retype(ctx workflow.Context, volume string, p plan.Performance) error {
	op.modified = append(op.modified, workflow.Now(ctx))
	in := contract.ModifyVolumeInput{Disk: op.disk, Volume: volume, Type: p.Type, IOPS: p.IOPS, ThroughputMiBs: p.ThroughputMiBs}
	_, err := control(ctx, op, contract.ModifyVolume, in, brief)
	return err
}
