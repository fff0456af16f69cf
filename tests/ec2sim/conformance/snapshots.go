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

	// One's own are found by id and by tag.
	s.eventually(t, "own snapshots", func() (bool, error) {
		byID, err := s.Client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{
			SnapshotIds: []string{*snap.SnapshotId}, OwnerIds: []string{"self"},
		})
		if code(err) == "InvalidSnapshot.NotFound" {
			return false, nil // a stale answer
		}
		if err != nil {
			return false, err
		}
		byTag, err := s.Client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{
			Filters:  []types.Filter{{Name: aws.String("tag-key"), Values: []string{runTag}}, {Name: aws.String("tag:" + runTag), Values: []string{s.run}}},
			OwnerIds: []string{"self"}, MaxResults: aws.Int32(1000),
		})
		if err != nil {
			return false, err
		}
		found := false
		for _, have := range byTag.Snapshots {
			found = found || *have.SnapshotId == *snap.SnapshotId
		}
		return found && len(byID.Snapshots) == 1, nil
	})

	// A snapshot outlives its volume.
	s.discard(t, vol)
	s.waitSnapshot(t, *snap.SnapshotId)
	_, err = s.Client.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	require.NoError(t, err)
	_, err = s.Client.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	requireCode(t, err, "InvalidSnapshot.NotFound")
}

// snapshotStates finds the snapshots of a volume that are under way, or done.
func (s *suite) snapshotStates(t *testing.T) {
	vol := s.create(t, nil)
	begun, err := s.Client.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &vol, TagSpecifications: s.tagSpec(types.ResourceTypeSnapshot)})
	require.NoError(t, err)
	id := *begun.SnapshotId
	s.dropSnapshot(t, id)
	find := func(states ...types.SnapshotState) (bool, error) {
		in := &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: []types.Filter{
			{Name: aws.String("volume-id"), Values: []string{vol}}, {Name: aws.String("status")},
		}}
		for _, state := range states {
			in.Filters[1].Values = append(in.Filters[1].Values, string(state))
		}
		out, err := s.Client.DescribeSnapshots(t.Context(), in)
		if err != nil || len(out.Snapshots) == 0 {
			return false, err
		}
		require.Len(t, out.Snapshots, 1)
		require.Equal(t, id, *out.Snapshots[0].SnapshotId)
		require.Contains(t, states, out.Snapshots[0].State)
		return true, nil
	}
	s.eventually(t, id+" shows, in whatever state", func() (bool, error) {
		return find(types.SnapshotStatePending, types.SnapshotStateCompleted)
	})
	s.eventually(t, id+" is among the completed", func() (bool, error) { return find(types.SnapshotStateCompleted) })
	s.eventually(t, id+" is no longer among the pending", func() (bool, error) {
		found, err := find(types.SnapshotStatePending)
		return !found, err
	})
	found, err := find(types.SnapshotStateError)
	require.NoError(t, err)
	require.False(t, found, "it did not fail")
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
