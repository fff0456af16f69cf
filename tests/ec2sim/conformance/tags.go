package conformance

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
)

func (s *suite) tags(t *testing.T) {
	id := s.create(t, nil)
	set := func(key, value string) error {
		_, err := s.Client.CreateTags(t.Context(), &ec2.CreateTagsInput{
			Resources: []string{id}, Tags: []types.Tag{{Key: &key, Value: &value}},
		})
		return err
	}
	unset := func(tag types.Tag) {
		_, err := s.Client.DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{id}, Tags: []types.Tag{tag}})
		require.NoError(t, err)
	}
	waitTags := func(want map[string]string) {
		t.Helper()
		want[runTag] = s.run
		s.waitVolumeFor(t, id, "tags", func(v *types.Volume) bool {
			return fmt.Sprint(tagMap(v.Tags)) == fmt.Sprint(want)
		})
	}
	require.NoError(t, set("ebb:role", "incoming"))
	require.NoError(t, set("ebb:role", "active"))
	require.NoError(t, set("empty", ""))
	waitTags(map[string]string{"ebb:role": "active", "empty": ""})
	s.eventually(t, "DescribeTags", func() (bool, error) {
		out, err := s.Client.DescribeTags(t.Context(), &ec2.DescribeTagsInput{Filters: []types.Filter{
			{Name: aws.String("resource-id"), Values: []string{id}},
			{Name: aws.String("key"), Values: []string{"ebb:r*"}},
		}})
		if err != nil {
			return false, err
		}
		return len(out.Tags) == 1 && *out.Tags[0].Value == "active" && out.Tags[0].ResourceType == types.ResourceTypeVolume, nil
	})
	unset(types.Tag{Key: aws.String("ebb:role"), Value: aws.String("other")}) // another value: no effect
	unset(types.Tag{Key: aws.String("empty")})
	unset(types.Tag{Key: aws.String("absent")})
	waitTags(map[string]string{"ebb:role": "active"})

	requireCode(t, set("aws:mine", "x"), "InvalidParameterValue")
	_, err := s.Client.CreateTags(t.Context(), &ec2.CreateTagsInput{
		Resources: []string{absentVolume}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}},
	})
	requireCode(t, err, "InvalidVolume.NotFound")
}

func (s *suite) filtersAndPages(t *testing.T) {
	want := map[string]bool{}
	for i := range 6 {
		want[s.create(t, func(in *ec2.CreateVolumeInput) {
			in.TagSpecifications = s.tagSpec(types.ResourceTypeVolume,
				types.Tag{Key: aws.String("page"), Value: aws.String(s.run)},
				types.Tag{Key: aws.String("n"), Value: aws.String(fmt.Sprintf("vol %d", i))})
		})] = true
	}
	mine := types.Filter{Name: aws.String("tag:page"), Values: []string{s.run}}
	filter := func(name string, values ...string) types.Filter { return types.Filter{Name: &name, Values: values} }
	for _, test := range []struct {
		what    string
		filters []types.Filter
		n       int
	}{
		{"all", nil, 6},
		{"values are alternatives", []types.Filter{filter("tag:n", "vol 1", "vol 2")}, 2},
		{"wildcard", []types.Filter{filter("tag:n", "vol ?")}, 6},
		{"filters add up", []types.Filter{filter("tag-key", "n"), filter("size", "1"), filter("status", "available")}, 6},
		{"zone", []types.Filter{filter("availability-zone", s.Zone)}, 6},
		{"not attached", []types.Filter{filter("attachment.instance-id", s.InstanceID)}, 0},
		{"another type", []types.Filter{filter("volume-type", "io2")}, 0},
	} {
		s.eventually(t, test.what, func() (bool, error) {
			out, err := s.Client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{Filters: append(test.filters, mine)})
			if err != nil {
				return false, err
			}
			return len(out.Volumes) == test.n, nil
		})
	}

	s.eventually(t, "all in pages", func() (bool, error) {
		seen := map[string]bool{}
		p := ec2.NewDescribeVolumesPaginator(s.Client, &ec2.DescribeVolumesInput{Filters: []types.Filter{mine}, MaxResults: aws.Int32(5)})
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			if err != nil {
				return false, err
			}
			require.LessOrEqual(t, len(out.Volumes), 5)
			for _, v := range out.Volumes {
				require.True(t, want[*v.VolumeId], "%s is not ours", *v.VolumeId)
				require.False(t, seen[*v.VolumeId], "%s twice", *v.VolumeId)
				seen[*v.VolumeId] = true
			}
		}
		return len(seen) == len(want), nil // fewer in a stale answer
	})
	_, err := s.Client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{MaxResults: aws.Int32(1)})
	requireCode(t, err, "InvalidParameterValue")

	// 200 values in all filters of a call together, and no more.
	values := make([]string, 199)
	for i := range values {
		values[i] = fmt.Sprintf("vol %d", i)
	}
	s.eventually(t, "a full filter", func() (bool, error) {
		out, err := s.Client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{
			Filters: []types.Filter{mine, filter("tag:n", values...)}, MaxResults: aws.Int32(1000),
		})
		if err != nil {
			return false, err
		}
		return len(out.Volumes) == len(want), nil
	})
	_, err = s.Client.DescribeVolumes(t.Context(), &ec2.DescribeVolumesInput{Filters: []types.Filter{mine, filter("tag:n", append(values, "x")...)}})
	requireCode(t, err, "FilterLimitExceeded")
}
