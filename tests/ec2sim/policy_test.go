package ec2sim_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

func TestPolicy(t *testing.T) {
	s, c := start(t, ec2sim.Options{Policy: `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"},
		{"Effect": "Allow", "Action": "ec2:CreateVolume", "Resource": "arn:aws:ec2:*:*:volume/*", "Condition": {"StringLike": {"aws:RequestTag/disk": "d-*"}}},
		{"Effect": "Allow", "Action": ["ec2:DeleteVolume", "ec2:AttachVolume"], "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceTag/disk": ["d-1", "d-2"]}}},
		{"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "*", "Condition": {"StringEquals": {"ec2:CreateAction": "CreateVolume"}}}
	]}`})
	try := func(tag string) (string, error) {
		in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String(zone), Size: aws.Int32(1)}
		if tag != "" {
			in.TagSpecifications = []types.TagSpecification{{
				ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("disk"), Value: &tag}},
			}}
		}
		out, err := c.CreateVolume(t.Context(), in)
		if err != nil {
			return "", err
		}
		return *out.VolumeId, nil
	}
	const no = "UnauthorizedOperation"
	_, err := try("")
	requireCode(t, err, no)
	_, err = try("x")
	requireCode(t, err, no)
	require.Empty(t, s.Volumes())
	mine, err := try("d-1")
	require.NoError(t, err)
	other, err := try("d-3")
	require.NoError(t, err)
	require.EqualValues(t, 1, *describe(t, c, mine).Size)

	tags := []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
	_, err = c.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{mine}, Tags: tags})
	requireCode(t, err, no) // only when a volume is created
	require.ErrorContains(t, err, "perform: ec2:CreateTags on resource: arn:aws:ec2:us-east-1:123456789012:volume/"+mine)
	_, err = c.AttachVolume(t.Context(), &ec2.AttachVolumeInput{VolumeId: &mine, InstanceId: aws.String(inst1), Device: aws.String("/dev/sdf")})
	requireCode(t, err, no) // the instance has no such tag
	_, err = c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &other})
	requireCode(t, err, no)
	_, err = c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: aws.String("vol-00000000000000001")})
	requireCode(t, err, "InvalidVolume.NotFound")
	_, err = c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &mine})
	require.NoError(t, err)
	requireCode(t, modify(c, other, 2), no)

	require.NoError(t, s.SetPolicy(""))
	require.NoError(t, modify(c, other, 2))
	for _, bad := range []string{
		`{"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}`,
		`{"Statement": [{"Effect": "Allow", "NotAction": "*", "Resource": "*"}]}`,
		`{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"Bool": {"aws:x": "true"}}}]}`,
		`{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"StringLike": {"ec2:ResourceTag/x": "y"}}}]}`,
		`{`,
	} {
		require.Error(t, s.SetPolicy(bad), bad)
	}
}
