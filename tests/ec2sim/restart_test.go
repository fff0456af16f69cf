package ec2sim_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

func TestRestart(t *testing.T) {
	plug := &fakePlug{}
	opt := ec2sim.Options{StateDir: t.TempDir(), Plug: plug, PlugTimeout: time.Hour}
	s, c := start(t, opt)
	in := &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), Size: aws.Int32(3), ClientToken: aws.String("token"),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}}},
	}
	made, err := c.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	vol := *made.VolumeId
	attach(t, c, vol, inst1, "/dev/sdf")
	waitAttachment(t, s, vol, ec2sim.StateAttached)
	require.NoError(t, s.Advance(3*time.Hour))
	s.SetLag(ec2sim.Lag{Create: ec2sim.Fixed(time.Hour), Modify: ec2sim.Fixed(time.Hour)})
	second := create(t, c, 4)
	require.NoError(t, modify(c, vol, 5))
	plug.set(nil, true) // the server stops in the middle of a detach
	_, err = c.DetachVolume(t.Context(), &ec2.DetachVolumeInput{VolumeId: &vol})
	require.NoError(t, err)
	require.NoError(t, s.Close())

	plug.set(nil, false)
	s, c = start(t, opt)
	waitAttachment(t, s, vol, "")
	again, err := c.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, vol, *again.VolumeId, "tokens are remembered")
	require.Equal(t, "v", *describe(t, c, vol).Tags[0].Value)
	require.Equal(t, types.VolumeStateCreating, describe(t, c, second).State)
	requireCode(t, modify(c, vol, 6), "IncorrectModificationState")
	require.NoError(t, s.Advance(time.Hour))
	require.Equal(t, types.VolumeStateAvailable, describe(t, c, second).State)
	require.EqualValues(t, 5, *describe(t, c, vol).Size)
	require.NotEqual(t, second, create(t, c, 1), "ids are not given out again")
	require.Len(t, s.Volumes(), 3)
}

func TestSameSeedSameIDs(t *testing.T) {
	_, a := start(t, ec2sim.Options{Seed: 5})
	_, b := start(t, ec2sim.Options{Seed: 5})
	_, c := start(t, ec2sim.Options{Seed: 6})
	id := create(t, a, 1)
	require.Equal(t, id, create(t, b, 1))
	require.NotEqual(t, id, create(t, c, 1))
}

func TestContents(t *testing.T) {
	plug := &fakePlug{}
	s, c := start(t, ec2sim.Options{Plug: plug, GiB: 1 << 20, MaxVolumeGiB: 64})
	vol := create(t, c, 8)
	attach(t, c, vol, inst1, "/dev/sdf")
	waitAttachment(t, s, vol, ec2sim.StateAttached)
	f, err := os.OpenFile(s.VolumePath(vol), os.O_RDWR, 0)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	write := func(text string, at int64) {
		_, err := f.WriteAt([]byte(text), at)
		require.NoError(t, err)
	}
	write("first", 4096)
	write("last", 8<<20-4)
	write("beyond the volume's size", 8<<20)

	snap, err := c.CreateSnapshot(t.Context(), &ec2.CreateSnapshotInput{VolumeId: &vol})
	require.NoError(t, err)
	write("later", 4096)
	require.Equal(t, 1, plug.paused)
	require.Equal(t, 1, plug.resumed)
	fi, err := os.Stat(s.SnapshotPath(*snap.SnapshotId))
	require.NoError(t, err)
	require.EqualValues(t, 8<<20, fi.Size())
	require.Less(t, fi.Sys().(*syscall.Stat_t).Blocks*512, int64(1<<20), "holes stay holes")

	out, err := c.CreateVolume(t.Context(), &ec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), SnapshotId: snap.SnapshotId, Size: aws.Int32(16), VolumeType: types.VolumeTypeGp3,
	})
	require.NoError(t, err)
	_, err = c.DeleteSnapshot(t.Context(), &ec2.DeleteSnapshotInput{SnapshotId: snap.SnapshotId})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return describe(t, c, *out.VolumeId).State == types.VolumeStateAvailable }, 10*time.Second, 5*time.Millisecond)
	got, err := os.ReadFile(s.VolumePath(*out.VolumeId))
	require.NoError(t, err)
	require.Len(t, got, 64<<20)
	require.Equal(t, "first", string(got[4096:4101]))
	require.Equal(t, "last\x00", string(got[8<<20-4:8<<20+1]))
}
