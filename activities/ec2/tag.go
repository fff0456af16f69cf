package ec2

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TagVolume implements contract.TagVolume. It returns when a describe shows the
// tags.
func (a *Activities) TagVolume(ctx context.Context, in contract.TagVolumeInput) (struct{}, error) {
	return struct{}{}, translate(a.tag(ctx, in), in.Disk, in.Volume)
}

func (a *Activities) tag(ctx context.Context, in contract.TagVolumeInput) error {
	want := map[string]string{
		contract.TagRole:       string(in.Role),
		contract.TagGeneration: strconv.FormatUint(in.Generation, 10),
	}
	if !in.RetiredAt.IsZero() {
		want[contract.TagRetiredAt] = in.RetiredAt.UTC().Format(time.RFC3339)
	}
	v, err := a.ours(ctx, in.Disk, in.Volume)
	if err != nil || carries(v, want) {
		return err
	}
	if _, err := a.api.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{in.Volume}, Tags: tagList(want)}); err != nil {
		return err
	}
	return a.poll(ctx, "volume "+in.Volume+" carries its tags", func(ctx context.Context) (bool, error) {
		v, err := a.volume(ctx, in.Volume)
		return v != nil && carries(*v, want), err
	})
}

func carries(v types.Volume, want map[string]string) bool {
	have := tagMap(v.Tags)
	for k, val := range want {
		if have[k] != val {
			return false
		}
	}
	return true
}

// DeleteVolume implements contract.DeleteVolume.
func (a *Activities) DeleteVolume(ctx context.Context, in contract.DeleteVolumeInput) (struct{}, error) {
	return struct{}{}, translate(a.delete(ctx, in), in.Disk, in.Volume)
}

func (a *Activities) delete(ctx context.Context, in contract.DeleteVolumeInput) error {
	exists, err := a.mayDelete(ctx, in)
	if err != nil || !exists {
		return err
	}
	_, err = a.api.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &in.Volume})
	if code(err) == codeVolumeNotFound {
		return nil
	}
	if code(err) == codeVolumeInUse {
		return contract.Refuse(contract.DetachStuck, "the volume is in use").WithNext("detach it first")
	}
	if err != nil {
		return err
	}
	return a.poll(ctx, "volume "+in.Volume+" is deleted", func(ctx context.Context) (bool, error) {
		v, err := a.volume(ctx, in.Volume)
		return v == nil, err
	})
}

// mayDelete decides from several describes, because one may answer from the
// past, when the volume had another role.
func (a *Activities) mayDelete(ctx context.Context, in contract.DeleteVolumeInput) (exists bool, err error) {
	err = a.agreed(ctx, "volume "+in.Volume+" may be deleted", func(ctx context.Context) (no, err error) {
		v, err := a.volume(ctx, in.Volume)
		exists = v != nil
		if err != nil || !exists {
			return nil, err
		}
		if no := deletable(*v, in); no != nil || !slices.Equal(in.Roles, []contract.Role{contract.RoleRetired}) {
			return no, nil
		}
		return a.replaced(ctx, *v, in.Disk)
	})
	return exists, err
}

// replaced refuses a retired volume whose disk has no sound active volume of a
// later generation.
func (a *Activities) replaced(ctx context.Context, v types.Volume, d contract.DiskID) (no, err error) {
	f, err := a.DescribeDisk(ctx, contract.DescribeDiskInput{Disk: d})
	if err != nil {
		return nil, err
	}
	generation, err := strconv.ParseUint(tagOf(v.Tags, contract.TagGeneration), 10, 64)
	active := f.Active()
	unsound := func(now contract.VolumeFacts) bool {
		return now.Generation <= generation || now.State == string(types.VolumeStateError)
	}
	if err == nil && len(active) > 0 && !slices.ContainsFunc(active, unsound) {
		return nil, nil
	}
	return contract.Refuse(contract.DiskIncomplete, "EC2 shows no sound active volume of a later generation, so this may be the disk's last copy; it is kept").
		WithNext("bring the disk back from it (docs/recovery.md), or delete it by hand if nobody needs its data"), nil
}

// agreed looks again and again until nothing has spoken against what is to be done
// for a while. It refuses with what speaks against it when that does not come to be
// within Settle.
func (a *Activities) agreed(ctx context.Context, what string, look func(context.Context) (no, err error)) error {
	until := time.Now().Add(a.Settle)
	var since time.Time // nothing has spoken against it
	return a.poll(ctx, what, func(ctx context.Context) (bool, error) {
		now := time.Now() // what is seen is no newer than the question
		no, err := look(ctx)
		if err != nil {
			return false, err
		}
		if no != nil {
			since = time.Time{}
			if now.After(until) {
				return false, no
			}
			return false, nil
		}
		if since.IsZero() {
			since = now
		}
		return now.Sub(since) >= a.Settle/4, nil
	})
}

// deletable refuses everything whose tags and state do not allow it.
func deletable(v types.Volume, in contract.DeleteVolumeInput) error {
	tags := tagMap(v.Tags)
	role := contract.Role(tags[contract.TagRole])
	switch {
	case diskTag(v) != string(in.Disk):
		return contract.Refuse(contract.VolumeForeign, "the volume's tags do not say that it belongs to the disk, or it was restored from a snapshot; it is kept").
			WithNext("look at the volume's ebb: tags and its snapshot")
	case !slices.Contains(in.Roles, role):
		return contract.Refuse(contract.DiskBusy, "the volume's role is %q, only %q may be deleted; it is kept", role, in.Roles).
			WithNext("look at the disk: ebb disk show %s", in.Disk)
	case v.State != types.VolumeStateAvailable && v.State != types.VolumeStateError:
		node := ""
		if len(v.Attachments) > 0 {
			node = " on " + aws.ToString(v.Attachments[0].InstanceId)
		}
		return contract.Refuse(contract.DetachStuck, "the volume is %s%s; it is kept", v.State, node).WithNext("detach it first")
	}
	return nil
}
