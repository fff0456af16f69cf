package ec2

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Snapshots is the Backuper of EC2 snapshots. CreateSnapshot and
// CreateSnapshots have no client token. What an earlier run made is therefore
// found by its tags, which are set in the call that creates it: the disk, the
// operation and the set of snapshots that one call made. Before a snapshot is
// asked for, the describes get time to show what was asked for before; when two
// were made all the same, the older set is kept.
type Snapshots struct {
	api API
	Options
}

// NewSnapshots makes a Backuper of EC2 snapshots.
func NewSnapshots(api API, o Options) *Snapshots { return &Snapshots{api, o.withDefaults()} }

// Running implements Backuper: pending snapshots, whoever makes them (a backup
// tool, DLM, AWS Backup, a person), but Ebb's own. Those alone have TagSet: the
// other tags are on the volumes as well, and backup tools may copy them.
func (s *Snapshots) Running(ctx context.Context, volumes []string) ([]string, error) {
	if len(volumes) == 0 {
		return nil, nil
	}
	all, err := s.list(ctx, types.Filter{Name: aws.String("volume-id"), Values: volumes},
		types.Filter{Name: aws.String("status"), Values: []string{string(types.SnapshotStatePending)}})
	var out []string
	for _, snap := range all {
		if snap.State == types.SnapshotStatePending && tagOf(snap.Tags, contract.TagSet) == "" {
			out = append(out, aws.ToString(snap.SnapshotId))
		}
	}
	return out, err
}

// Snapshot implements Backuper. Several volumes attached to one instance are
// taken at the same moment.
func (s *Snapshots) Snapshot(ctx context.Context, in contract.SnapshotDiskInput) ([]string, error) {
	groups := [][]string{in.Volumes}
	if in.Node == "" {
		groups = nil
		for _, v := range in.Volumes {
			groups = append(groups, []string{v})
		}
	}
	have := map[string]string{} // by volume
	for _, g := range groups {
		set, err := s.group(ctx, in, g)
		if err == nil && in.Complete {
			err = s.completed(ctx, set)
		}
		if err != nil {
			return nil, err
		}
		for _, snap := range set {
			have[aws.ToString(snap.VolumeId)] = aws.ToString(snap.SnapshotId)
		}
	}
	out := make([]string, len(in.Volumes))
	for i, v := range in.Volumes {
		out[i] = have[v]
	}
	return out, nil
}

// completed waits until all of a set is complete. A snapshot that failed is an
// error: another run makes a new set.
func (s *Snapshots) completed(ctx context.Context, set snapshotSet) error {
	o := s.Options
	o.PollMax = max(o.PollMax, backupPollMax)
	for _, snap := range set {
		id := aws.ToString(snap.SnapshotId)
		err := o.poll(ctx, "snapshot "+id+" is complete", func(ctx context.Context) (bool, error) {
			out, err := s.api.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}, OwnerIds: []string{"self"}})
			if code(err) == codeSnapshotNotFound { // a describe lags behind
				return false, nil
			}
			if err != nil || len(out.Snapshots) == 0 {
				return false, err
			}
			now := out.Snapshots[0]
			if now.State == types.SnapshotStateError {
				return false, fmt.Errorf("snapshot %s failed: %s", id, aws.ToString(now.StateMessage))
			}
			return now.State == types.SnapshotStateCompleted, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// group finds or makes the snapshots of volumes that are taken together.
func (s *Snapshots) group(ctx context.Context, in contract.SnapshotDiskInput, volumes []string) (snapshotSet, error) {
	// An earlier run may have asked a moment ago.
	until := time.Now().Add(s.Settle / 4)
	if repeated(ctx) {
		until = time.Now().Add(s.Settle)
	}
	sets, err := s.lookFor(ctx, in, volumes, func(sets []snapshotSet, asked time.Time) bool { return len(sets) > 0 || asked.After(until) })
	if err != nil {
		return nil, err
	}
	if len(sets) == 0 {
		made := rand.Text()
		if err := s.take(ctx, in, volumes, made); err != nil {
			return nil, err
		}
		// Only what EC2 shows counts; an older set may come to light with it.
		until = time.Now().Add(s.Settle)
		sets, err = s.lookFor(ctx, in, volumes, func(sets []snapshotSet, asked time.Time) bool {
			return slices.ContainsFunc(sets, func(set snapshotSet) bool { return set.id() == made }) || asked.After(until)
		})
		if err != nil {
			return nil, err
		}
		if len(sets) == 0 {
			return nil, fmt.Errorf("the snapshots of %v were begun but EC2 does not show them", volumes)
		}
	}
	s.drop(ctx, sets[1:])
	return sets[0], nil
}

// lookFor lists the whole sets of this step until enough says so.
func (s *Snapshots) lookFor(ctx context.Context, in contract.SnapshotDiskInput, volumes []string, enough func([]snapshotSet, time.Time) bool) ([]snapshotSet, error) {
	var sets []snapshotSet
	err := s.poll(ctx, "EC2 shows the snapshots of "+in.Move, func(ctx context.Context) (bool, error) {
		asked := time.Now() // what is seen is no newer than the question
		found, err := s.list(ctx, tagFilter(contract.TagDisk, string(in.Disk)), tagFilter(contract.TagMove, in.Move))
		sets = setsOf(found, volumes)
		return enough(sets, asked), err
	})
	return sets, err
}

// snapshotSet is the snapshots that one call made, in the order of the volumes.
type snapshotSet []types.Snapshot

func (s snapshotSet) id() string { return tagMap(s[0].Tags)[contract.TagSet] }

// setsOf sorts the snapshots of one step into sets that have all volumes and no
// failed snapshot, the oldest first. The order does not depend on how far they
// are, so that two runs at the same time choose the same.
func setsOf(found []types.Snapshot, volumes []string) []snapshotSet {
	by := map[string]map[string]types.Snapshot{}
	for _, snap := range found {
		id, volume := tagMap(snap.Tags)[contract.TagSet], aws.ToString(snap.VolumeId)
		if id == "" || snap.State == types.SnapshotStateError || !slices.Contains(volumes, volume) {
			continue
		}
		if by[id] == nil {
			by[id] = map[string]types.Snapshot{}
		}
		by[id][volume] = snap
	}
	var out []snapshotSet
	for _, m := range by {
		if len(m) < len(volumes) {
			continue
		}
		set := make(snapshotSet, len(volumes))
		for i, v := range volumes {
			set[i] = m[v]
		}
		out = append(out, set)
	}
	slices.SortFunc(out, func(a, b snapshotSet) int {
		return cmp.Or(aws.ToTime(a[0].StartTime).Compare(aws.ToTime(b[0].StartTime)), cmp.Compare(a.id(), b.id()))
	})
	return out
}

// drop deletes sets that were made twice. All of them carry the tags of this
// disk and this step. Failing costs their storage and nothing else.
func (s *Snapshots) drop(ctx context.Context, sets []snapshotSet) {
	for _, set := range sets {
		for _, snap := range set {
			id := aws.ToString(snap.SnapshotId)
			_, err := s.api.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &id})
			if err != nil && code(err) != codeSnapshotNotFound {
				s.Log.Warn("A snapshot that was made twice could not be deleted; it is not needed", "snapshot", id, "error", err)
				continue
			}
			s.Log.Info("Deleted a snapshot that was made twice", "snapshot", id, "volume", aws.ToString(snap.VolumeId))
		}
	}
}

// take asks for the snapshots of one set.
func (s *Snapshots) take(ctx context.Context, in contract.SnapshotDiskInput, volumes []string, set string) error {
	if len(volumes) > 1 {
		return s.together(ctx, in, volumes, set)
	}
	_, err := s.api.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{
		VolumeId: &volumes[0], Description: aws.String(s.describe(in)), TagSpecifications: s.tags(in, set),
	}, once)
	return err
}

// maxExcluded is how many volumes CreateSnapshots leaves out at most.
const maxExcluded = 40

func (s *Snapshots) together(ctx context.Context, in contract.SnapshotDiskInput, volumes []string, set string) error {
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
	here := map[string]bool{}
	for _, v := range attached.Volumes {
		id := aws.ToString(v.VolumeId)
		here[id] = true
		if id != root && !slices.Contains(volumes, id) {
			spec.ExcludeDataVolumeIds = append(spec.ExcludeDataVolumeIds, id)
		}
	}
	for _, v := range volumes { // before anything is made that would be of no use
		if !here[v] {
			return fmt.Errorf("volume %s is not attached to %s", v, in.Node)
		}
	}
	if n := len(spec.ExcludeDataVolumeIds); n > maxExcluded {
		return contract.Refuse(contract.EC2Refused,
			"%d volumes beside the disk's are attached to %s: EC2 leaves at most %d out of a snapshot of several volumes", n, in.Node, maxExcluded).
			WithNext("bring the disk to a node with fewer volumes, or do without the snapshot: --no-snapshot")
	}
	_, err = s.api.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{
		InstanceSpecification: spec, Description: aws.String(s.describe(in)), TagSpecifications: s.tags(in, set),
	}, once)
	return err
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

func (s *Snapshots) tags(in contract.SnapshotDiskInput, set string) []types.TagSpecification {
	tags := map[string]string{contract.TagDisk: string(in.Disk), contract.TagMove: in.Move, contract.TagSet: set}
	if s.Cluster != "" {
		tags[contract.TagCluster] = s.Cluster
	}
	if in.Retention > 0 {
		tags[contract.TagRetention] = in.Retention.String()
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
