package conformance

import (
	"crypto/rand"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
)

// absent ids are well-formed and of nothing.
const (
	absentVolume   = "vol-0ffffffffffffffff"
	absentSnapshot = "snap-0ffffffffffffffff"
	absentInstance = "i-0ffffffffffffffff"
)

func (s *suite) volume(t *testing.T) {
	id := s.create(t, func(in *ec2.CreateVolumeInput) {
		in.TagSpecifications = s.tagSpec(types.ResourceTypeVolume, types.Tag{Key: aws.String("Name"), Value: aws.String("a volume & <more>")})
	})
	v := s.waitAvailable(t, id)
	require.Equal(t, s.Zone, *v.AvailabilityZone)
	require.EqualValues(t, 1, *v.Size)
	require.Equal(t, types.VolumeTypeGp3, v.VolumeType)
	require.EqualValues(t, 3000, *v.Iops)
	require.EqualValues(t, 125, *v.Throughput)
	require.NotNil(t, v.CreateTime)
	require.Empty(t, v.Attachments)
	require.Equal(t, map[string]string{runTag: s.run, "Name": "a volume & <more>"}, tagMap(v.Tags))

	s.eventually(t, "status of "+id, func() (bool, error) {
		out, err := s.Client.DescribeVolumeStatus(t.Context(), &ec2.DescribeVolumeStatusInput{VolumeIds: []string{id}})
		if code(err) == "InvalidVolume.NotFound" {
			return false, nil // a stale answer
		}
		if err != nil {
			return false, err
		}
		return out.VolumeStatuses[0].VolumeStatus.Status == types.VolumeStatusInfoStatusOk, nil
	})

	_, err := s.Client.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &id})
	require.NoError(t, err)
	s.eventually(t, id+" gone", func() (bool, error) {
		v, err := s.look(t.Context(), id)
		if v != nil && v.State != types.VolumeStateDeleting {
			return false, err // a stale answer
		}
		return v == nil, err
	})
	_, err = s.Client.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &id})
	requireCode(t, err, "InvalidVolume.NotFound")
}

func (s *suite) clientToken(t *testing.T) {
	token := rand.Text()
	id := s.create(t, func(in *ec2.CreateVolumeInput) { in.ClientToken = &token })
	again := s.create(t, func(in *ec2.CreateVolumeInput) { in.ClientToken = &token })
	require.Equal(t, id, again, "the same request and token name the same volume")

	_, err := s.Client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: &s.Zone, Size: aws.Int32(2), VolumeType: types.VolumeTypeGp3, ClientToken: &token,
		TagSpecifications: s.tagSpec(types.ResourceTypeVolume),
	})
	requireCode(t, err, "IdempotentParameterMismatch")

	s.discard(t, id)
	_, err = s.Client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: &s.Zone, Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3, ClientToken: &token,
		TagSpecifications: s.tagSpec(types.ResourceTypeVolume),
	})
	requireCode(t, err, "IdempotentParameterMismatch")
}

func (s *suite) volumeTypes(t *testing.T) {
	for _, test := range []struct {
		typ              types.VolumeType
		size             int32
		iops, throughput *int32
		code             string
	}{
		{types.VolumeTypeGp3, 0, nil, nil, "InvalidParameterValue"},
		{types.VolumeTypeGp3, 70000, nil, nil, "InvalidParameterValue"},
		{types.VolumeTypeGp3, 10, aws.Int32(2000), nil, "InvalidParameterValue"},
		{types.VolumeTypeGp3, 10, aws.Int32(6000), nil, "InvalidParameterValue"}, // over 500 per GiB
		{types.VolumeTypeGp3, 10, nil, aws.Int32(1000), "InvalidParameterValue"}, // over 0.25 per IOPS
		{types.VolumeTypeGp2, 10, aws.Int32(3000), nil, "InvalidParameterCombination"},
		{types.VolumeTypeIo2, 10, nil, nil, "MissingParameter"},
		{types.VolumeTypeSt1, 100, nil, nil, "InvalidParameterValue"},
	} {
		out, err := s.Client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
			AvailabilityZone: &s.Zone, Size: aws.Int32(test.size), VolumeType: test.typ, Iops: test.iops, Throughput: test.throughput,
		})
		if err == nil {
			t.Cleanup(func() { s.discard(t, *out.VolumeId) })
		}
		requireCode(t, err, test.code)
	}
	id := s.create(t, func(in *ec2.CreateVolumeInput) { in.VolumeType, in.Size = "", aws.Int32(40) })
	v := s.waitAvailable(t, id)
	require.Equal(t, types.VolumeTypeGp2, v.VolumeType, "the default")
	require.EqualValues(t, 120, *v.Iops, "3 IOPS per GiB")
}

func (s *suite) badRequests(t *testing.T) {
	ctx := t.Context()
	c := s.Client
	for _, test := range []struct {
		name string
		call func() error
		code string
	}{
		{"unknown volume", func() error {
			_, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{absentVolume}})
			return err
		}, "InvalidVolume.NotFound"},
		{"malformed volume id", func() error {
			_, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{"disk-1"}})
			return err
		}, "InvalidParameterValue"},
		{"delete unknown volume", func() error {
			_, err := c.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(absentVolume)})
			return err
		}, "InvalidVolume.NotFound"},
		{"attach unknown volume", func() error {
			_, err := c.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: aws.String(absentVolume), InstanceId: &s.InstanceID, Device: &s.Devices[0]})
			return err
		}, "InvalidVolume.NotFound"},
		{"modify unknown volume", func() error {
			_, err := c.ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: aws.String(absentVolume), Size: aws.Int32(2)})
			return err
		}, "InvalidVolume.NotFound"},
		{"snapshot of unknown volume", func() error {
			_, err := c.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: aws.String(absentVolume)})
			return err
		}, "InvalidVolume.NotFound"},
		{"unknown snapshot", func() error {
			_, err := c.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{absentSnapshot}})
			return err
		}, "InvalidSnapshot.NotFound"},
		{"unknown instance", func() error {
			_, err := c.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{absentInstance}})
			return err
		}, "InvalidInstanceID.NotFound"},
		{"unknown filter", func() error {
			_, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("colour"), Values: []string{"red"}}}})
			return err
		}, "InvalidParameterValue"},
		{"neither size nor snapshot", func() error {
			_, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: &s.Zone})
			return err
		}, "MissingParameter"},
		{"key without encryption", func() error {
			_, err := c.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: &s.Zone, Size: aws.Int32(1), KmsKeyId: aws.String("alias/aws/ebs")})
			return err
		}, "InvalidParameterDependency"},
		{"ids with page size", func() error {
			_, err := c.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{absentVolume}, MaxResults: aws.Int32(10)})
			return err
		}, "InvalidParameterCombination"},
	} {
		t.Run(test.name, func(t *testing.T) { requireCode(t, test.call(), test.code) })
	}
}

func (s *suite) dryRun(t *testing.T) {
	_, err := s.Client.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: &s.Zone, Size: aws.Int32(1), DryRun: aws.Bool(true),
	})
	requireCode(t, err, "DryRunOperation")
}

func (s *suite) encryption(t *testing.T) {
	id := s.create(t, func(in *ec2.CreateVolumeInput) { in.Encrypted = aws.Bool(true) })
	v := s.waitAvailable(t, id)
	require.True(t, *v.Encrypted)
	require.Contains(t, *v.KmsKeyId, ":key/")

	snap := s.createSnapshot(t, id)
	require.True(t, *snap.Encrypted)
	require.Equal(t, *v.KmsKeyId, *snap.KmsKeyId)
	restored := s.create(t, func(in *ec2.CreateVolumeInput) { in.SnapshotId, in.Size = snap.SnapshotId, nil })
	r := s.waitAvailable(t, restored)
	require.True(t, *r.Encrypted)
	require.Equal(t, *v.KmsKeyId, *r.KmsKeyId)
}
