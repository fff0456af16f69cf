package ec2_test

import (
	"context"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// TestVolumeInErrorIsNotWaitedFor: EC2 never attaches it.
func TestVolumeInErrorIsNotWaitedFor(t *testing.T) {
	f := start(t)
	f.sim.AddFault(ec2sim.Fault{Action: "CreateVolume", FailAsync: "error"})
	v, err := f.api.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3,
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String(contract.TagDisk), Value: aws.String(string(disk))}}}},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = f.AttachVolume(ctx, contract.AttachVolumeInput{Disk: disk, Volume: aws.ToString(v.VolumeId), Node: nodeA})
	r := refused(t, err, contract.VolumeFailing)
	require.Equal(t, disk, r.Disk)
	require.Equal(t, aws.ToString(v.VolumeId), r.Volume)
	require.Contains(t, r.Message, "error")
}

// TestEverySlotHasADeviceName: what DescribeNode says is free can be attached, also
// where an instance type takes 128 volumes. The simulator counts a root volume that
// it does not describe.
func TestEverySlotHasADeviceName(t *testing.T) {
	const node = "i-0000000000000000d"
	f := start(t, func(o *ec2sim.Options) {
		o.StaleDescribe, o.Lag = 0, ec2sim.Lag{}
		o.Instances = append(o.Instances, ec2sim.Instance{ID: node, Zone: zone, Type: "m7i.48xlarge"})
	})
	free := func() int {
		n, err := f.DescribeNode(t.Context(), contract.DescribeNodeInput{Node: node})
		require.NoError(t, err)
		return n.FreeSlots
	}
	require.Equal(t, 128, free())
	seed := ec2sim.Seed{}
	for range free() - 1 {
		seed.Volumes = append(seed.Volumes, ec2sim.Volume{Shape: ec2sim.Shape{SizeGiB: 1}, Tags: map[string]string{contract.TagDisk: string(disk)}})
	}
	ids, err := f.sim.Seed(seed)
	require.NoError(t, err)
	for _, id := range ids {
		f.attach(id, node)
	}
	require.Equal(t, 1, free())
}
