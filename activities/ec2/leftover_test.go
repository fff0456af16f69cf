package ec2_test

import (
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

const (
	minAge    = 6 * time.Hour
	grace     = 24 * time.Hour
	retention = 7 * 24 * time.Hour
)

func aged(v ec2sim.Volume, age time.Duration) ec2sim.Volume {
	v.Created = time.Now().Add(-age).Truncate(time.Second).UTC()
	return v
}

func retiredAt(age time.Duration) string {
	return time.Now().Add(-age).UTC().Format(time.RFC3339)
}

func (f fixture) leftovers() []contract.Leftover {
	f.t.Helper()
	got, err := f.Leftovers(f.t.Context(), minAge, grace, retention)
	require.NoError(f.t, err)
	return got
}

func TestLeftoverVolumes(t *testing.T) {
	f := start(t)
	old := 48 * time.Hour
	active := func(n int) ec2sim.Volume { return aged(vol(diskID(n), contract.RoleActive, 3, 0, nodeA), old) }
	retired := func(n, gen int, tags ...string) ec2sim.Volume {
		return aged(vol(diskID(n), contract.RoleRetired, gen, 0, "", tags...), 2*old)
	}
	incoming := func(n, gen int, node string, age time.Duration) ec2sim.Volume {
		return aged(vol(diskID(n), contract.RoleIncoming, gen, 0, node, contract.TagMove, "m"), age)
	}
	foreign := incoming(11, 1, "", old)
	foreign.Tags[contract.TagCluster] = "another"
	elsewhere := active(12) // the disk's active volume says another cluster
	elsewhere.Tags[contract.TagCluster] = "another"
	for _, c := range []struct {
		name    string
		volumes []ec2sim.Volume // the first may be a leftover
		reason  string          // empty: it is none
		suspect bool
	}{
		{"a disk", []ec2sim.Volume{active(1)}, "", false},
		{"a detached disk", []ec2sim.Volume{aged(vol(diskID(2), contract.RoleActive, 1, 0, ""), old)}, "", false},
		{"retired past its grace", []ec2sim.Volume{retired(3, 2, contract.TagRetiredAt, retiredAt(25*time.Hour)), active(3)}, "retired .*, its grace period is over", false},
		{"retired within its grace", []ec2sim.Volume{retired(4, 2, contract.TagRetiredAt, retiredAt(23*time.Hour)), active(4)}, "", false},
		{"retired no one knows when", []ec2sim.Volume{retired(5, 2), active(5)}, "do not say when", true},
		{"the last copy", []ec2sim.Volume{retired(6, 2, contract.TagRetiredAt, retiredAt(old))}, "last copy", true},
		{"retired but newer", []ec2sim.Volume{retired(7, 4, contract.TagRetiredAt, retiredAt(old)), active(7)}, "generation 3 is active", true},
		{"a move that never ended", []ec2sim.Volume{incoming(8, 4, nodeA, 7*time.Hour), active(8)}, "for a move to generation 4, which was never finished", false},
		{"a move that may run", []ec2sim.Volume{incoming(9, 4, nodeA, 5*time.Hour), active(9)}, "", false},
		{"a disk never finished", []ec2sim.Volume{incoming(10, 1, "", old)}, "it has no active volume", false},
		{"another cluster's", []ec2sim.Volume{foreign}, "", false},
		{"an active volume of another cluster counts", []ec2sim.Volume{incoming(12, 4, "", old), elsewhere}, "for a move to generation 4", false},
		{"to be appended", []ec2sim.Volume{incoming(13, 3, "", old), active(13)}, "to be appended", false},
		{"overtaken", []ec2sim.Volume{incoming(14, 2, "", old), active(14)}, "generation 3 has overtaken", false},
		{"two active generations", []ec2sim.Volume{aged(vol(diskID(15), contract.RoleActive, 2, 0, nodeB), old), active(15)}, "active in generation 2, but generation 3", true},
		{"no role", []ec2sim.Volume{aged(vol(diskID(16), "", 3, 0, ""), old), active(16)}, "ebb:role", true},
		{"several members", []ec2sim.Volume{active(17), aged(vol(diskID(17), contract.RoleActive, 3, 1, nodeA), old)}, "", false},
		{"damaged generation", []ec2sim.Volume{aged(vol(diskID(18), contract.RoleActive, -3, 0, nodeB), old), active(18)}, "active in generation 0", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := f
			f.t = t
			ids := f.seed(ec2sim.Seed{Volumes: c.volumes})
			var got []contract.Leftover
			for _, l := range f.leftovers() {
				for _, id := range ids {
					if l.Volume == id {
						got = append(got, l)
					}
				}
			}
			if c.reason == "" {
				require.Empty(t, got)
				return
			}
			require.Len(t, got, 1)
			l, v := got[0], c.volumes[0]
			require.Equal(t, ids[0], l.Volume)
			require.Regexp(t, c.reason, l.Reason)
			require.Equal(t, c.suspect, l.Suspect)
			require.EqualValues(t, v.Tags[contract.TagDisk], l.Disk)
			require.EqualValues(t, v.Tags[contract.TagRole], l.Role)
			require.Equal(t, v.Tags[contract.TagMove], l.Move)
			require.EqualValues(t, 100, l.GiB)
			require.Equal(t, zone, l.Zone)
			if v.Attachment != nil {
				require.Equal(t, v.Attachment.InstanceID, l.Node)
			}
			require.True(t, l.Since.Before(time.Now().Add(-minAge)))
		})
	}
	suspects := false
	for _, l := range f.leftovers() {
		require.False(t, suspects && !l.Suspect, "what may be deleted comes first")
		suspects = l.Suspect
	}
	require.True(t, suspects)
	require.Zero(t, f.sim.Count("DeleteVolume")+f.sim.Count("CreateTags"), "it only looks")
}

// What changed a moment ago is shown late: the volume was retired when the first
// describe was true, and is the disk's active one now.
func TestLeftoversWantTwoLooksToAgree(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe, o.StaleJitter = 60*time.Millisecond, false })
	ids := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{
		aged(vol(disk, contract.RoleActive, 3, 0, nodeA), 48*time.Hour),
		aged(vol(disk, contract.RoleIncoming, 4, 0, nodeA), 48*time.Hour),
	}})
	require.Len(t, f.leftovers(), 1)
	_, err := f.api.CreateTags(t.Context(), &awsec2.CreateTagsInput{
		Resources: []string{ids[1]}, Tags: []types.Tag{{Key: aws.String(contract.TagRole), Value: aws.String("active")}},
	})
	require.NoError(t, err)
	for range 10 {
		for _, l := range f.leftovers() {
			require.NotEqual(t, ids[1], l.Volume, "%+v", l)
		}
	}
}

func snap(disk contract.DiskID, age time.Duration, reason string, tags ...string) ec2sim.Snapshot {
	s := ec2sim.Snapshot{
		VolumeID: "vol-00000000000000001", SizeGiB: 100, Start: time.Now().Add(-age), Description: "ebb disk " + string(disk) + ": " + reason,
		Tags: map[string]string{contract.TagDisk: string(disk), contract.TagMove: "m", contract.TagSet: "s", contract.TagCluster: "c1"},
	}
	for i := 0; i < len(tags); i += 2 {
		s.Tags[tags[i]] = tags[i+1]
	}
	return s
}

func TestLeftoverSnapshots(t *testing.T) {
	f := start(t)
	week, shrink := 8*24*time.Hour, "before a shrink"
	noMove := snap(diskID(1), week, shrink)
	delete(noMove.Tags, contract.TagMove)
	f.seed(ec2sim.Seed{
		Volumes: []ec2sim.Volume{vol(diskID(1), contract.RoleActive, 3, 0, nodeA), vol(diskID(3), contract.RoleRetired, 3, 0, "")},
		Snapshots: []ec2sim.Snapshot{
			snap(diskID(1), week, shrink),
			snap(diskID(1), 6*24*time.Hour, shrink),
			snap(diskID(1), week, shrink, contract.TagRetention, "720h0m0s"),
			snap(diskID(1), week, shrink, contract.TagRetention, "a month"),
			snap(diskID(1), week, "before the disk's deletion"),
			snap(diskID(1), week, shrink, contract.TagCluster, "another"),
			noMove,
			snap(diskID(2), week, shrink), // no such disk any more
			snap(diskID(3), week, shrink), // without an active volume
		},
	})
	var want ec2sim.Snapshot
	for _, s := range f.sim.Snapshots() {
		if s.Tags[contract.TagDisk] == string(diskID(1)) && s.Tags[contract.TagMove] != "" && s.Tags[contract.TagCluster] == "c1" &&
			s.Description == "ebb disk "+string(diskID(1))+": "+shrink && time.Since(s.Start) > retention && s.Tags[contract.TagRetention] == "" {
			want = s
		}
	}
	got := f.leftovers()
	require.Len(t, got, 1)
	require.Equal(t, want.ID, got[0].Snapshot)
	require.Empty(t, got[0].Volume)
	require.EqualValues(t, 100, got[0].GiB)
	require.Equal(t, "m", got[0].Move)
	require.False(t, got[0].Suspect)

	for _, s := range f.sim.Snapshots() {
		if s.ID == want.ID || s.Tags[contract.TagDisk] == string(diskID(1)) && (time.Since(s.Start) < retention || s.Tags[contract.TagRetention] != "") {
			continue
		}
		err := f.DeleteSnapshot(t.Context(), contract.DiskID(s.Tags[contract.TagDisk]), s.ID)
		r, ok := contract.AsRefusal(err)
		require.True(t, ok, "%+v: %v", s, err)
		require.Contains(t, r.Message, s.ID)
	}
	refused(t, f.DeleteSnapshot(t.Context(), diskID(2), want.ID), contract.VolumeForeign)
	require.Zero(t, f.calls("DeleteSnapshot"))
	require.NoError(t, f.DeleteSnapshot(t.Context(), diskID(1), want.ID))
	require.Equal(t, 1, f.calls("DeleteSnapshot"))
	require.NoError(t, f.DeleteSnapshot(t.Context(), diskID(1), want.ID), "it is gone already")
	require.NoError(t, f.DeleteSnapshot(t.Context(), diskID(1), "snap-00000000000000099"))
	require.Len(t, f.sim.Snapshots(), 8)
	require.Empty(t, f.leftovers())
}

func TestDeleteSnapshotFaults(t *testing.T) {
	f := start(t)
	f.seed(ec2sim.Seed{
		Volumes:   []ec2sim.Volume{vol(disk, contract.RoleActive, 3, 0, nodeA)},
		Snapshots: []ec2sim.Snapshot{snap(disk, time.Hour, "before a shrink"), snap(disk, time.Hour, "before a shrink", contract.TagSet, "t")},
	})
	all := f.sim.Snapshots()
	f.sim.AddFault(ec2sim.Fault{Action: "DeleteSnapshot", LoseAnswer: true})
	require.NoError(t, f.until(func() error { return f.DeleteSnapshot(t.Context(), disk, all[0].ID) }))
	f.sim.AddFault(ec2sim.Fault{Action: "DeleteSnapshot", Code: "InvalidSnapshot.InUse"})
	refused(t, f.DeleteSnapshot(t.Context(), disk, all[1].ID), contract.DiskBusy)
	f.sim.AddFault(ec2sim.Fault{Action: "DeleteSnapshot", Code: "UnauthorizedOperation"})
	r := refused(t, f.DeleteSnapshot(t.Context(), disk, all[1].ID), contract.PermissionMissing)
	require.Contains(t, r.Next, "ec2:DeleteSnapshot")
	require.Equal(t, disk, r.Disk)
}

// The last snapshot of a disk is known by what DeleteDisk says of it.
func TestLastSnapshotsReason(t *testing.T) {
	text, err := os.ReadFile("../../workflows/delete.go")
	require.NoError(t, err)
	require.Contains(t, string(text), `Reason: "before the disk's deletion"`)
}
