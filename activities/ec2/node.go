package ec2

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// sharedSlots is the attachment limit of a Nitro instance whose type does not
// say: volumes, network interfaces and instance store volumes together.
const sharedSlots = 28

// instance describes an instance; NodeUnknown when EC2 does not know it.
func (a *Activities) instance(ctx context.Context, id string) (types.Instance, error) {
	unknown := contract.Refuse(contract.NodeUnknown, "EC2 does not know instance %s", id).
		WithNext("check the instance id, the region and the account")
	out, err := a.api.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if code(err) == codeInstanceNotFound {
		return types.Instance{}, unknown
	}
	if err != nil {
		return types.Instance{}, err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			return i, nil
		}
	}
	return types.Instance{}, unknown
}

func stateOf(i types.Instance) types.InstanceStateName {
	if i.State == nil {
		return ""
	}
	return i.State.Name
}

// running says that the instance may be using its volumes.
func running(i types.Instance) bool {
	switch stateOf(i) {
	case types.InstanceStateNameStopped, types.InstanceStateNameTerminated:
		return false
	}
	return true
}

// DescribeNode implements contract.DescribeNode.
func (a *Activities) DescribeNode(ctx context.Context, in contract.DescribeNodeInput) (contract.NodeFacts, error) {
	i, err := a.instance(ctx, in.Node)
	if err != nil {
		return contract.NodeFacts{}, translate(err, "", "")
	}
	f := contract.NodeFacts{Node: in.Node, State: string(stateOf(i)), Type: string(i.InstanceType)}
	if i.Placement != nil {
		f.Zone = aws.ToString(i.Placement.AvailabilityZone)
	}
	f.FreeSlots, err = a.freeSlots(ctx, i)
	return f, translate(err, "", "")
}

// freeSlots counts what can still be attached.
func (a *Activities) freeSlots(ctx context.Context, i types.Instance) (int, error) {
	out, err := a.api.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{i.InstanceType}})
	if err != nil {
		return 0, err
	}
	most, shared, local := sharedSlots, true, 0
	for _, t := range out.InstanceTypes {
		if t.EbsInfo != nil {
			if n := aws.ToInt32(t.EbsInfo.MaximumEbsAttachments); n > 0 {
				most = int(n)
			}
			shared = t.EbsInfo.AttachmentLimitType != types.AttachmentLimitTypeDedicated
		}
		if t.InstanceStorageInfo != nil {
			for _, d := range t.InstanceStorageInfo.Disks {
				local += int(aws.ToInt32(d.Count))
			}
		}
	}
	used := len(i.BlockDeviceMappings)
	if shared {
		used += len(i.NetworkInterfaces) + local
	}
	return max(most-used, 0), nil
}
