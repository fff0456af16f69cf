package ec2

import (
	"context"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/contract"
)

// API is the EC2 calls the activities make; *ec2.Client implements it.
type API interface {
	DescribeVolumes(context.Context, *ec2.DescribeVolumesInput, ...func(*ec2.Options)) (*ec2.DescribeVolumesOutput, error)
	DescribeVolumesModifications(context.Context, *ec2.DescribeVolumesModificationsInput, ...func(*ec2.Options)) (*ec2.DescribeVolumesModificationsOutput, error)
	DescribeInstances(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
	DescribeInstanceTypes(context.Context, *ec2.DescribeInstanceTypesInput, ...func(*ec2.Options)) (*ec2.DescribeInstanceTypesOutput, error)
	DescribeSnapshots(context.Context, *ec2.DescribeSnapshotsInput, ...func(*ec2.Options)) (*ec2.DescribeSnapshotsOutput, error)
	CreateVolume(context.Context, *ec2.CreateVolumeInput, ...func(*ec2.Options)) (*ec2.CreateVolumeOutput, error)
	AttachVolume(context.Context, *ec2.AttachVolumeInput, ...func(*ec2.Options)) (*ec2.AttachVolumeOutput, error)
	DetachVolume(context.Context, *ec2.DetachVolumeInput, ...func(*ec2.Options)) (*ec2.DetachVolumeOutput, error)
	ModifyVolume(context.Context, *ec2.ModifyVolumeInput, ...func(*ec2.Options)) (*ec2.ModifyVolumeOutput, error)
	DeleteVolume(context.Context, *ec2.DeleteVolumeInput, ...func(*ec2.Options)) (*ec2.DeleteVolumeOutput, error)
	CreateTags(context.Context, *ec2.CreateTagsInput, ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error)
	CreateSnapshot(context.Context, *ec2.CreateSnapshotInput, ...func(*ec2.Options)) (*ec2.CreateSnapshotOutput, error)
	CreateSnapshots(context.Context, *ec2.CreateSnapshotsInput, ...func(*ec2.Options)) (*ec2.CreateSnapshotsOutput, error)
	DeleteSnapshot(context.Context, *ec2.DeleteSnapshotInput, ...func(*ec2.Options)) (*ec2.DeleteSnapshotOutput, error)
}

// Backuper is what an operation asks of whatever backs the disks up: EC2
// snapshots (NewSnapshots), or a backup tool.
type Backuper interface {
	// Running names the backups of the volumes that have not ended. Ebb's own
	// snapshots do not count.
	Running(ctx context.Context, volumes []string) ([]string, error)
	// Snapshot makes, or finds, a crash-consistent copy of all volumes of the
	// disk for the operation named Move, and returns one id per volume. Unless
	// Complete is set it need not wait until the copy is complete, only until its
	// moment is fixed.
	Snapshot(ctx context.Context, in contract.SnapshotDiskInput) ([]string, error)
}

// Options of the activities. The zero value works.
type Options struct {
	// Cluster, when set, is tagged on everything created, and ListDisks lists
	// only that cluster's disks.
	Cluster string
	// PollMin and PollMax bound the time between two describes of a wait.
	// Default 500 ms and 5 s.
	PollMin, PollMax time.Duration
	// Settle is how long a describe may lag behind: a contradiction that lasts
	// longer is taken for the truth. Default 20 s.
	Settle time.Duration
	// Outage is for how long describes may fail by what may pass (throttling, a
	// server's error, the network) before a wait or a list gives up. Default 2 min.
	Outage time.Duration
	// Now tells the time by which ages are judged. Default time.Now.
	Now func() time.Time
	// Backup defaults to EC2 snapshots.
	Backup Backuper
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Activities implements the control activities. Its methods are safe for
// concurrent use and return Go errors, with a *contract.Refusal in the chain
// where the answer is an expected "no".
type Activities struct {
	api API
	Options
	pages chan struct{} // one for each page of a list that is asked for now
}

// pagesAtOnce bounds what lists of the whole account take of EC2's request rate,
// which is the account's and which a growth in need shares.
const pagesAtOnce = 2

func (o Options) withDefaults() Options {
	if o.PollMin <= 0 {
		o.PollMin = 500 * time.Millisecond
	}
	if o.PollMax < o.PollMin {
		o.PollMax = max(5*time.Second, o.PollMin)
	}
	if o.Settle <= 0 {
		o.Settle = 20 * time.Second
	}
	if o.Outage <= 0 {
		o.Outage = 2 * time.Minute
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// New makes the activities.
func New(api API, o Options) *Activities {
	o = o.withDefaults()
	if o.Backup == nil {
		o.Backup = NewSnapshots(api, o)
	}
	return &Activities{api: api, Options: o, pages: make(chan struct{}, pagesAtOnce)}
}

// Register binds the activities on a worker of ControlQueue.
func (a *Activities) Register(r worker.ActivityRegistry) {
	contract.DescribeDisk.Register(r, a.DescribeDisk)
	contract.ListDisks.Register(r, a.ListDisks)
	contract.DescribeNode.Register(r, a.DescribeNode)
	contract.CreateVolume.Register(r, a.CreateVolume)
	contract.AttachVolume.Register(r, a.AttachVolume)
	contract.DetachVolume.Register(r, a.DetachVolume)
	contract.ModifyVolume.Register(r, a.ModifyVolume)
	contract.TagVolume.Register(r, a.TagVolume)
	contract.DeleteVolume.Register(r, a.DeleteVolume)
	contract.WaitForBackups.Register(r, a.WaitForBackups)
	contract.SnapshotDisk.Register(r, a.SnapshotDisk)
}
