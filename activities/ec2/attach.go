package ec2

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// deviceNames are tried in this order. On Nitro the name is only a label, but
// EC2 wants it unique per instance. They are more than the 128 volumes that an
// instance type takes at most. EC2 accepts nothing after xvddx. The last ones name
// the same as sdf to sdp on Xen, where at most 40 volumes are attached and other
// names are left.
func deviceNames() []string {
	var names []string
	add := func(prefix string, from, to rune) {
		for c := from; c <= to; c++ {
			names = append(names, prefix+string(c))
		}
	}
	add("/dev/sd", 'f', 'p')
	for _, prefix := range []string{"/dev/xvdb", "/dev/xvdc", "/dev/xvda"} {
		add(prefix, 'a', 'z')
	}
	add("/dev/xvdd", 'a', 'x')
	add("/dev/xvd", 'e', 'z')
	return names
}

// AttachVolume implements contract.AttachVolume.
func (a *Activities) AttachVolume(ctx context.Context, in contract.AttachVolumeInput) (contract.VolumeFacts, error) {
	f, err := a.attach(ctx, in)
	return f, translate(err, in.Disk, in.Volume)
}

func (a *Activities) attach(ctx context.Context, in contract.AttachVolumeInput) (contract.VolumeFacts, error) {
	v, err := a.ours(ctx, in.Disk, in.Volume)
	if err != nil {
		return contract.VolumeFacts{}, err
	}
	f := facts(v)
	taken := map[string]bool{} // names EC2 said are in use
	until := time.Now().Add(a.Settle)
	asked := false
	var since time.Time // described as attached, though not asked for here
	under := underway{patience: patience(in.Patience)}
	err = a.poll(ctx, fmt.Sprintf("volume %s is attached to %s", in.Volume, in.Node), func(ctx context.Context) (bool, error) {
		now := time.Now() // what is seen is no newer than the question
		got, err := a.volume(ctx, in.Volume)
		if err != nil || got == nil {
			return false, err
		}
		f = facts(*got)
		elsewhere := f.Node != "" && f.Node != in.Node
		switch {
		case f.Node == in.Node && f.AttachState == string(types.VolumeAttachmentStateAttached):
			// One describe may be from before the volume was last detached.
			if since.IsZero() {
				since = now
			}
			return asked || now.Sub(since) >= a.Settle/4, nil
		case f.State == string(types.VolumeStateError):
			return false, contract.Refuse(contract.VolumeFailing, "EC2 says that the volume is in the state error: it cannot be attached").
				WithNext("if it was made for this operation, start again: another one is made; if it holds the disk, bring the disk back from a snapshot (docs/recovery.md)")
		case leaving(f) || f.AttachState == string(types.VolumeAttachmentStateAttaching) && !elsewhere:
			return under.stuck(f), nil
		case elsewhere && now.Before(until):
			return false, nil // it may have been detached a moment ago
		case elsewhere:
			return false, contract.Refuse(contract.DiskBusy, "the volume is attached to %s", f.Node).WithNext("bring the disk from there to its node: ebb disk move --node")
		case f.State == string(types.VolumeStateAvailable):
			under, since = underway{patience: under.patience}, time.Time{}
			done, err := a.tryAttach(ctx, in, taken)
			asked = asked || done
			return false, err
		}
		return false, nil
	})
	switch {
	case err != nil || !under.over:
		return f, err
	case f.Node != in.Node:
		return f, detachStuck(f, under.patience)
	}
	return a.giveUpAttach(ctx, in, f, under.patience)
}

// giveUpAttach takes a volume off again whose attachment does not get to its
// end, so that nothing of it is left when it is tried again or undone.
func (a *Activities) giveUpAttach(ctx context.Context, in contract.AttachVolumeInput, f contract.VolumeFacts, after time.Duration) (contract.VolumeFacts, error) {
	a.Log.Warn("An attachment is stuck; detaching the volume", "disk", in.Disk, "volume", in.Volume, "node", in.Node, "state", f.AttachState, "after", after)
	f, err := a.detach(ctx, contract.DetachVolumeInput{Disk: in.Disk, Volume: in.Volume, Node: in.Node, Fresh: in.Fresh, Patience: in.Patience})
	if err != nil {
		return f, err
	}
	return f, contract.Refuse(contract.AttachStuck, "EBS did not finish attaching the volume to instance %s within %s; it was detached again", in.Node, after).
		WithNext("start again; if it stays so, look at the instance's status checks and reboot it, or use another node")
}

// tryAttach asks once, and says whether EC2 took it. What another run may have done
// meanwhile, and a volume that is not ready for it, is left to the next look.
func (a *Activities) tryAttach(ctx context.Context, in contract.AttachVolumeInput, taken map[string]bool) (bool, error) {
	i, err := a.instance(ctx, in.Node)
	if err != nil {
		return false, err
	}
	if stateOf(i) != types.InstanceStateNameRunning {
		return false, contract.Refuse(contract.NodeUnknown, "instance %s is %s", in.Node, stateOf(i)).WithNext("start the instance, or use another one")
	}
	name := freeName(i, taken, in.Try-1)
	if name == "" {
		return false, contract.Refuse(contract.AttachSlotsFull, "instance %s has no free device name", in.Node).WithNext("detach a volume from the node, or use another one")
	}
	_, err = a.api.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &in.Volume, InstanceId: &in.Node, Device: &name})
	switch c := code(err); {
	case c == codeInvalidParameter && strings.Contains(err.Error(), "in use"):
		taken[name] = true
		return false, nil
	case c == codeVolumeInUse, c == codeIncorrectState:
		return false, nil
	}
	return err == nil, err
}

// freeName is a device name that is free, the first after skip others where
// there are as many.
func freeName(i types.Instance, taken map[string]bool, skip int) string {
	used := map[string]bool{aws.ToString(i.RootDeviceName): true}
	for _, m := range i.BlockDeviceMappings {
		used[aws.ToString(m.DeviceName)] = true
	}
	name := ""
	for _, n := range deviceNames() {
		if used[n] || taken[n] {
			continue
		}
		if name = n; skip <= 0 {
			break
		}
		skip--
	}
	return name
}
