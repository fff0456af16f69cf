package ec2

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// underway measures for how long one attachment has been on its way.
type underway struct {
	patience time.Duration
	state    string
	since    time.Time
	over     bool // it has taken longer than patience
}

// stuck looks at the attachment as it is described now. Another state than the
// last begins anew.
func (u *underway) stuck(f contract.VolumeFacts) bool {
	now := time.Now()
	if state := f.Node + f.AttachState; state != u.state {
		u.state, u.since = state, now
	}
	u.over = now.Sub(u.since) > u.patience
	return u.over
}

func patience(asked time.Duration) time.Duration {
	if asked > 0 {
		return asked
	}
	return contract.Settings{}.WithDefaults().AttachPatience
}

// leaving says that a volume is on its way off an instance. EC2 calls it busy
// when the instance does not let go of it.
func leaving(f contract.VolumeFacts) bool {
	return f.AttachState == string(types.VolumeAttachmentStateDetaching) || f.AttachState == string(types.VolumeAttachmentStateBusy)
}

// DetachVolume implements contract.DetachVolume.
func (a *Activities) DetachVolume(ctx context.Context, in contract.DetachVolumeInput) (contract.VolumeFacts, error) {
	f, err := a.detach(ctx, in)
	return f, translate(err, in.Disk, in.Volume)
}

func (a *Activities) detach(ctx context.Context, in contract.DetachVolumeInput) (contract.VolumeFacts, error) {
	v, err := a.look(ctx, in.Volume)
	if err != nil {
		return contract.VolumeFacts{}, err
	}
	if v == nil {
		return contract.VolumeFacts{ID: in.Volume, State: string(types.VolumeStateDeleted)}, nil
	}
	if diskTag(*v) != string(in.Disk) {
		return contract.VolumeFacts{}, contract.Refuse(contract.VolumeForeign, "the volume's tags do not say that it belongs to the disk, or it was restored from a snapshot").
			WithNext("look at the volume's ebb: tags and its snapshot")
	}
	if in.Force {
		if err := a.mayForce(ctx, in.Node); err != nil {
			return facts(*v), err
		}
	}
	f, err := a.takeOff(ctx, in, facts(*v))
	// The tag is asked after all that time: an old describe has come up to date.
	if r, ok := contract.AsRefusal(err); !ok || r.Code != contract.DetachStuck || in.Force || !in.Fresh || f.Role != contract.RoleIncoming {
		return f, err
	}
	a.Log.Warn("A fresh volume does not come off its instance; detaching it by force", "disk", in.Disk, "volume", in.Volume, "node", f.Node, "state", f.AttachState)
	in.Force = true
	return a.takeOff(ctx, in, f)
}

// takeOff asks for the detach and waits until it is done or stuck.
func (a *Activities) takeOff(ctx context.Context, in contract.DetachVolumeInput, f contract.VolumeFacts) (contract.VolumeFacts, error) {
	asked := false
	var unseen time.Time // not described since then
	under := underway{patience: patience(in.Patience)}
	err := a.poll(ctx, fmt.Sprintf("volume %s is detached from %s", in.Volume, in.Node), func(ctx context.Context) (bool, error) {
		now := time.Now() // what is seen is no newer than the question
		got, err := a.volume(ctx, in.Volume)
		if err != nil {
			return false, err
		}
		if got == nil {
			// The describe may be from before the volume was made, as in look.
			if unseen.IsZero() {
				unseen = now
			}
			f = contract.VolumeFacts{ID: in.Volume, State: string(types.VolumeStateDeleted)}
			return now.Sub(unseen) >= a.Settle/4, nil
		}
		f, unseen = facts(*got), time.Time{}
		off := f.Node == "" || in.Node != "" && f.Node != in.Node
		done := f.Node != "" || f.State != string(types.VolumeStateInUse)
		switch {
		case off && (asked || in.Node == ""):
			return done, nil
		case off:
			// The describe may be from before the volume was attached. Only the answer to
			// the call itself is of now.
		case (asked || leaving(f)) && under.stuck(f):
			return false, detachStuck(f, under.patience)
		case asked, leaving(f) && !in.Force:
			return false, nil
		}
		from := cmp.Or(in.Node, f.Node)
		_, err = a.api.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &in.Volume, InstanceId: &from, Force: aws.Bool(in.Force)})
		switch c := code(err); c {
		case "":
			asked = err == nil
			return false, err
		case codeIncorrectState, codeVolumeNotFound, codeAttachmentNotFound, codeInstanceNotFound:
			if off {
				return c != codeVolumeNotFound && done, nil
			}
			if under.stuck(f) {
				return false, detachStuck(f, under.patience)
			}
			return false, nil // another run was faster, or it is still attaching
		}
		return false, err
	})
	return f, err
}

func detachStuck(f contract.VolumeFacts, after time.Duration) error {
	return contract.Refuse(contract.DetachStuck, "the volume has been %s on instance %s for more than %s", f.AttachState, f.Node, after).
		WithNext("end what still uses the device on the instance (lsblk, fuser, lsof); if nothing does, reboot or stop the instance; " +
			"never force the detach of a volume in use, it may hold writes of its own")
}

// mayForce refuses a forced detach while the instance may be writing.
func (a *Activities) mayForce(ctx context.Context, node string) error {
	i, err := a.instance(ctx, node)
	if r, ok := contract.AsRefusal(err); ok && r.Code == contract.NodeUnknown {
		return nil
	}
	if err != nil {
		return err
	}
	if running(i) {
		return contract.Refuse(contract.DiskBusy, "instance %s is %s: a forced detach would tear the disk away from it", node, stateOf(i)).
			WithNext("stop the instance first")
	}
	return nil
}
