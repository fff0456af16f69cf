package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// attachTries is how often an attachment that gets stuck is begun anew, each
// time under another device name.
const attachTries = 3

// attach attaches a volume to a node. Fresh says that it holds nothing that
// counts. An attachment that gets stuck is given up and tried again; after the
// last try the volume is detached and the refusal says what to do.
func (op *operation) attach(ctx workflow.Context, volume, node string, fresh bool) error {
	in := contract.AttachVolumeInput{Disk: op.disk, Volume: volume, Node: node, Fresh: fresh, Patience: op.set.AttachPatience}
	for in.Try = 1; ; in.Try++ {
		_, err := control(ctx, op, contract.AttachVolume, in, brief)
		if in.Try > 1 {
			op.wait(ctx, "")
		}
		r, stuck := isStuck(err, contract.AttachStuck)
		if !stuck {
			return err
		}
		if in.Try == attachTries {
			r.Message = fmt.Sprintf("%s (%d tries, each with another device name)", r.Message, attachTries)
			return r
		}
		op.wait(ctx, fmt.Sprintf("volume %s to attach to node %s: EBS left it attaching for %s; try %d of %d, with another device name",
			volume, node, op.set.AttachPatience, in.Try+1, attachTries))
	}
}

// detach takes a volume off a node. While the instance does not let go of it,
// the operation shows that, and waits as long as a step may take.
func (op *operation) detach(ctx workflow.Context, in contract.DetachVolumeInput) error {
	tries := op.set.StepTimeout / op.set.AttachPatience
	for n := time.Duration(1); ; n++ {
		err := op.detachOnce(ctx, in)
		if n > 1 {
			op.wait(ctx, "")
		}
		r, stuck := isStuck(err, contract.DetachStuck)
		if !stuck || n >= tries {
			return err
		}
		op.wait(ctx, fmt.Sprintf("volume %s to come off: %s; next: %s", in.Volume, r.Message, r.Next))
	}
}

// detachOnce is detach that does not wait longer than AttachPatience.
func (op *operation) detachOnce(ctx workflow.Context, in contract.DetachVolumeInput) error {
	in.Disk, in.Patience = op.disk, op.set.AttachPatience
	_, err := control(ctx, op, contract.DetachVolume, in, brief)
	return err
}

func isStuck(err error, code contract.RefusalCode) (*contract.Refusal, bool) {
	r, refused := contract.AsRefusal(err)
	return r, refused && r.Code == code
}
