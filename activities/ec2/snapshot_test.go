package ec2_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// stale makes describes lag by exactly d, while the activities count on settle.
func stale(t *testing.T, d, settle time.Duration) fixture {
	t.Helper()
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe, o.StaleJitter = d, false })
	f.Activities = ec2.New(f.api, ec2.Options{PollMin: 5 * time.Millisecond, PollMax: 40 * time.Millisecond, Settle: settle, Cluster: "c1"})
	return f
}

// attached is volumes on nodeA that every describe shows.
func (f fixture) attached(n int) []string {
	f.t.Helper()
	f.Activities = ec2.New(f.api, ec2.Options{PollMin: 5 * time.Millisecond, PollMax: 40 * time.Millisecond, Settle: 2 * time.Second, Cluster: "c1"})
	var ids []string
	for i := range n {
		in := createInput(2)
		in.Index = i
		v, err := f.CreateVolume(f.t.Context(), in)
		require.NoError(f.t, err)
		f.attach(v.ID, nodeA)
		ids = append(ids, v.ID)
	}
	return ids
}

// TestSnapshotIsMadeOnceWhileDescribesLag: the answer of the first call is lost,
// and the second run's first describes do not show what it made.
func TestSnapshotIsMadeOnceWhileDescribesLag(t *testing.T) {
	for _, n := range []int{1, 2} {
		action := []string{"", "CreateSnapshot", "CreateSnapshots"}[n]
		t.Run(action, func(t *testing.T) {
			f := stale(t, 300*time.Millisecond, 600*time.Millisecond)
			in := contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: f.attached(n), Move: "run-1", Retention: 36 * time.Hour}
			f.sim.AddFault(ec2sim.Fault{Action: action, LoseAnswer: true})
			_, err := f.SnapshotDisk(t.Context(), in)
			require.Error(t, err)
			out, err := f.SnapshotDisk(t.Context(), in)
			require.NoError(t, err)
			require.Len(t, out.Snapshots, n)
			require.Equal(t, 1, f.calls(action))
			require.Len(t, f.sim.Snapshots(), n)
			for _, s := range f.sim.Snapshots() {
				require.Equal(t, "36h0m0s", s.Tags[contract.TagRetention])
			}
		})
	}
}

// hide makes describes answer from before what comes next, until show.
func (f fixture) hide() {
	f.t.Helper()
	require.NoError(f.t, f.sim.Advance(time.Hour))
	f.sim.SetStaleDescribe(30 * time.Minute)
}

func (f fixture) show() { require.NoError(f.t, f.sim.Advance(time.Hour)) }

// TestSnapshotsMadeTwiceAreTidied: when describes lag longer than anyone counts
// on, the older set of one moment is kept whole and the other goes; nothing else
// is touched.
func TestSnapshotsMadeTwiceAreTidied(t *testing.T) {
	f := stale(t, 0, 100*time.Millisecond)
	in := contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: f.attached(2), Move: "run-1"}
	other := in
	other.Move = "run-0"
	_, err := f.SnapshotDisk(t.Context(), other)
	require.NoError(t, err)
	f.hide()
	keep := map[string]bool{}
	for _, want := range []int{4, 6} {
		_, err := f.SnapshotDisk(t.Context(), in)
		require.Error(t, err, "EC2 does not show it in time")
		require.Len(t, f.sim.Snapshots(), want)
		for _, s := range f.sim.Snapshots() {
			keep[s.ID] = keep[s.ID] || want == 4
		}
	}
	f.show()
	out, err := f.SnapshotDisk(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, out.Snapshots, 2)
	for _, id := range out.Snapshots {
		require.True(t, keep[id], "the older set is kept")
	}
	require.Len(t, f.sim.Snapshots(), 4)
	for _, s := range f.sim.Snapshots() {
		require.True(t, keep[s.ID])
	}
}

// TestSnapshotWithoutPermissionToDelete: a duplicate that stays is no failure.
func TestSnapshotWithoutPermissionToDelete(t *testing.T) {
	f := stale(t, 0, 100*time.Millisecond)
	in := contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: f.attached(1), Move: "run-1"}
	f.hide()
	for range 2 {
		_, err := f.SnapshotDisk(t.Context(), in)
		require.Error(t, err)
	}
	f.show()
	f.sim.AddFault(ec2sim.Fault{Action: "DeleteSnapshot", Code: "UnauthorizedOperation", Count: -1})
	_, err := f.SnapshotDisk(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, f.sim.Snapshots(), 2)
}

// TestModificationIsNotSpentTwice: a second run waits for the first one's
// modification to show before it asks for another.
func TestModificationIsNotSpentTwice(t *testing.T) {
	f := stale(t, 300*time.Millisecond, 2*time.Second)
	v := f.create(5)
	f.sim.AddFault(ec2sim.Fault{Action: "ModifyVolume", LoseAnswer: true})
	in := contract.ModifyVolumeInput{Disk: disk, Volume: v.ID, SizeGiB: 8}
	_, err := f.ModifyVolume(t.Context(), in)
	require.Error(t, err)
	_, err = f.ModifyVolume(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, f.sim.Calls("ModifyVolume"), 1, "asked for once, not refused the second time")
}

// A disk's last snapshot is waited for: its volumes go next.
func TestSnapshotWaitsUntilComplete(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.Lag.Snapshot = ec2sim.Fixed(300 * time.Millisecond) })
	v := f.create(2)
	in := contract.SnapshotDiskInput{Disk: disk, Volumes: []string{v.ID}, Move: "run-1", Complete: true}
	out, err := f.SnapshotDisk(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, out.Snapshots, 1)
	require.Equal(t, "completed", f.sim.Snapshots()[0].State)

	// One that fails is no last snapshot: the next run makes another.
	in.Move = "run-2"
	f.sim.AddFault(ec2sim.Fault{Action: "CreateSnapshot", FailAsync: "error"})
	_, err = f.SnapshotDisk(t.Context(), in)
	require.ErrorContains(t, err, "failed")
	var again contract.SnapshotDiskResult
	require.NoError(t, f.until(func() (err error) { // a describe may still show it as pending
		again, err = f.SnapshotDisk(t.Context(), in)
		return err
	}))
	require.NotEqual(t, out, again)
	for _, s := range f.sim.Snapshots() {
		if s.ID == again.Snapshots[0] {
			require.Equal(t, "completed", s.State)
		}
	}
}

// A backup tool may give its snapshots the volumes' tags, Ebb's among them: they are
// waited for. Those that Ebb takes, of one volume or of several, are not.
func TestBackupsThatCopyTagsAreWaitedFor(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.StaleDescribe, o.Lag.Snapshot = 0, ec2sim.Fixed(500*time.Millisecond) })
	wait := contract.WaitForBackupsInput{Disk: disk, Volumes: f.attached(2)}
	for _, volumes := range [][]string{wait.Volumes[:1], wait.Volumes} {
		in := contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: volumes, Move: "run-1"}
		_, err := f.SnapshotDisk(t.Context(), in)
		require.NoError(t, err)
		require.Contains(t, f.pending(), "run-1")
		out, err := f.WaitForBackups(t.Context(), wait)
		require.NoError(t, err)
		require.Empty(t, out.Waited)
	}

	made, err := f.api.CreateSnapshots(t.Context(), &awsec2.CreateSnapshotsInput{
		InstanceSpecification: &types.InstanceSpecification{InstanceId: aws.String(nodeA), ExcludeBootVolume: aws.Bool(true)},
		CopyTagsFromSource:    types.CopyTagsFromSourceVolume,
	})
	require.NoError(t, err)
	var theirs []string
	for _, s := range made.Snapshots {
		theirs = append(theirs, aws.ToString(s.SnapshotId))
	}
	require.Len(t, theirs, 2)
	out, err := f.WaitForBackups(t.Context(), wait)
	require.NoError(t, err)
	require.ElementsMatch(t, theirs, out.Waited)
	require.Empty(t, f.pending())
}

// pending is the operations of the snapshots that are pending.
func (f fixture) pending() []string {
	var out []string
	for _, s := range f.sim.Snapshots() {
		if s.State == "pending" {
			out = append(out, s.Tags[contract.TagMove])
		}
	}
	return out
}

// EC2 leaves out at most 40 volumes of an instance: with more of other disks there is
// no snapshot of several volumes, which is said before anything is asked for.
func TestSnapshotBesideManyVolumes(t *testing.T) {
	f := start(t)
	in := contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: f.attached(2), Move: "run-1"}
	beside := func(n int) {
		seed := ec2sim.Seed{}
		for range n {
			seed.Volumes = append(seed.Volumes, ec2sim.Volume{Shape: ec2sim.Shape{SizeGiB: 1}, Attachment: &ec2sim.Attachment{InstanceID: nodeA}})
		}
		_, err := f.sim.Seed(seed)
		require.NoError(t, err)
	}
	take := func() error { _, err := f.SnapshotDisk(t.Context(), in); return err }
	beside(40)
	require.NoError(t, f.until(take))
	require.Len(t, f.sim.Snapshots(), 2)

	beside(1)
	in.Move = "run-2"
	r := refused(t, f.until(take), contract.EC2Refused)
	require.Contains(t, r.Message, "at most 40")
	require.Contains(t, r.Message, nodeA)
	require.Contains(t, r.Next, "--no-snapshot")
	require.Equal(t, disk, r.Disk)
	require.Equal(t, 1, f.calls("CreateSnapshots"))
}
