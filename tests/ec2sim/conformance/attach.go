package conformance

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
)

func (s *suite) attach(t *testing.T, id, device string) error {
	t.Helper()
	_, err := s.Client.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: &s.InstanceID, Device: &device})
	return err
}

func (s *suite) detach(t *testing.T, id string) error {
	t.Helper()
	_, err := s.Client.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &id})
	return err
}

func (s *suite) attachDetach(t *testing.T) {
	id := s.create(t, nil)
	requireCode(t, s.detach(t, id), "IncorrectState")

	require.NoError(t, s.attach(t, id, s.Devices[0]))
	v := s.waitAttachment(t, id, types.VolumeAttachmentStateAttached)
	require.Equal(t, types.VolumeStateInUse, v.State)
	require.Equal(t, s.InstanceID, *v.Attachments[0].InstanceId)
	require.Equal(t, s.Devices[0], *v.Attachments[0].Device)
	require.False(t, *v.Attachments[0].DeleteOnTermination)

	requireCode(t, s.attach(t, id, s.Devices[1]), "VolumeInUse")
	other := s.create(t, nil)
	requireCode(t, s.attach(t, other, s.Devices[0]), "InvalidParameterValue")
	_, err := s.Client.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &id})
	requireCode(t, err, "VolumeInUse")
	s.eventually(t, "the instance's block devices", func() (bool, error) {
		out, err := s.Client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{s.InstanceID}})
		if err != nil {
			return false, err
		}
		for _, m := range out.Reservations[0].Instances[0].BlockDeviceMappings {
			if m.Ebs != nil && *m.Ebs.VolumeId == id {
				return m.Ebs.Status == types.AttachmentStatusAttached, nil
			}
		}
		return false, nil
	})

	_, err = s.Client.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &id, InstanceId: aws.String(absentInstance)})
	requireCode(t, err, "InvalidAttachment.NotFound")
	require.NoError(t, s.detach(t, id))
	s.waitAttachment(t, id, "")
}

func (s *suite) zoneMismatch(t *testing.T) {
	if s.OtherZone == "" {
		t.Skip("no other zone")
	}
	id := s.create(t, func(in *ec2.CreateVolumeInput) { in.AvailabilityZone = &s.OtherZone })
	requireCode(t, s.attach(t, id, s.Devices[0]), "InvalidVolume.ZoneMismatch")
}

// attachmentLimit fills the instance's slots. Its type says how many there are at
// most; the root volume and, with a shared limit, network interfaces take some.
func (s *suite) attachmentLimit(t *testing.T) {
	out, err := s.Client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{s.InstanceID}})
	require.NoError(t, err)
	i := out.Reservations[0].Instances[0]
	tout, err := s.Client.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{i.InstanceType}})
	require.NoError(t, err)
	most := int(*tout.InstanceTypes[0].EbsInfo.MaximumEbsAttachments) - len(i.BlockDeviceMappings)
	for n := range most + 1 {
		id := s.create(t, nil)
		err := s.attach(t, id, fmt.Sprintf("/dev/xvd%c%c", 'c'+n/26, 'a'+n%26))
		if code(err) == "AttachmentLimitExceeded" {
			require.Positive(t, n, "no slot was free")
			v := s.waitAvailable(t, id)
			require.Empty(t, v.Attachments, "a refused attachment leaves the volume as it was")
			return
		}
		require.NoError(t, err, "volume %d of at most %d", n+1, most)
		s.waitAttachment(t, id, types.VolumeAttachmentStateAttached)
	}
	t.Errorf("instance %s took more volumes than its type allows", s.InstanceID)
}

// deleteOnTermination tells what an instance takes with it: only volumes that are
// marked so, and AttachVolume marks none.
func (s *suite) deleteOnTermination(t *testing.T) {
	if s.Expendable == "" {
		t.Skip("no instance that may be terminated")
	}
	keep, drop := s.create(t, nil), s.create(t, nil)
	for n, id := range []string{keep, drop} {
		_, err := s.Client.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &id, InstanceId: &s.Expendable, Device: &s.Devices[n]})
		require.NoError(t, err)
		v := s.waitAttachment(t, id, types.VolumeAttachmentStateAttached)
		require.False(t, *v.Attachments[0].DeleteOnTermination)
	}
	_, err := s.Client.ModifyInstanceAttribute(t.Context(), &ec2.ModifyInstanceAttributeInput{
		InstanceId: &s.Expendable,
		BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{{
			DeviceName: &s.Devices[1], Ebs: &types.EbsInstanceBlockDeviceSpecification{DeleteOnTermination: aws.Bool(true)},
		}},
	})
	require.NoError(t, err)
	s.waitVolumeFor(t, drop, "is marked", func(v *types.Volume) bool {
		return len(v.Attachments) == 1 && *v.Attachments[0].DeleteOnTermination
	})
	_, err = s.Client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{s.Expendable}})
	require.NoError(t, err)
	s.eventually(t, drop+" is gone", func() (bool, error) {
		v, err := s.look(t.Context(), drop)
		return v == nil, err
	})
	v := s.waitAvailable(t, keep)
	require.Empty(t, v.Attachments, "kept, and free")
}

func (s *suite) modify(t *testing.T) {
	id := s.create(t, nil)
	_, err := s.Client.DescribeVolumesModifications(t.Context(), &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{id}})
	requireCode(t, err, "InvalidVolumeModification.NotFound", "InvalidVolume.NotFound") // the latter when stale
	_, err = s.Client.ModifyVolume(t.Context(), &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(0)})
	require.Error(t, err, "a volume cannot shrink")

	out, err := s.Client.ModifyVolume(t.Context(), &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(2)})
	require.NoError(t, err)
	m := out.VolumeModification
	require.EqualValues(t, 1, *m.OriginalSize)
	require.EqualValues(t, 2, *m.TargetSize)
	require.EqualValues(t, 3000, *m.TargetIops, "kept")
	require.NotNil(t, m.StartTime)
	begun := m.StartTime.Unix()

	// Until it is completed a second one is refused; the new size counts from
	// "optimizing" on.
	var state types.VolumeModificationState
	s.eventually(t, "modification of "+id, func() (bool, error) {
		out, err := s.Client.DescribeVolumesModifications(t.Context(), &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{id}})
		if c := code(err); c == "InvalidVolumeModification.NotFound" || c == "InvalidVolume.NotFound" {
			return false, nil // a stale answer
		}
		if err != nil {
			return false, err
		}
		state = out.VolumesModifications[0].ModificationState
		return state == types.VolumeModificationStateOptimizing || state == types.VolumeModificationStateCompleted, nil
	})
	if state == types.VolumeModificationStateOptimizing {
		s.underWay(t, id, begun)
	}
	s.waitVolumeFor(t, id, "size 2", func(v *types.Volume) bool { return *v.Size == 2 })
	if state == types.VolumeModificationStateOptimizing {
		_, err = s.Client.ModifyVolume(t.Context(), &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(3)})
		if err != nil { // nil when it completed since
			requireCode(t, err, "IncorrectModificationState")
		}
	}
	_, err = s.Client.ModifyVolume(t.Context(), &ec2.ModifyVolumeInput{VolumeId: &id, Size: aws.Int32(1)})
	requireCode(t, err, "InvalidParameterValue", "IncorrectModificationState")
	require.NoError(t, s.attach(t, id, s.Devices[0]), "attaching while optimizing")
	s.waitAttachment(t, id, types.VolumeAttachmentStateAttached)
}

// underWay finds a modification in the list of those that are not complete. It
// begins at the same time whenever it is asked for.
func (s *suite) underWay(t *testing.T, id string, begun int64) {
	s.eventually(t, "list of modifications with "+id, func() (bool, error) {
		p := ec2.NewDescribeVolumesModificationsPaginator(s.Client, &ec2.DescribeVolumesModificationsInput{
			Filters:    []types.Filter{{Name: aws.String("modification-state"), Values: []string{"modifying", "optimizing"}}},
			MaxResults: aws.Int32(500),
		})
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			if err != nil {
				return false, err
			}
			for _, m := range out.VolumesModifications {
				if *m.VolumeId == id {
					require.Equal(t, begun, m.StartTime.Unix())
					return true, nil
				}
			}
		}
		last, err := s.Client.DescribeVolumesModifications(t.Context(), &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{id}})
		if err != nil {
			return false, nil // a stale answer
		}
		m := last.VolumesModifications[0]
		return m.ModificationState == types.VolumeModificationStateCompleted && m.StartTime.Unix() == begun, nil
	})
}

func (s *suite) instances(t *testing.T) {
	out, err := s.Client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{s.InstanceID}})
	require.NoError(t, err)
	i := out.Reservations[0].Instances[0]
	require.Equal(t, s.InstanceID, *i.InstanceId)
	require.Equal(t, s.Zone, *i.Placement.AvailabilityZone)
	require.Equal(t, types.InstanceStateNameRunning, i.State.Name)

	tout, err := s.Client.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{i.InstanceType}})
	require.NoError(t, err)
	info := tout.InstanceTypes[0].EbsInfo
	require.NotNil(t, info.MaximumEbsAttachments)
	require.Contains(t, info.AttachmentLimitType.Values(), info.AttachmentLimitType)
}

func (s *suite) zonesAndTypes(t *testing.T) {
	out, err := s.Client.DescribeAvailabilityZones(t.Context(), &ec2.DescribeAvailabilityZonesInput{ZoneNames: []string{s.Zone}})
	require.NoError(t, err)
	require.Len(t, out.AvailabilityZones, 1)
	require.Equal(t, types.AvailabilityZoneStateAvailable, out.AvailabilityZones[0].State)
	require.NotEmpty(t, *out.AvailabilityZones[0].ZoneId)

	tout, err := s.Client.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{
		InstanceTypes: []types.InstanceType{types.InstanceTypeM5Large, types.InstanceTypeM7iLarge},
	})
	require.NoError(t, err)
	limits := map[types.InstanceType]types.AttachmentLimitType{}
	for _, it := range tout.InstanceTypes {
		limits[it.InstanceType] = it.EbsInfo.AttachmentLimitType
	}
	require.Equal(t, map[types.InstanceType]types.AttachmentLimitType{
		types.InstanceTypeM5Large:  types.AttachmentLimitTypeShared,
		types.InstanceTypeM7iLarge: types.AttachmentLimitTypeDedicated,
	}, limits)
	_, err = s.Client.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"z99.huge"}})
	requireCode(t, err, "InvalidInstanceType")
}
