package ec2

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// lastReason is how DeleteDisk describes a disk's last snapshot, which is kept for
// ever.
const lastReason = ": before the disk's deletion"

// made says that a snapshot is one that Ebb took of the disk before an operation
// that did not delete the disk.
func (a *Activities) made(s types.Snapshot) (disk contract.DiskID, ok bool) {
	tags := tagMap(s.Tags)
	disk = contract.DiskID(tags[contract.TagDisk])
	return disk, disk.Validate() == nil && tags[contract.TagMove] != "" && tags[contract.TagSet] != "" &&
		(a.Cluster == "" || tags[contract.TagCluster] == a.Cluster) &&
		!strings.HasSuffix(aws.ToString(s.Description), lastReason)
}

// oldSnapshots lists those older than the retention whose disk is known.
func (a *Activities) oldSnapshots(ctx context.Context, known map[contract.DiskID]bool, age ages) ([]contract.Leftover, error) {
	var out []contract.Leftover
	pages := ec2.NewDescribeSnapshotsPaginator(a.api, &ec2.DescribeSnapshotsInput{
		Filters: a.all(contract.TagSet), OwnerIds: []string{"self"}, MaxResults: aws.Int32(pageSize),
	})
	for pages.HasMorePages() {
		err := a.inTurn(ctx, "EC2 lists the snapshots", func(ctx context.Context) error {
			page, err := pages.NextPage(ctx, unretried)
			if err != nil {
				return err
			}
			for _, s := range page.Snapshots {
				begun := aws.ToTime(s.StartTime)
				disk, ok := a.made(s)
				if !ok || !known[disk] || s.State == types.SnapshotStatePending || a.Now().Before(begun.Add(retentionOf(s, age.retention))) {
					continue
				}
				out = append(out, contract.Leftover{
					Disk: disk, Snapshot: aws.ToString(s.SnapshotId), GiB: int64(aws.ToInt32(s.VolumeSize)), Since: begun,
					Move:   tagOf(s.Tags, contract.TagMove),
					Reason: fmt.Sprintf("taken %s of %s, the retention is over", begun.UTC().Format(time.RFC3339), aws.ToString(s.VolumeId)),
				})
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// retentionOf is how long the snapshot says that it is to be kept, else otherwise.
// What cannot be read is kept for ever.
func retentionOf(s types.Snapshot, otherwise time.Duration) time.Duration {
	tag, ok := tagMap(s.Tags)[contract.TagRetention]
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(tag)
	if err != nil || d < 0 {
		return math.MaxInt64
	}
	return d
}

// DeleteSnapshot deletes a snapshot that Ebb took of the disk, while the disk
// exists: a deleted disk's snapshots may be all that is left of it. Several
// describes must agree. One that is gone already is success; it is safe to repeat.
func (a *Activities) DeleteSnapshot(ctx context.Context, disk contract.DiskID, snapshot string) error {
	return translate(a.deleteSnapshot(ctx, disk, snapshot), disk, "")
}

func (a *Activities) deleteSnapshot(ctx context.Context, disk contract.DiskID, id string) error {
	exists, err := a.mayDeleteSnapshot(ctx, disk, id)
	if err != nil || !exists {
		return err
	}
	_, err = a.api.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
	switch code(err) {
	case codeSnapshotNotFound:
		return nil
	case codeSnapshotInUse:
		return contract.Refuse(contract.DiskBusy, "snapshot %s is in use, by an image or a lock; it is kept", id).
			WithNext("remove what uses it, or keep it")
	}
	return err
}

// mayDeleteSnapshot decides from several describes, like mayDelete.
func (a *Activities) mayDeleteSnapshot(ctx context.Context, disk contract.DiskID, id string) (exists bool, err error) {
	err = a.agreed(ctx, "snapshot "+id+" may be deleted", func(ctx context.Context) (no, err error) {
		exists, no, err = a.snapshotNeeded(ctx, disk, id)
		return no, err
	})
	return exists, err
}

// snapshotNeeded looks once; no is why the snapshot is kept.
func (a *Activities) snapshotNeeded(ctx context.Context, disk contract.DiskID, id string) (exists bool, no, err error) {
	out, err := a.api.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}, OwnerIds: []string{"self"}})
	if code(err) == codeSnapshotNotFound || err == nil && len(out.Snapshots) == 0 {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	if of, ok := a.made(out.Snapshots[0]); !ok || of != disk {
		return true, contract.Refuse(contract.VolumeForeign, "snapshot %s is not one that Ebb took of the disk before an operation; it is kept", id).
			WithNext("look at the snapshot's ebb: tags and description"), nil
	}
	facts, err := a.DescribeDisk(ctx, contract.DescribeDiskInput{Disk: disk})
	if err != nil {
		return true, nil, err
	}
	if len(facts.Active()) == 0 {
		return true, contract.Refuse(contract.DiskUnknown, "the disk has no active volume, so snapshot %s may be all that is left of it; it is kept", id).
			WithNext("delete the snapshot by hand if nobody needs the disk's data"), nil
	}
	return true, nil, nil
}
