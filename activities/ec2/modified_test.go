package ec2_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

func (f fixture) tag(id, key string) string {
	f.t.Helper()
	v, ok := f.sim.Volume(id)
	require.True(f.t, ok)
	return v.Tags[key]
}

func quickOptimize(o *ec2sim.Options) { o.Lag.Optimize = ec2sim.Fixed(0) }

func TestModifyVolumeNotesWhen(t *testing.T) {
	f := start(t, quickOptimize)
	old := time.Now().Add(-25 * time.Hour)
	hour := time.Now().Add(-time.Hour)
	id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{
		vol(disk, contract.RoleActive, 1, 0, nodeA, contract.TagModified, unix(old)+" damaged "+unix(hour)),
	}})[0]
	in := contract.ModifyVolumeInput{Disk: disk, Volume: id, SizeGiB: 120}
	v, err := f.ModifyVolume(t.Context(), in)
	require.NoError(t, err)
	sim, _ := f.sim.Volume(id)
	want := unix(hour, sim.Modifications[0].Start)
	require.Equal(t, want, f.tag(id, contract.TagModified), "what EBS does not count any more is dropped")
	require.Len(t, v.Modified, 2)

	// Again: asked for already, so nothing is added, and nothing is written.
	writes := f.calls("CreateTags")
	again, err := f.ModifyVolume(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, again.Modified, 2)
	require.Equal(t, want, f.tag(id, contract.TagModified))
	require.LessOrEqual(t, f.calls("CreateTags"), writes+1, "a stale describe may have it written again")
	require.Equal(t, 1, f.calls("ModifyVolume"))

	require.Eventually(t, func() bool {
		facts, err := f.DescribeDisk(t.Context(), contract.DescribeDiskInput{Disk: disk})
		return err == nil && len(facts.Volumes[0].Modified) == 2
	}, 5*time.Second, 5*time.Millisecond)
}

// A damaged tag may name times to come. They would be the latest for ever, and
// what is modified from now on would never be noted.
func TestModifyVolumeDropsTimesToCome(t *testing.T) {
	f := start(t, quickOptimize)
	var future []time.Time
	for i := range 8 {
		future = append(future, time.Now().Add(time.Duration(1000+i)*time.Hour))
	}
	id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{vol(disk, contract.RoleActive, 1, 0, nodeA, contract.TagModified, unix(future...))}})[0]
	_, err := f.ModifyVolume(t.Context(), contract.ModifyVolumeInput{Disk: disk, Volume: id, SizeGiB: 120})
	require.NoError(t, err)
	sim, _ := f.sim.Volume(id)
	require.Equal(t, unix(sim.Modifications[0].Start), f.tag(id, contract.TagModified))
}

// The answer is lost, or the tag is not taken: the run after notes the very same
// modification.
func TestModifyVolumeNotesALostModificationOnce(t *testing.T) {
	for name, fault := range map[string]ec2sim.Fault{
		"answer lost": {Action: "ModifyVolume", LoseAnswer: true},
		"tag refused": {Action: "CreateTags", Code: "InternalError"},
		"tag lost":    {Action: "CreateTags", LoseAnswer: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t)
			id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{vol(disk, contract.RoleActive, 1, 0, nodeA)}})[0]
			f.sim.AddFault(fault)
			in := contract.ModifyVolumeInput{Disk: disk, Volume: id, SizeGiB: 120}
			require.NoError(t, f.until(func() error { _, err := f.ModifyVolume(t.Context(), in); return err }))
			_, err := f.ModifyVolume(t.Context(), in)
			require.NoError(t, err)
			v, _ := f.sim.Volume(id)
			require.Len(t, v.Modifications, 1)
			require.Equal(t, unix(v.Modifications[0].Start), v.Tags[contract.TagModified])
		})
	}
}

func TestModifyVolumeWithoutTheRightToTag(t *testing.T) {
	f := start(t)
	id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{vol(disk, contract.RoleActive, 1, 0, nodeA)}})[0]
	f.sim.AddFault(ec2sim.Fault{Action: "CreateTags", Code: "UnauthorizedOperation", Count: -1})
	v, err := f.ModifyVolume(t.Context(), contract.ModifyVolumeInput{Disk: disk, Volume: id, SizeGiB: 120})
	require.NoError(t, err)
	require.EqualValues(t, 120, v.SizeGiB)
}

func TestModifiedIsKeptShort(t *testing.T) {
	f := start(t)
	var times []time.Time
	for i := range 12 {
		times = append(times, time.Now().Add(time.Duration(i-20)*time.Minute))
	}
	id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{
		vol(disk, contract.RoleActive, 1, 0, nodeA, contract.TagModified, unix(times...)+" "+unix(times[11])),
	}})[0]
	facts, err := f.DescribeDisk(t.Context(), contract.DescribeDiskInput{Disk: disk})
	require.NoError(t, err)
	require.Len(t, facts.Volumes[0].Modified, 8)
	_, err = f.ModifyVolume(t.Context(), contract.ModifyVolumeInput{Disk: disk, Volume: id, SizeGiB: 120})
	require.NoError(t, err)
	v, _ := f.sim.Volume(id)
	require.Equal(t, unix(append(times[5:], v.Modifications[0].Start)...), v.Tags[contract.TagModified])
}

// A volume of a move takes over when the disk was modified; one that is appended
// counts as a modification itself, once.
func TestCreateVolumeCarriesModifications(t *testing.T) {
	f := start(t)
	before := []time.Time{time.Now().Add(-30 * time.Hour).Truncate(time.Second).UTC(), time.Now().Add(-2 * time.Hour).Truncate(time.Second).UTC()}
	in := createInput(20)
	in.Like = &contract.VolumeFacts{Type: "gp3", SizeGiB: 20, IOPS: 3000, ThroughputMiBs: 125, Generation: 2, Modified: before}
	v, err := f.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, before[1:], v.Modified)
	require.Equal(t, unix(before[1]), f.tag(v.ID, contract.TagModified))

	in.Move, in.Index, in.Like.Generation = "run-1-a", 1, in.Generation
	f.sim.AddFault(ec2sim.Fault{Action: "CreateTags", Code: "InternalError"})
	v, err = f.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.Empty(t, f.tag(v.ID, contract.TagModified))
	for range 2 { // a later run makes up for it
		again, err := f.CreateVolume(t.Context(), in)
		require.NoError(t, err)
		require.Equal(t, v.ID, again.ID)
	}
	sim, _ := f.sim.Volume(v.ID)
	require.Equal(t, unix(before[1], sim.Created), sim.Tags[contract.TagModified])

	plain := createInput(20) // a new disk
	plain.Disk, plain.Generation = other, 1
	v, err = f.CreateVolume(t.Context(), plain)
	require.NoError(t, err)
	require.Empty(t, f.tag(v.ID, contract.TagModified))
}
