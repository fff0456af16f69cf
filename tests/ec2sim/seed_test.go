package ec2sim_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// fleet is nodes with each so many tagged volumes.
func fleet(nodes, each int) ec2sim.Seed {
	var in ec2sim.Seed
	for n := range nodes {
		id := fmt.Sprintf("i-%017x", n+1000)
		in.Instances = append(in.Instances, ec2sim.Instance{ID: id, Zone: zone})
		for v := range each {
			in.Volumes = append(in.Volumes, ec2sim.Volume{
				Shape: ec2sim.Shape{SizeGiB: 200}, Attachment: &ec2sim.Attachment{InstanceID: id},
				Tags: map[string]string{"disk": fmt.Sprintf("d-%017x", n*each+v), "role": "active"},
			})
		}
	}
	return in
}

func walk(ctx context.Context, c *ec2.Client, filters ...types.Filter) (n int, err error) {
	pages := ec2.NewDescribeVolumesPaginator(c, &ec2.DescribeVolumesInput{Filters: filters, MaxResults: aws.Int32(1000)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return n, err
		}
		n += len(page.Volumes)
	}
	return n, nil
}

func TestSeedAFleet(t *testing.T) {
	dir := t.TempDir()
	s, c := start(t, ec2sim.Options{StateDir: dir})
	begin := time.Now()
	ids, err := s.Seed(fleet(250, 40))
	require.NoError(t, err)
	require.Len(t, ids, 10_000)
	seeded := time.Since(begin)

	n, err := walk(t.Context(), c, types.Filter{Name: aws.String("tag-key"), Values: []string{"disk"}})
	require.NoError(t, err)
	require.Equal(t, 10_000, n)
	some := []string{}
	for i := range 199 {
		some = append(some, fmt.Sprintf("i-%017x", i+1000))
	}
	n, err = walk(t.Context(), c, types.Filter{Name: aws.String("tag-key"), Values: []string{"disk"}},
		types.Filter{Name: aws.String("attachment.instance-id"), Values: some})
	require.NoError(t, err)
	require.Equal(t, 199*40, n)
	require.Less(t, time.Since(begin), 30*time.Second)

	began := time.Now()
	for i := range 100 { // a change costs what it changes
		_, err = c.CreateTags(t.Context(), &ec2.CreateTagsInput{
			Resources: []string{ids[i]}, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}},
		})
		require.NoError(t, err)
		require.Equal(t, types.VolumeStateInUse, describe(t, c, ids[i]).State)
	}
	t.Logf("seeded in %s, 100 changes with a describe each in %s", seeded, time.Since(began))
	require.Less(t, time.Since(began), 10*time.Second)

	require.NoError(t, s.Close())
	s, c = start(t, ec2sim.Options{StateDir: dir})
	require.Len(t, s.Volumes(), 10_000)
	require.NotEmpty(t, describe(t, c, ids[99]).Tags[1].Value)
	v, ok := s.Volume(ids[99])
	require.True(t, ok)
	require.Equal(t, "v", v.Tags["k"])
	require.Equal(t, ec2sim.StateAttached, v.Attachment.State)
	_, err = s.Seed(ec2sim.Seed{Volumes: []ec2sim.Volume{{ID: ids[0], Shape: ec2sim.Shape{SizeGiB: 1}}}})
	require.ErrorContains(t, err, "exists")
}

// A server that was killed left a journal, perhaps with half a line.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	_, c := start(t, ec2sim.Options{StateDir: dir})
	first, second := create(t, c, 1), create(t, c, 2)
	gone := create(t, c, 3)
	_, err := c.DeleteVolume(t.Context(), &ec2.DeleteVolumeInput{VolumeId: &gone})
	require.NoError(t, err)
	for i := range 500 { // the journal is folded into the state meanwhile
		_, err := c.CreateTags(t.Context(), &ec2.CreateTagsInput{
			Resources: []string{second}, Tags: []types.Tag{{Key: aws.String("n"), Value: aws.String(fmt.Sprint(i))}},
		})
		require.NoError(t, err)
	}
	copied := t.TempDir() // as a killed server leaves it
	for _, name := range []string{"state.json", "state.journal"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		if name == "state.journal" {
			require.NotEmpty(t, data)
			data = append(data, `{"commit":99999,"volumes":{"`...)
		}
		require.NoError(t, os.WriteFile(filepath.Join(copied, name), data, 0o600))
	}
	s, c := start(t, ec2sim.Options{StateDir: copied})
	require.Len(t, s.Volumes(), 2)
	require.Equal(t, "499", *describe(t, c, second).Tags[0].Value)
	require.EqualValues(t, 1, *describe(t, c, first).Size)
	require.NotContains(t, []string{first, second, gone}, create(t, c, 4), "ids are not given out again")
}
