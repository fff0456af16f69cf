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
