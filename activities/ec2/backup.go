package ec2

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// backupPollMax is the longest pause between two looks for running backups. They
// take minutes to hours, and in a backup window many disks wait.
const backupPollMax = time.Minute

// WaitForBackups implements contract.WaitForBackups.
func (a *Activities) WaitForBackups(ctx context.Context, in contract.WaitForBackupsInput) (contract.WaitForBackupsResult, error) {
	var out contract.WaitForBackupsResult
	o := a.Options
	o.PollMax = max(o.PollMax, backupPollMax)
	err := o.poll(ctx, fmt.Sprintf("no backup of disk %s runs", in.Disk), func(ctx context.Context) (bool, error) {
		run, err := a.Backup.Running(ctx, in.Volumes)
		for _, id := range run {
			if !slices.Contains(out.Waited, id) {
				out.Waited = append(out.Waited, id)
			}
		}
		return len(run) == 0, err
	})
	return out, translate(err, in.Disk, "")
}

// SnapshotDisk implements contract.SnapshotDisk.
func (a *Activities) SnapshotDisk(ctx context.Context, in contract.SnapshotDiskInput) (contract.SnapshotDiskResult, error) {
	if len(in.Volumes) == 0 {
		return contract.SnapshotDiskResult{}, contract.Refuse(contract.BadInput, "no volume to snapshot").WithDisk(in.Disk).WithNext("name the disk's active volumes")
	}
	ids, err := a.Backup.Snapshot(ctx, in)
	return contract.SnapshotDiskResult{Snapshots: ids}, translate(err, in.Disk, "")
}
