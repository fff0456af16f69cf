package conformance

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
)

// createSnapshot takes a snapshot and waits until it is complete.
func (s *suite) createSnapshot(t *testing.T, volumeID string) *types.Snapshot {
	t.Helper()
	out, err := s.Client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{
		VolumeId: &volumeID, Description: aws.String("conformance"), TagSpecifications: s.tagSpec(types.ResourceTypeSnapshot),
	})
	require.NoError(t, err)
	require.Equal(t, volumeID, *out.VolumeId)
	s.dropSnapshot(t, *out.SnapshotId)
	return s.waitSnapshot(t, *out.SnapshotId)
}

func (s *suite) dropSnapshot(t *testing.T, id string) {
	t.Cleanup(func() {
		_, err := s.Client.DeleteSnapshot(context.Background(), &ec2.DeleteSnapshotInput{SnapshotId: &id})
		if err != nil && code(err) != "InvalidSnapshot.NotFound" {
			t.Errorf("snapshot %s is left behind: %v", id, err)
		}
	})
}

func (s *suite) waitSnapshot(t *testing.T, id string) *types.Snapshot {
	t.Helper()
	var got types.Snapshot
	s.eventually(t, id+" completed", func() (bool, error) {
		out, err := s.Client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}})
		if code(err) == "InvalidSnapshot.NotFound" {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		got = out.Snapshots[0]
		require.NotEqual(t, types.SnapshotStateError, got.State)
		return got.State == types.SnapshotStateCompleted, nil
	})
	return &got
}

func (s *suite) snapshot(t *testing.T) {
	vol := s.create(t, nil)
	snap := s.createSnapshot(t, vol)
	require.EqualValues(t, 1, *snap.VolumeSize)
	require.Equal(t, "100%", *snap.Progress)
	require.Equal(t, "conformance", *snap.Description)
	require.Equal(t, s.run, tagMap(snap.Tags)[runTag])

	same := s.create(t, func(in *ec2.CreateVolumeInput) { in.SnapshotId, in.Size = snap.SnapshotId, nil })
	v := s.waitAvailable(t, same)
	require.EqualValues(t, 1, *v.Size)
	require.Equal(t, *snap.SnapshotId, *v.SnapshotId)
	larger := s.create(t, func(in *ec2.CreateVolumeInput) { in.SnapshotId, in.Size = snap.SnapshotId, aws.Int32(2) })
	second := s.createSnapshot(t, larger)
	_, err := s.Client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: &s.Zone, SnapshotId: second.SnapshotId, Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3,
	})
	requireCode(t, err, "InvalidParameterValue")

	// A snapshot outlives its volume.
	s.discard(t, vol)
	s.waitSnapshot(t, *snap.SnapshotId)
	_, err = s.Client.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	require.NoError(t, err)
	_, err = s.Client.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	requireCode(t, err, "InvalidSnapshot.NotFound")
}

func (s *suite) instanceSnapshots(t *testing.T) {
	ids := map[string]bool{}
	for _, device := range s.Devices {
		id := s.create(t, nil)
		require.NoError(t, s.attach(t, id, device))
		s.waitAttachment(t, id, types.VolumeAttachmentStateAttached)
		ids[id] = true
	}
	out, err := s.Client.CreateSnapshots(t.Context(), &ec2.CreateSnapshotsInput{
		InstanceSpecification: &types.InstanceSpecification{InstanceId: &s.InstanceID, ExcludeBootVolume: aws.Bool(true)},
		CopyTagsFromSource:    types.CopyTagsFromSourceVolume,
	})
	require.NoError(t, err)
	for _, snap := range out.Snapshots {
		s.dropSnapshot(t, *snap.SnapshotId)
		if ids[*snap.VolumeId] {
			require.Equal(t, s.run, tagMap(snap.Tags)[runTag], "copied from the volume")
			s.waitSnapshot(t, *snap.SnapshotId)
		}
		delete(ids, *snap.VolumeId)
	}
	require.Empty(t, ids, "volumes without a snapshot")
}
