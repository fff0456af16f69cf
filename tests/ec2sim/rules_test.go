package ec2sim_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

func TestLags(t *testing.T) {
	minute := ec2sim.Fixed(time.Minute)
	s, c := start(t, ec2sim.Options{Lag: ec2sim.Lag{
		Create: minute, Delete: minute, Attach: minute, Detach: minute, Modify: minute, Optimize: ec2sim.Fixed(time.Hour), Snapshot: minute,
	}})
	vol := create(t, c, 8)
	require.Equal(t, types.VolumeStateCreating, describe(t, c, vol).State)
	_, err := c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &vol, InstanceId: aws.String(inst1), Device: aws.String("/dev/sdf")})
	requireCode(t, err, "IncorrectState")
	require.NoError(t, s.Advance(time.Minute))
	require.Equal(t, types.VolumeStateAvailable, describe(t, c, vol).State)

	// Attaching fails while modifying, and works while optimizing.
	require.NoError(t, modify(c, vol, 9))
	_, err = c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &vol, InstanceId: aws.String(inst1), Device: aws.String("/dev/sdf")})
	requireCode(t, err, "OperationNotPermitted")
	require.EqualValues(t, 8, *describe(t, c, vol).Size)
	require.NoError(t, s.Advance(time.Minute))
	require.EqualValues(t, 9, *describe(t, c, vol).Size)
	requireCode(t, modify(c, vol, 10), "IncorrectModificationState")
	attach(t, c, vol, inst1, "/dev/sdf")
	require.Equal(t, types.VolumeAttachmentStateAttaching, describe(t, c, vol).Attachments[0].State)
	require.NoError(t, s.Advance(30*time.Minute))
	require.Equal(t, types.VolumeAttachmentStateAttached, describe(t, c, vol).Attachments[0].State)
	out, err := c.DescribeVolumesModifications(t.Context(), &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{vol}})
	require.NoError(t, err)
	require.InDelta(t, 50, *out.VolumesModifications[0].Progress, 2)

	// One long step takes a volume through every transition on the way.
	require.NoError(t, s.Advance(time.Hour))
	require.NoError(t, modify(c, vol, 10))
	require.NoError(t, s.Advance(2*time.Hour))
	v, _ := s.Volume(vol)
	m := v.Modifications[len(v.Modifications)-1]
	require.Equal(t, ec2sim.StateCompleted, m.State)
	require.Equal(t, time.Hour+time.Minute, m.End.Sub(m.Start))
}

func TestFourModificationsInADay(t *testing.T) {
	s, c := start(t, ec2sim.Options{})
	vol := create(t, c, 8)
	require.NoError(t, modify(c, vol, 9))
	require.NoError(t, modify(c, vol, 9), "one that changes nothing is accepted, and counts")
	require.NoError(t, s.Advance(time.Hour))
	require.NoError(t, modify(c, vol, 11))
	require.NoError(t, modify(c, vol, 12))
	requireCode(t, modify(c, vol, 13), "VolumeModificationRateExceeded")
	require.NoError(t, s.Advance(23*time.Hour))
	require.NoError(t, modify(c, vol, 13), "the first two are out of the window")
	require.NoError(t, modify(c, vol, 14))
	requireCode(t, modify(c, vol, 15), "VolumeModificationRateExceeded")
}

func TestPerformanceIsKept(t *testing.T) {
	_, c := start(t, ec2sim.Options{})
	out, err := c.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), Size: aws.Int32(2000), VolumeType: types.VolumeTypeGp2,
	})
	require.NoError(t, err)
	_, err = c.ModifyVolume(t.Context(), &ec2.ModifyVolumeInput{VolumeId: out.VolumeId, VolumeType: types.VolumeTypeGp3})
	require.NoError(t, err)
	v := describe(t, c, *out.VolumeId)
	require.EqualValues(t, 6000, *v.Iops)
	require.EqualValues(t, 250, *v.Throughput)
	_, err = c.ModifyVolume(t.Context(), &ec2.ModifyVolumeInput{VolumeId: out.VolumeId, Size: aws.Int32(2001)})
	require.NoError(t, err)
	require.EqualValues(t, 6000, *describe(t, c, *out.VolumeId).Iops)
	requireCode(t, modify(c, *out.VolumeId, 2000), "InvalidParameterValue")
}

func TestStaleDescribe(t *testing.T) {
	s, c := start(t, ec2sim.Options{StaleDescribe: time.Minute})
	vol := create(t, c, 8)
	_, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{vol}})
	requireCode(t, err, "InvalidVolume.NotFound")
	attach(t, c, vol, inst1, "/dev/sdf") // acting upon it works
	require.NoError(t, s.Advance(time.Minute))
	require.Equal(t, types.VolumeStateInUse, describe(t, c, vol).State)
	_, err = c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	_, err = c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	require.Equal(t, types.VolumeStateInUse, describe(t, c, vol).State, "still seen")
	require.NoError(t, s.Advance(time.Minute))
	out, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{})
	require.NoError(t, err)
	require.Empty(t, out.Volumes)
}

func TestThrottle(t *testing.T) {
	s, c := start(t, ec2sim.Options{Throttle: map[string]ec2sim.Bucket{
		"Describe*": {Burst: 2, Rate: 0.1}, "DescribeTags": {Burst: 1, Rate: 0},
	}})
	look := func() error { _, err := c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{}); return err }
	require.NoError(t, look())
	_, err := c.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{})
	require.NoError(t, err)
	requireCode(t, look(), "RequestLimitExceeded")
	_, err = c.DescribeTags(t.Context(), &ec2.DescribeTagsInput{})
	require.NoError(t, err, "its own bucket")
	create(t, c, 1) // no bucket
	require.NoError(t, s.Advance(10*time.Second))
	require.NoError(t, look())
	requireCode(t, look(), "RequestLimitExceeded")
}

func TestAttachmentLimits(t *testing.T) {
	s, c := start(t, ec2sim.Options{Limits: ec2sim.Limits{Attachments: map[string]ec2sim.AttachmentLimit{
		"t3.large":  {Type: "shared", Max: 4},
		"m7i.large": {Type: "dedicated", Max: 3},
	}}})
	for i, test := range []struct {
		typ   string
		slots int
	}{
		{"t3.large", 2}, // less root volume and network interface
		{"m7i.large", 2},
	} {
		inst := fmt.Sprintf("i-0123456789abcdee%d", i)
		require.NoError(t, s.AddInstance(ec2sim.Instance{ID: inst, Type: test.typ}))
		for n := range test.slots {
			attach(t, c, create(t, c, 1), inst, fmt.Sprintf("/dev/sd%c", 'f'+n))
		}
		_, err := c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{
			VolumeId: aws.String(create(t, c, 1)), InstanceId: &inst, Device: aws.String("/dev/sdz"),
		})
		requireCode(t, err, "AttachmentLimitExceeded")
	}
}

func TestZoneMismatch(t *testing.T) {
	_, c := start(t, ec2sim.Options{})
	_, err := c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{
		VolumeId: aws.String(create(t, c, 1)), InstanceId: aws.String(inst2), Device: aws.String("/dev/sdf"),
	})
	requireCode(t, err, "InvalidVolume.ZoneMismatch")
}

// TestBounds: device names end with xvddx, and 40 volumes may be left out of a snapshot.
func TestBounds(t *testing.T) {
	_, c := start(t, ec2sim.Options{})
	for device, code := range map[string]string{"/dev/xvddx": "", "/dev/xvddy": "InvalidParameterValue", "/dev/xvdea": "InvalidParameterValue"} {
		_, err := c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: aws.String(create(t, c, 1)), InstanceId: aws.String(inst1), Device: &device})
		if code == "" {
			require.NoError(t, err)
		} else {
			requireCode(t, err, code)
		}
	}
	_, err := c.CreateSnapshots(t.Context(), &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{
		InstanceId: aws.String(inst1), ExcludeDataVolumeIds: slices.Repeat([]string{"vol-01234567"}, 41),
	}})
	require.ErrorContains(t, err, "up to 40")
}

func TestBurnedToken(t *testing.T) {
	s, c := start(t, ec2sim.Options{KMSKeys: []string{"alias/ebb"}})
	in := &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), Size: aws.Int32(1), ClientToken: aws.String("disk-1"),
		Encrypted: aws.Bool(true), KmsKeyId: aws.String("alias/other"),
	}
	out, err := c.CreateVolume(t.Context(), in)
	require.NoError(t, err, "the key is looked at later")
	require.Equal(t, types.VolumeStateCreating, out.State)
	_, err = c.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{VolumeIds: []string{*out.VolumeId}})
	requireCode(t, err, "InvalidVolume.NotFound")
	_, err = c.CreateVolume(t.Context(), in)
	requireCode(t, err, "IdempotentParameterMismatch")
	in.ClientToken, in.KmsKeyId = aws.String("disk-1-2"), aws.String("alias/ebb")
	out, err = c.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, types.VolumeStateAvailable, describe(t, c, *out.VolumeId).State)

	require.NoError(t, s.Advance(25*time.Hour))
	in.ClientToken = aws.String("disk-1")
	_, err = c.CreateVolume(t.Context(), in)
	require.NoError(t, err, "tokens are forgotten after a day")
}

func TestTermination(t *testing.T) {
	plug := &fakePlug{}
	s, c := start(t, ec2sim.Options{Plug: plug, PlugTimeout: 20 * time.Millisecond})
	keep, drop := create(t, c, 1), create(t, c, 1)
	attach(t, c, keep, inst1, "/dev/sdf")
	attach(t, c, drop, inst1, "/dev/sdg")
	waitAttachment(t, s, keep, ec2sim.StateAttached)
	waitAttachment(t, s, drop, ec2sim.StateAttached)
	_, err := c.ModifyInstanceAttribute(t.Context(), &ec2.ModifyInstanceAttributeInput{
		InstanceId: aws.String(inst1),
		BlockDeviceMappings: []types.InstanceBlockDeviceMappingSpecification{{
			DeviceName: aws.String("/dev/sdg"), Ebs: &types.EbsInstanceBlockDeviceSpecification{DeleteOnTermination: aws.Bool(true)},
		}},
	})
	require.NoError(t, err)
	require.True(t, *describe(t, c, drop).Attachments[0].DeleteOnTermination)

	plug.set(nil, true) // the node is dead: nothing answers
	_, err = c.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{inst1}})
	require.NoError(t, err)
	waitAttachment(t, s, keep, "")
	require.Eventually(t, func() bool { _, ok := s.Volume(drop); return !ok }, 10*time.Second, 5*time.Millisecond)
	require.Equal(t, types.VolumeStateAvailable, describe(t, c, keep).State)
	_, err = c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &keep, InstanceId: aws.String(inst1), Device: aws.String("/dev/sdf")})
	requireCode(t, err, "IncorrectState")
}

func TestUnknownParameter(t *testing.T) {
	s, _ := start(t, ec2sim.Options{})
	require.Contains(t, get(t, s.URL()+"/?Action=DescribeVolumes&Colour=red"), "<Code>UnknownParameter</Code>")
	require.Contains(t, get(t, s.URL()+"/?Action=RunInstances"), "<Code>InvalidAction</Code>")
	require.Contains(t, get(t, s.URL()+"/?Action=DeleteVolume"), "<Code>MissingParameter</Code>")
}
