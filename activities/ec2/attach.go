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
// EC2 wants it unique per instance.
func deviceNames() []string {
	var names []string
	for c := 'f'; c <= 'p'; c++ {
		names = append(names, "/dev/sd"+string(c))
	}
	for x := 'b'; x <= 'c'; x++ {
		for c := 'a'; c <= 'z'; c++ {
			names = append(names, "/dev/xvd"+string(x)+string(c))
		}
	}
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
	err = a.poll(ctx, fmt.Sprintf("volume %s is attached to %s", in.Volume, in.Node), func(ctx context.Context) (bool, error) {
		got, err := a.volume(ctx, in.Volume)
		if err != nil || got == nil {
			return false, err
		}
		f = facts(*got)
		switch {
		case f.Node == in.Node && f.AttachState == string(types.VolumeAttachmentStateAttached):
			return true, nil
		case f.AttachState == string(types.VolumeAttachmentStateDetaching) || f.AttachState == string(types.VolumeAttachmentStateAttaching) && f.Node == in.Node:
			return false, nil
		case f.Node != "" && f.Node != in.Node && time.Now().Before(until):
			return false, nil // it may have been detached a moment ago
		case f.Node != "" && f.Node != in.Node:
			return false, contract.Refuse(contract.DiskBusy, "the volume is attached to %s", f.Node).WithNext("rehome the disk from there")
		case f.State == string(types.VolumeStateAvailable):
			return false, a.tryAttach(ctx, in, taken)
		}
		return false, nil
	})
	return f, err
}

// tryAttach asks once. What another run may have done meanwhile, and a volume
// that is not ready for it, is left to the next look.
func (a *Activities) tryAttach(ctx context.Context, in contract.AttachVolumeInput, taken map[string]bool) error {
	i, err := a.instance(ctx, in.Node)
	if err != nil {
		return err
	}
	if stateOf(i) != types.InstanceStateNameRunning {
		return contract.Refuse(contract.NodeUnknown, "instance %s is %s", in.Node, stateOf(i)).WithNext("start the instance, or use another one")
	}
	name := freeName(i, taken)
	if name == "" {
		return contract.Refuse(contract.AttachSlotsFull, "instance %s has no free device name", in.Node).WithNext("detach a volume from the node, or use another one")
	}
	_, err = a.api.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &in.Volume, InstanceId: &in.Node, Device: &name})
	switch c := code(err); {
	case c == codeInvalidParameter && strings.Contains(err.Error(), "in use"):
		taken[name] = true
		return nil
	case c == codeVolumeInUse, c == codeIncorrectState:
		return nil
	}
	return err
}

func freeName(i types.Instance, taken map[string]bool) string {
	used := map[string]bool{aws.ToString(i.RootDeviceName): true}
	for _, m := range i.BlockDeviceMappings {
		used[aws.ToString(m.DeviceName)] = true
	}
	for _, n := range deviceNames() {
		if !used[n] && !taken[n] {
			return n
		}
	}
	return ""
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
	if tagMap(v.Tags)[contract.TagDisk] != string(in.Disk) {
		return contract.VolumeFacts{}, contract.Refuse(contract.VolumeForeign, "the volume's tags do not say that it belongs to the disk").
			WithNext("look at the volume's ebb: tags")
	}
	if in.Force {
		if err := a.mayForce(ctx, in.Node); err != nil {
			return facts(*v), err
		}
	}
	f, asked := facts(*v), false
	err = a.poll(ctx, fmt.Sprintf("volume %s is detached from %s", in.Volume, in.Node), func(ctx context.Context) (bool, error) {
		got, err := a.volume(ctx, in.Volume)
		if err != nil {
			return false, err
		}
		if got == nil {
			f = contract.VolumeFacts{ID: in.Volume, State: string(types.VolumeStateDeleted)}
			return true, nil
		}
		f = facts(*got)
		if f.Node == "" {
			return f.State != string(types.VolumeStateInUse), nil
		}
		if in.Node != "" && f.Node != in.Node {
			return true, nil
		}
		if asked || f.AttachState == string(types.VolumeAttachmentStateDetaching) && !in.Force {
			return false, nil
		}
		_, err = a.api.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &in.Volume, InstanceId: &f.Node, Force: aws.Bool(in.Force)})
		switch code(err) {
		case "":
			asked = err == nil
			return false, err
		case codeIncorrectState, codeVolumeNotFound, "InvalidAttachment.NotFound":
			return false, nil // another run was faster, or it is still attaching
		}
		return false, err
	})
	return f, err
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
