package ec2

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// ownTag says that a tag is Ebb's or AWS's, not the user's.
func ownTag(key string) bool {
	return strings.HasPrefix(key, "ebb:") || strings.HasPrefix(key, "aws:")
}

func tagMap(tags []types.Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}

func tagOf(tags []types.Tag, key string) string {
	for _, t := range tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

// restored says that a volume was made from a snapshot. Ebb's are made empty.
func restored(v types.Volume) bool { return aws.ToString(v.SnapshotId) != "" }

// diskTag is the disk that a volume's tags name, if any. One that was restored from a
// snapshot is no disk's: backup tools copy tags, and the header on it names another
// volume.
func diskTag(v types.Volume) string {
	if restored(v) {
		return ""
	}
	return tagOf(v.Tags, contract.TagDisk)
}

// facts reads a volume as EC2 describes it.
func facts(v types.Volume) contract.VolumeFacts {
	tags := tagMap(v.Tags)
	f := contract.VolumeFacts{
		ID: aws.ToString(v.VolumeId), State: string(v.State), SizeGiB: int64(aws.ToInt32(v.Size)), Type: string(v.VolumeType),
		IOPS: aws.ToInt32(v.Iops), ThroughputMiBs: aws.ToInt32(v.Throughput), Zone: aws.ToString(v.AvailabilityZone),
		Encrypted: aws.ToBool(v.Encrypted), KMSKeyID: aws.ToString(v.KmsKeyId), CreatedAt: aws.ToTime(v.CreateTime),
		Role: contract.Role(tags[contract.TagRole]), Move: tags[contract.TagMove],
	}
	f.Generation, _ = strconv.ParseUint(tags[contract.TagGeneration], 10, 64)
	f.Index, _ = strconv.Atoi(tags[contract.TagIndex])
	f.Modified = modifiedTimes(tags[contract.TagModified])
	f.RetiredAt, _ = time.Parse(time.RFC3339, tags[contract.TagRetiredAt])
	for _, at := range v.Attachments {
		if at.State != types.VolumeAttachmentStateDetached {
			f.Node, f.AttachState = aws.ToString(at.InstanceId), string(at.State)
		}
	}
	for k, val := range tags {
		if !ownTag(k) {
			if f.Tags == nil {
				f.Tags = map[string]string{}
			}
			f.Tags[k] = val
		}
	}
	return f
}

// gone says that a volume is of no use any more.
func gone(v types.Volume) bool {
	return v.State == types.VolumeStateDeleting || v.State == types.VolumeStateDeleted
}

// volumes lists what matches all filters, deleted ones left out. It is for one disk's
// or node's few: a growth in need asks for them and takes no turn after the long lists.
func (a *Activities) volumes(ctx context.Context, filters ...types.Filter) ([]types.Volume, error) {
	var out []types.Volume
	at := func(ctx context.Context, what string, get func(context.Context) error) error {
		return a.poll(ctx, what, func(ctx context.Context) (bool, error) { return true, get(ctx) })
	}
	err := a.eachPage(ctx, at, filters, func(vs []types.Volume) { out = append(out, vs...) })
	return out, err
}

// volume describes one volume by its id; nil when EC2 does not know it or it is
// deleted.
func (a *Activities) volume(ctx context.Context, id string) (*types.Volume, error) {
	out, err := a.api.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if code(err) == codeVolumeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(out.Volumes) == 0 || gone(out.Volumes[0]) {
		return nil, nil
	}
	return &out.Volumes[0], nil
}

// look describes one volume like volume, but believes that it does not exist
// only after a while: a describe may answer from before its creation.
func (a *Activities) look(ctx context.Context, id string) (v *types.Volume, err error) {
	until := time.Now().Add(a.Settle / 4)
	err = a.poll(ctx, "EC2 knows volume "+id, func(ctx context.Context) (bool, error) {
		asked := time.Now() // what is seen is no newer than the question
		v, err = a.volume(ctx, id)
		return v != nil || asked.After(until), err
	})
	return v, err
}

// ours describes a volume that must exist and belong to the disk. A describe
// that lags behind gets time to catch up.
func (a *Activities) ours(ctx context.Context, disk contract.DiskID, id string) (types.Volume, error) {
	var v types.Volume
	err := a.settled(ctx, "EC2 knows volume "+id, func(ctx context.Context) error {
		got, err := a.volume(ctx, id)
		switch {
		case err != nil:
			return err
		case got == nil:
			return contract.Refuse(contract.DiskIncomplete, "EC2 does not know the volume").WithDisk(disk).WithVolume(id).
				WithNext("look for the volume, or restore it from a snapshot")
		case diskTag(*got) != string(disk):
			return contract.Refuse(contract.VolumeForeign, "the volume's tags do not say that it belongs to the disk, or it was restored from a snapshot").
				WithDisk(disk).WithVolume(id).WithNext("look at the volume's ebb: tags and its snapshot")
		}
		v = *got
		return nil
	})
	return v, err
}

func tagFilter(key, value string) types.Filter {
	return types.Filter{Name: aws.String("tag:" + key), Values: []string{value}}
}

// DescribeDisk implements contract.DescribeDisk.
func (a *Activities) DescribeDisk(ctx context.Context, in contract.DescribeDiskInput) (contract.DiskFacts, error) {
	vs, err := a.volumes(ctx, tagFilter(contract.TagDisk, string(in.Disk)))
	if err != nil {
		return contract.DiskFacts{}, translate(err, in.Disk, "")
	}
	d := contract.DiskFacts{Disk: in.Disk}
	for _, v := range vs {
		add(&d, v)
	}
	finish(&d)
	return d, nil
}

func add(d *contract.DiskFacts, v types.Volume) {
	d.Volumes = append(d.Volumes, facts(v))
	if name := tagMap(v.Tags)[contract.TagName]; name != "" {
		d.Name = name
	}
}

// finish sorts a disk's volumes and shares what is the disk's among them.
func finish(d *contract.DiskFacts) {
	shareModified(d)
	slices.SortFunc(d.Volumes, func(x, y contract.VolumeFacts) int {
		switch {
		case x.Generation != y.Generation:
			if x.Generation < y.Generation {
				return -1
			}
			return 1
		case x.Index != y.Index:
			return x.Index - y.Index
		}
		return strings.Compare(x.ID, y.ID)
	})
}
