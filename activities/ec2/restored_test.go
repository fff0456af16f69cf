package ec2_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// TestRestoredWithItsTags: a backup tool that restores the tags too makes no part of
// the disk, attached or not.
func TestRestoredWithItsTags(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe = 0 })
	own := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{vol(disk, contract.RoleActive, 3, 0, nodeB)}})[0]
	is, _ := f.sim.Volume(own)
	s, err := f.api.CreateSnapshot(t.Context(), &awsec2.CreateSnapshotInput{VolumeId: &own})
	require.NoError(t, err)
	restore := func(role contract.Role) string {
		t.Helper()
		tags := []types.Tag{}
		for k, v := range is.Tags {
			if k == contract.TagRole {
				v = string(role)
			}
			tags = append(tags, types.Tag{Key: aws.String(k), Value: aws.String(v)})
		}
		var out *awsec2.CreateVolumeOutput
		require.Eventually(t, func() bool { // the snapshot is complete
			out, err = f.api.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{
				AvailabilityZone: aws.String(zone), SnapshotId: s.SnapshotId, TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: tags}},
			})
			return err == nil
		}, 10*time.Second, 5*time.Millisecond)
		return aws.ToString(out.VolumeId)
	}
	for _, role := range []contract.Role{contract.RoleActive, contract.RoleRetired, contract.RoleIncoming} {
		id := restore(role)
		if role == contract.RoleActive {
			require.Eventually(t, func() bool {
				_, err := f.api.AttachVolume(t.Context(), &awsec2.AttachVolumeInput{VolumeId: &id, InstanceId: aws.String(nodeA), Device: aws.String("/dev/sdf")})
				return err == nil
			}, 10*time.Second, 5*time.Millisecond)
		}
		_, err := f.DeleteVolume(t.Context(), contract.DeleteVolumeInput{Disk: disk, Volume: id, Roles: []contract.Role{role}})
		r := refused(t, err, contract.VolumeForeign)
		require.Equal(t, id, r.Volume)
		require.Contains(t, r.Message, "snapshot")
		_, err = f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: id})
		refused(t, err, contract.VolumeForeign)
	}
	d, err := f.DescribeDisk(t.Context(), contract.DescribeDiskInput{Disk: disk})
	require.NoError(t, err)
	require.Len(t, d.Volumes, 1)
	require.Equal(t, own, d.Volumes[0].ID)
	require.Equal(t, nodeB, d.Node())
	l, err := f.ListDisks(t.Context(), contract.ListDisksInput{})
	require.NoError(t, err)
	require.Len(t, l.Disks, 1)
	require.Len(t, l.Disks[0].Volumes, 1)
	left, err := f.Leftovers(t.Context(), 0, 0, time.Hour)
	require.NoError(t, err)
	require.Empty(t, left)
	fleet, err := f.Fleet(t.Context())
	require.NoError(t, err)
	require.Zero(t, fleet.ExtraGiB)
}
