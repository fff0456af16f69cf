package ec2_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

const (
	disk  = contract.DiskID("d-0123456789abcdef0")
	other = contract.DiskID("d-0123456789abcdef1")
	nodeA = "i-0000000000000000a"
	nodeB = "i-0000000000000000b"
	nodeC = "i-0000000000000000c" // another zone
	zone  = "us-east-1a"
)

type fixture struct {
	*ec2.Activities
	t   *testing.T
	sim *ec2sim.Server
	api *awsec2.Client
}

func start(t *testing.T, edit ...func(*ec2sim.Options)) fixture {
	t.Helper()
	lag := ec2sim.Range{Min: 5 * time.Millisecond, Max: 30 * time.Millisecond}
	o := ec2sim.Options{
		StateDir: t.TempDir(), Seed: 1, GiB: 1 << 20, NoSnapshotData: true,
		Lag:           ec2sim.Lag{Create: lag, Delete: lag, Attach: lag, Detach: lag, Modify: lag, Optimize: ec2sim.Fixed(time.Hour), Snapshot: lag},
		StaleDescribe: 40 * time.Millisecond, StaleJitter: true,
		Instances: []ec2sim.Instance{{ID: nodeA, Zone: zone}, {ID: nodeB, Zone: zone}, {ID: nodeC, Zone: "us-east-1b"}},
	}
	for _, e := range edit {
		e(&o)
	}
	sim, err := ec2sim.New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	api := awsec2.New(awsec2.Options{
		BaseEndpoint: aws.String(sim.URL()), Region: "us-east-1", Retryer: retryClosed(),
		Credentials: credentials.NewStaticCredentialsProvider("key", "secret", ""),
	})
	a := ec2.New(api, ec2.Options{PollMin: 5 * time.Millisecond, PollMax: 40 * time.Millisecond, Settle: 400 * time.Millisecond, Cluster: "c1"})
	return fixture{Activities: a, t: t, sim: sim, api: api}
}

// retryClosed repeats nothing but what the SDK's own client breaks off: on a busy
// machine it now and then closes a connection whose answer is still being read
// (aws/aws-sdk-go-v2 issue 2737). Everything else is the activities' to bear.
func retryClosed() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.RateLimiter = ratelimit.None
		o.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
			return aws.BoolTernary(errors.Is(err, net.ErrClosed))
		})}
	})
}

func (f fixture) create(gib int64) contract.VolumeFacts {
	f.t.Helper()
	v, err := f.CreateVolume(f.t.Context(), createInput(gib))
	require.NoError(f.t, err)
	return v
}

func createInput(gib int64) contract.CreateVolumeInput {
	return contract.CreateVolumeInput{
		Disk: disk, Name: "team/data", Move: "run-1", Generation: 3, Index: 0, Role: contract.RoleIncoming, Zone: zone, SizeGiB: gib,
	}
}

func (f fixture) attach(id, node string) contract.VolumeFacts {
	f.t.Helper()
	v, err := f.AttachVolume(f.t.Context(), contract.AttachVolumeInput{Disk: disk, Volume: id, Node: node})
	require.NoError(f.t, err)
	return v
}

// until retries fn as Temporal would.
func (f fixture) until(fn func() error) error {
	f.t.Helper()
	var err error
	for range 10 {
		if err = fn(); err == nil {
			return nil
		}
		if _, final := contract.AsRefusal(err); final {
			return err
		}
	}
	return err
}

// calls counts what EC2 did.
func (f fixture) calls(action string) int {
	n := 0
	for _, c := range f.sim.Calls(action) {
		if c.Code == "" {
			n++
		}
	}
	return n
}

func refused(t *testing.T, err error, code contract.RefusalCode) *contract.Refusal {
	t.Helper()
	r, ok := contract.AsRefusal(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, code, r.Code, r.Error())
	require.NotEmpty(t, r.Next, "a refusal says what to do")
	return r
}

func TestCreateVolume(t *testing.T) {
	f := start(t)
	like := contract.VolumeFacts{Type: "gp2", SizeGiB: 2000, Encrypted: true, KMSKeyID: "arn:aws:kms:us-east-1:1:key/k", Tags: map[string]string{"team": "a", "cost": "1"}}
	in := createInput(20)
	in.Like = &like
	in.Spec.Tags = map[string]string{"cost": "2"}
	v, err := f.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, "available", v.State)
	require.Equal(t, "gp3", v.Type)
	require.EqualValues(t, 6000, v.IOPS)
	require.EqualValues(t, 250, v.ThroughputMiBs)
	require.True(t, v.Encrypted)
	require.Equal(t, like.KMSKeyID, v.KMSKeyID)
	require.Equal(t, map[string]string{"team": "a", "cost": "2"}, v.Tags)
	require.Equal(t, contract.RoleIncoming, v.Role)
	require.EqualValues(t, 3, v.Generation)

	again, err := f.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, v.ID, again.ID)
	require.Len(t, f.sim.Volumes(), 1)

	in.Index = 1
	second, err := f.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	require.NotEqual(t, v.ID, second.ID)

	require.Eventually(t, func() bool {
		d, err := f.DescribeDisk(t.Context(), contract.DescribeDiskInput{Disk: disk})
		require.NoError(t, err)
		return d.Name == "team/data" && len(d.Volumes) == 2
	}, 2*time.Second, 10*time.Millisecond)
}

func TestCreateVolumeFaults(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault ec2sim.Fault
	}{
		{"lost answer", ec2sim.Fault{Action: "CreateVolume", LoseAnswer: true}},
		{"vanishes, its token burned", ec2sim.Fault{Action: "CreateVolume", FailAsync: "vanish"}},
		{"ends in error", ec2sim.Fault{Action: "CreateVolume", FailAsync: "error"}},
		{"throttled", ec2sim.Fault{Action: "CreateVolume", Code: "RequestLimitExceeded", Count: 2}},
		{"internal error after", ec2sim.Fault{Action: "CreateVolume", Code: "InternalError", After: true}},
		{"describe fails", ec2sim.Fault{Action: "DescribeVolumes", Code: "InternalError", Count: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t)
			f.sim.AddFault(tt.fault)
			require.NoError(t, f.until(func() error {
				_, err := f.CreateVolume(t.Context(), createInput(5))
				return err
			}))
			require.Eventually(t, func() bool {
				n := 0
				for _, v := range f.sim.Volumes() {
					if v.State == "available" {
						n++
					}
				}
				return n == 1 && len(f.sim.Volumes()) == 1
			}, 3*time.Second, 10*time.Millisecond, "one volume, nothing left behind: %+v", f.sim.Volumes())
		})
	}
	t.Run("no permission", func(t *testing.T) {
		f := start(t)
		f.sim.AddFault(ec2sim.Fault{Action: "CreateVolume", Code: "UnauthorizedOperation", Message: "You are not authorized"})
		_, err := f.CreateVolume(t.Context(), createInput(5))
		r := refused(t, err, contract.PermissionMissing)
		require.Contains(t, r.Next, "ec2:CreateVolume")
		require.Equal(t, disk, r.Disk)
	})
	t.Run("quota", func(t *testing.T) {
		f := start(t)
		f.sim.AddFault(ec2sim.Fault{Action: "CreateVolume", Code: "VolumeLimitExceeded"})
		_, err := f.CreateVolume(t.Context(), createInput(5))
		refused(t, err, contract.EC2Refused)
	})
	t.Run("own tags", func(t *testing.T) {
		f := start(t)
		in := createInput(5)
		in.Spec.Tags = map[string]string{"ebb:disk": "mine"}
		_, err := f.CreateVolume(t.Context(), in)
		refused(t, err, contract.BadInput)
	})
}

func TestAttachAndDetach(t *testing.T) {
	f := start(t)
	v := f.create(5)
	v = f.attach(v.ID, nodeA)
	require.Equal(t, nodeA, v.Node)
	require.Equal(t, "attached", v.AttachState)
	f.attach(v.ID, nodeA) // again
	require.Equal(t, 1, f.calls("AttachVolume"))

	_, err := f.AttachVolume(t.Context(), contract.AttachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeB})
	refused(t, err, contract.DiskBusy)
	_, err = f.AttachVolume(t.Context(), contract.AttachVolumeInput{Disk: other, Volume: v.ID, Node: nodeA})
	refused(t, err, contract.VolumeForeign)

	// Attached elsewhere: left alone.
	got, err := f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeB})
	require.NoError(t, err)
	require.Equal(t, nodeA, got.Node)
	// Forced: not while the instance runs.
	_, err = f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA, Force: true})
	refused(t, err, contract.DiskBusy)

	for range 2 {
		got, err = f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA})
		require.NoError(t, err)
		require.Empty(t, got.Node)
		require.Equal(t, "available", got.State)
	}
	f.attach(v.ID, nodeB)
	require.NoError(t, f.sim.SetInstanceState(nodeB, "stopped"))
	require.Eventually(t, func() bool { // describes lag behind
		_, err = f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeB, Force: true})
		return err == nil
	}, 2*time.Second, 20*time.Millisecond)

	_, err = f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: "vol-00000000000000099", Node: nodeA})
	require.NoError(t, err, "what is gone is detached")
}

func TestAttachRefusals(t *testing.T) {
	f := start(t)
	v := f.create(5)
	in := contract.AttachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeC}
	_, err := f.AttachVolume(t.Context(), in)
	refused(t, err, contract.ZoneMismatch)
	in.Node = "i-00000000000000099"
	_, err = f.AttachVolume(t.Context(), in)
	refused(t, err, contract.NodeUnknown)
	in.Node, in.Volume = nodeA, "vol-00000000000000099"
	_, err = f.AttachVolume(t.Context(), in)
	refused(t, err, contract.DiskIncomplete)
	f.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", Code: "AttachmentLimitExceeded"})
	in.Volume = v.ID
	_, err = f.AttachVolume(t.Context(), in)
	refused(t, err, contract.AttachSlotsFull)
}

func TestAttachFaults(t *testing.T) {
	for _, fault := range []ec2sim.Fault{
		{Action: "AttachVolume", LoseAnswer: true},
		{Action: "AttachVolume", Code: "InternalError", After: true},
		{Action: "AttachVolume", Code: "InvalidParameterValue", Message: "Invalid value '/dev/sdf' for unixDevice. Attachment point /dev/sdf is already in use"},
		{Action: "AttachVolume", Code: "IncorrectState"},
		{Action: "DescribeInstances", Code: "RequestLimitExceeded"},
	} {
		f := start(t)
		v := f.create(5)
		f.sim.AddFault(fault)
		require.NoError(t, f.until(func() error {
			_, err := f.AttachVolume(t.Context(), contract.AttachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA})
			return err
		}), "%+v", fault)
		f.sim.AddFault(ec2sim.Fault{Action: "DetachVolume", LoseAnswer: true})
		require.NoError(t, f.until(func() error {
			_, err := f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA})
			return err
		}))
	}
}

func TestDeviceNamesAreFree(t *testing.T) {
	f := start(t)
	seen := map[string]bool{}
	for i := range 14 {
		in := createInput(1)
		in.Index = i
		v, err := f.CreateVolume(t.Context(), in)
		require.NoError(t, err)
		f.attach(v.ID, nodeA)
		got, _ := f.sim.Volume(v.ID)
		require.False(t, seen[got.Attachment.Device], got.Attachment.Device)
		seen[got.Attachment.Device] = true
	}
	n, err := f.DescribeNode(t.Context(), contract.DescribeNodeInput{Node: nodeB})
	require.NoError(t, err)
	require.Equal(t, "running", n.State)
	require.Equal(t, zone, n.Zone)
	require.Eventually(t, func() bool { // a describe may be a moment behind
		m, err := f.DescribeNode(t.Context(), contract.DescribeNodeInput{Node: nodeA})
		return err == nil && m.FreeSlots == n.FreeSlots-14
	}, 5*time.Second, 5*time.Millisecond)
	_, err = f.DescribeNode(t.Context(), contract.DescribeNodeInput{Node: "i-00000000000000099"})
	refused(t, err, contract.NodeUnknown)
}

func TestModifyVolume(t *testing.T) {
	f := start(t)
	v := f.create(5)
	in := contract.ModifyVolumeInput{Disk: disk, Volume: v.ID, SizeGiB: 8}
	for range 3 { // again spends nothing
		got, err := f.ModifyVolume(t.Context(), in)
		require.NoError(t, err)
		require.EqualValues(t, 8, got.SizeGiB)
	}
	require.Equal(t, 1, f.calls("ModifyVolume"))
	in.SizeGiB = 9 // still optimizing
	_, err := f.ModifyVolume(t.Context(), in)
	refused(t, err, contract.ModificationLimit)
	require.NoError(t, f.sim.Advance(2*time.Hour))
	_, err = f.ModifyVolume(t.Context(), in)
	require.NoError(t, err)
	in.SizeGiB = 1 << 20
	_, err = f.ModifyVolume(t.Context(), in)
	refused(t, err, contract.SizeLimit)

	t.Run("lost answer", func(t *testing.T) {
		f := start(t)
		v := f.create(5)
		f.sim.AddFault(ec2sim.Fault{Action: "ModifyVolume", LoseAnswer: true})
		require.NoError(t, f.until(func() error {
			_, err := f.ModifyVolume(t.Context(), contract.ModifyVolumeInput{Disk: disk, Volume: v.ID, SizeGiB: 8})
			return err
		}))
		got, _ := f.sim.Volume(v.ID)
		require.Len(t, got.Modifications, 1)
	})
	t.Run("EBS gives up", func(t *testing.T) {
		f := start(t)
		v := f.create(5)
		in := contract.ModifyVolumeInput{Disk: disk, Volume: v.ID, SizeGiB: 8}
		f.sim.AddFault(ec2sim.Fault{Action: "ModifyVolume", FailAsync: "failed", Message: "no capacity"})
		_, err := f.ModifyVolume(t.Context(), in)
		r := refused(t, err, contract.ModificationLimit)
		require.Contains(t, r.Error(), "no capacity")
		require.Equal(t, v.ID, r.Volume)
		got, _ := f.sim.Volume(v.ID)
		require.EqualValues(t, 5, got.SizeGiB, "as it was")

		require.NoError(t, f.sim.Advance(time.Second)) // longer than a describe lags behind
		after, err := f.ModifyVolume(t.Context(), in)
		require.NoError(t, err, "the next try is a new modification")
		require.EqualValues(t, 8, after.SizeGiB)
		require.Equal(t, 2, f.calls("ModifyVolume"))
	})
}

func TestTagAndDelete(t *testing.T) {
	f := start(t)
	v := f.create(5)
	incoming := contract.DeleteVolumeInput{Disk: disk, Volume: v.ID, Roles: []contract.Role{contract.RoleIncoming}}
	retired := contract.DeleteVolumeInput{Disk: disk, Volume: v.ID, Roles: []contract.Role{contract.RoleRetired}}
	_, err := f.TagVolume(t.Context(), contract.TagVolumeInput{Disk: disk, Volume: v.ID, Role: contract.RoleActive, Generation: 4})
	require.NoError(t, err)
	_, err = f.DeleteVolume(t.Context(), incoming)
	refused(t, err, contract.DiskBusy)
	at := time.Now().UTC().Truncate(time.Second)
	_, err = f.TagVolume(t.Context(), contract.TagVolumeInput{Disk: disk, Volume: v.ID, Role: contract.RoleRetired, Generation: 4, RetiredAt: at})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		d, err := f.DescribeDisk(t.Context(), contract.DescribeDiskInput{Disk: disk})
		require.NoError(t, err)
		return d.Volumes[0].RetiredAt.Equal(at)
	}, 2*time.Second, 10*time.Millisecond)

	f.attach(v.ID, nodeA)
	_, err = f.DeleteVolume(t.Context(), retired)
	refused(t, err, contract.DetachStuck)
	_, err = f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA})
	require.NoError(t, err)
	foreign := retired
	foreign.Disk = other
	_, err = f.DeleteVolume(t.Context(), foreign)
	refused(t, err, contract.VolumeForeign)
	_, err = f.TagVolume(t.Context(), contract.TagVolumeInput{Disk: other, Volume: v.ID, Role: contract.RoleActive, Generation: 1})
	refused(t, err, contract.VolumeForeign)

	_, err = f.DeleteVolume(t.Context(), retired)
	refused(t, err, contract.DiskIncomplete)
	next := createInput(5)
	next.Generation, next.Move = 5, "run-2"
	n, err := f.CreateVolume(t.Context(), next)
	require.NoError(t, err)
	_, err = f.DeleteVolume(t.Context(), retired)
	refused(t, err, contract.DiskIncomplete)
	_, err = f.TagVolume(t.Context(), contract.TagVolumeInput{Disk: disk, Volume: n.ID, Role: contract.RoleActive, Generation: 5})
	require.NoError(t, err)

	f.sim.AddFault(ec2sim.Fault{Action: "DeleteVolume", LoseAnswer: true})
	require.NoError(t, f.until(func() error {
		_, err := f.DeleteVolume(t.Context(), retired)
		return err
	}))
	_, err = f.DeleteVolume(t.Context(), retired)
	require.NoError(t, err, "gone already")
	require.Len(t, f.sim.Volumes(), 1)
}

func TestSnapshots(t *testing.T) {
	f := start(t)
	var vols []string
	for i := range 3 {
		in := createInput(2)
		in.Index = i
		v, err := f.CreateVolume(t.Context(), in)
		require.NoError(t, err)
		f.attach(v.ID, nodeA)
		vols = append(vols, v.ID)
	}
	in := contract.SnapshotDiskInput{Disk: disk, Node: nodeA, Volumes: vols[:2], Move: "run-2", Reason: "test"}
	out, err := f.SnapshotDisk(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, out.Snapshots, 2)
	require.Len(t, f.sim.Snapshots(), 2, "the third volume is left out")
	time.Sleep(60 * time.Millisecond) // longer than a describe lags behind
	again, err := f.SnapshotDisk(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, out, again)

	in.Volumes, in.Move = vols[:1], "run-3"
	f.sim.AddFault(ec2sim.Fault{Action: "CreateSnapshot", Code: "SnapshotCreationPerVolumeRateExceeded"})
	require.NoError(t, f.until(func() error { _, err := f.SnapshotDisk(t.Context(), in); return err }))
	_, err = f.SnapshotDisk(t.Context(), contract.SnapshotDiskInput{Disk: disk})
	require.Error(t, err)
}

func TestWaitForBackups(t *testing.T) {
	f := start(t, func(o *ec2sim.Options) { o.Lag.Snapshot = ec2sim.Fixed(300 * time.Millisecond) })
	v := f.create(2)
	wait := contract.WaitForBackupsInput{Disk: disk, Volumes: []string{v.ID}}
	out, err := f.WaitForBackups(t.Context(), wait)
	require.NoError(t, err)
	require.Empty(t, out.Waited)

	snap, err := f.api.CreateSnapshot(t.Context(), &awsec2.CreateSnapshotInput{VolumeId: &v.ID})
	require.NoError(t, err)
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	out, err = f.WaitForBackups(t.Context(), wait)
	require.NoError(t, err)
	require.Equal(t, []string{*snap.SnapshotId}, out.Waited)
	require.Greater(t, time.Since(began), 100*time.Millisecond)

	// Ebb's own does not count.
	_, err = f.SnapshotDisk(t.Context(), contract.SnapshotDiskInput{Disk: disk, Volumes: []string{v.ID}, Move: "run-9"})
	require.NoError(t, err)
	out, err = f.WaitForBackups(t.Context(), wait)
	require.NoError(t, err)
	require.Empty(t, out.Waited)
}

func TestListDisks(t *testing.T) {
	f := start(t)
	v := f.create(2)
	in := createInput(2)
	in.Disk = other
	_, err := f.CreateVolume(t.Context(), in)
	require.NoError(t, err)
	_, err = f.api.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3,
	})
	require.NoError(t, err)
	_, err = f.TagVolume(t.Context(), contract.TagVolumeInput{Disk: disk, Volume: v.ID, Role: contract.RoleActive, Generation: 3})
	require.NoError(t, err)
	f.attach(v.ID, nodeA)
	require.Eventually(t, func() bool {
		all, err := f.ListDisks(t.Context(), contract.ListDisksInput{})
		require.NoError(t, err)
		here, err := f.ListDisks(t.Context(), contract.ListDisksInput{Node: nodeA})
		require.NoError(t, err)
		return len(all.Disks) == 2 && len(here.Disks) == 1 && here.Disks[0].Disk == disk && here.Disks[0].Node() == nodeA
	}, 2*time.Second, 20*time.Millisecond)
	none, err := f.DescribeDisk(t.Context(), contract.DescribeDiskInput{Disk: "d-00000000000000099"})
	require.NoError(t, err)
	require.Empty(t, none.Volumes)
}
