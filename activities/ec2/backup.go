package ec2

import (
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// WaitForBackups implements contract.WaitForBackups.
func (a *Activities) WaitForBackups(ctx context.Context, in contract.WaitForBackupsInput) (contract.WaitForBackupsResult, error) {
	var out contract.WaitForBackupsResult
	err := a.poll(ctx, fmt.Sprintf("no backup of disk %s runs", in.Disk), func(ctx context.Context) (bool, error) {
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
		return contract.SnapshotDiskResult{}, contract.Refuse(contract.BadInput, "no volume to snapshot").WithDisk(in.Disk)
	}
	ids, err := a.Backup.Snapshot(ctx, in)
	return contract.SnapshotDiskResult{Snapshots: ids}, translate(err, in.Disk, "")
}

// Snapshots is the Backuper of EC2 snapshots.
type Snapshots struct {
	api     API
	cluster string
}

// NewSnapshots makes a Backuper of EC2 snapshots.
func NewSnapshots(api API, cluster string) *Snapshots { return &Snapshots{api, cluster} }

// Running implements Backuper: pending snapshots, whoever makes them (a backup
// tool, DLM, AWS Backup, a person).
func (s *Snapshots) Running(ctx context.Context, volumes []string) ([]string, error) {
	if len(volumes) == 0 {
		return nil, nil
	}
	all, err := s.list(ctx, types.Filter{Name: aws.String("volume-id"), Values: volumes},
		types.Filter{Name: aws.String("status"), Values: []string{string(types.SnapshotStatePending)}})
	var out []string
	for _, snap := range all {
		if snap.State == types.SnapshotStatePending && tagMap(snap.Tags)[contract.TagMove] == "" {
			out = append(out, aws.ToString(snap.SnapshotId))
		}
	}
	return out, err
}

// Snapshot implements Backuper. Several volumes attached to one instance are
// taken at the same moment.
func (s *Snapshots) Snapshot(ctx context.Context, in contract.SnapshotDiskInput) ([]string, error) {
	found, err := s.list(ctx, tagFilter(contract.TagDisk, string(in.Disk)), tagFilter(contract.TagMove, in.Move))
	if err != nil {
		return nil, err
	}
	have := map[string]string{} // by volume
	for _, snap := range found {
		if snap.State != types.SnapshotStateError {
			have[aws.ToString(snap.VolumeId)] = aws.ToString(snap.SnapshotId)
		}
	}
	missing := slices.DeleteFunc(slices.Clone(in.Volumes), func(v string) bool { return have[v] != "" })
	switch {
	case len(missing) == 0:
	case len(in.Volumes) > 1 && in.Node != "":
		// All again: a set must be of one moment.
		err = s.together(ctx, in, have)
	default:
		for _, v := range missing {
			if err = s.one(ctx, in, v, have); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, err
	}
	out := make([]string, len(in.Volumes))
	for i, v := range in.Volumes {
		out[i] = have[v]
	}
	return out, nil
}

// once keeps the SDK from repeating a call that has no client token: what a
// failed one has done is looked for before the next.
func once(o *ec2.Options) { o.Retryer = aws.NopRetryer{} }

func (s *Snapshots) one(ctx context.Context, in contract.SnapshotDiskInput, volume string, have map[string]string) error {
	out, err := s.api.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{
		VolumeId: &volume, Description: aws.String(s.describe(in)), TagSpecifications: s.tags(in),
	}, once)
	if err == nil {
		have[volume] = aws.ToString(out.SnapshotId)
	}
	return err
}

func (s *Snapshots) together(ctx context.Context, in contract.SnapshotDiskInput, have map[string]string) error {
	attached, err := s.api.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{
		Filters: []types.Filter{{Name: aws.String("attachment.instance-id"), Values: []string{in.Node}}},
	})
	if err != nil {
		return err
	}
	spec := &types.InstanceSpecification{InstanceId: &in.Node, ExcludeBootVolume: aws.Bool(true)}
	inst, err := s.api.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{in.Node}})
	if err != nil {
		return err
	}
	root := ""
	for _, r := range inst.Reservations {
		for _, i := range r.Instances {
			root = rootVolume(i)
		}
	}
	for _, v := range attached.Volumes {
		if id := aws.ToString(v.VolumeId); id != root && !slices.Contains(in.Volumes, id) {
			spec.ExcludeDataVolumeIds = append(spec.ExcludeDataVolumeIds, id)
		}
	}
	out, err := s.api.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{
		InstanceSpecification: spec, Description: aws.String(s.describe(in)), TagSpecifications: s.tags(in),
	}, once)
	if err != nil {
		return err
	}
	for _, snap := range out.Snapshots {
		have[aws.ToString(snap.VolumeId)] = aws.ToString(snap.SnapshotId)
	}
	for _, v := range in.Volumes {
		if have[v] == "" {
			return fmt.Errorf("volume %s is not attached to %s", v, in.Node)
		}
	}
	return nil
}

func rootVolume(i types.Instance) string {
	for _, m := range i.BlockDeviceMappings {
		if aws.ToString(m.DeviceName) == aws.ToString(i.RootDeviceName) && m.Ebs != nil {
			return aws.ToString(m.Ebs.VolumeId)
		}
	}
	return ""
}

func (s *Snapshots) describe(in contract.SnapshotDiskInput) string {
	return fmt.Sprintf("ebb disk %s: %s", in.Disk, in.Reason)
}

func (s *Snapshots) tags(in contract.SnapshotDiskInput) []types.TagSpecification {
	tags := map[string]string{contract.TagDisk: string(in.Disk), contract.TagMove: in.Move}
	if s.cluster != "" {
		tags[contract.TagCluster] = s.cluster
	}
	return []types.TagSpecification{{ResourceType: types.ResourceTypeSnapshot, Tags: tagList(tags)}}
}

func (s *Snapshots) list(ctx context.Context, filters ...types.Filter) ([]types.Snapshot, error) {
	var out []types.Snapshot
	pages := ec2.NewDescribeSnapshotsPaginator(s.api, &ec2.DescribeSnapshotsInput{Filters: filters, OwnerIds: []string{"self"}, MaxResults: aws.Int32(500)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		out = append(out, page.Snapshots...)
	}
	return out, nil
}
