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

const (
	// modifiedMost is how many times the tag ebb:modified holds: 87 of the 256
	// characters a tag may have.
	modifiedMost = 8
	// modifiedWindow is for how long EBS counts a modification.
	modifiedWindow = 24 * time.Hour
	// modifiedSkew is how far EC2's clock may be ahead of the worker's.
	modifiedSkew = time.Hour
)

// modifiedTimes reads the tag ebb:modified. What is no time is left out: the tag
// may have been edited.
func modifiedTimes(tag string) []time.Time {
	var out []time.Time
	for _, word := range strings.Fields(tag) {
		n, err := strconv.ParseInt(word, 10, 64)
		if err == nil && n > 0 && n < 1<<33 { // until the year 2242
			out = append(out, time.Unix(n, 0).UTC())
		}
	}
	return latest(out)
}

func modifiedTag(times []time.Time) string {
	var words []string
	for _, t := range latest(times) {
		words = append(words, strconv.FormatInt(t.Unix(), 10))
	}
	return strings.Join(words, " ")
}

// latest is the last modifiedMost of all times, each second once, the oldest
// first.
func latest(lists ...[]time.Time) []time.Time {
	var out []time.Time
	for _, t := range slices.Concat(lists...) {
		out = append(out, t.Truncate(time.Second).UTC())
	}
	slices.SortFunc(out, time.Time.Compare)
	out = slices.CompactFunc(out, time.Time.Equal)
	return slices.Clip(out[max(0, len(out)-modifiedMost):])
}

// counting leaves out the times that EBS does not count any more, and those that
// cannot be: a damaged tag must not crowd out what is noted next.
func (a *Activities) counting(times []time.Time) []time.Time {
	since, until := a.Now().Add(-modifiedWindow), a.Now().Add(modifiedSkew)
	return slices.DeleteFunc(slices.Clone(times), func(t time.Time) bool { return t.Before(since) || t.After(until) })
}

// remember notes on the volume when a modification was asked for. A time is noted
// once: EC2 gives the same modification the same start whenever it is asked. No
// modification, one that failed, and one that EBS does not count any more are not
// noted.
func (a *Activities) remember(ctx context.Context, disk contract.DiskID, v types.Volume, m *types.VolumeModification) []time.Time {
	have := facts(v).Modified
	if m == nil || m.StartTime == nil || m.ModificationState == types.VolumeModificationStateFailed {
		return have
	}
	return a.note(ctx, disk, aws.ToString(v.VolumeId), have, a.counting([]time.Time{*m.StartTime}))
}

// note adds times to the volume's tag. The tag only serves planning: without the
// right to set it, or when EC2 does not take it, the operation goes on.
func (a *Activities) note(ctx context.Context, disk contract.DiskID, volume string, have []time.Time, more ...[]time.Time) []time.Time {
	want := latest(a.counting(slices.Concat(append(more, have)...)))
	news := slices.ContainsFunc(want, func(t time.Time) bool { return !slices.ContainsFunc(have, t.Equal) })
	if !news {
		return have
	}
	_, err := a.api.CreateTags(ctx, &ec2.CreateTagsInput{
		Resources: []string{volume}, Tags: tagList(map[string]string{contract.TagModified: modifiedTag(want)}),
	})
	if err != nil {
		a.Log.Warn("A volume's modification could not be noted in its tags; planning will not count it",
			"disk", disk, "volume", volume, "error", translate(err, disk, volume))
		return have
	}
	return want
}

// carry notes on a new volume the modifications of the disk before it, and counts
// the volume itself as one when it is appended to the backing that Like is of.
func (a *Activities) carry(ctx context.Context, in contract.CreateVolumeInput, f contract.VolumeFacts) contract.VolumeFacts {
	if f.State == string(types.VolumeStateError) || in.Like == nil {
		return f
	}
	var now []time.Time
	if in.Role == contract.RoleActive || in.Generation == in.Like.Generation {
		now = a.counting([]time.Time{f.CreatedAt})
	}
	f.Modified = a.note(ctx, in.Disk, f.ID, f.Modified, in.Like.Modified, now)
	return f
}

// shareModified gives each volume of a disk the modifications of all of them.
func shareModified(d *contract.DiskFacts) {
	var all []time.Time
	for _, v := range d.Volumes {
		all = append(all, v.Modified...)
	}
	if all = latest(all); len(all) == 0 {
		all = nil
	}
	for i := range d.Volumes {
		d.Volumes[i].Modified = all
	}
}

// optimizeTime is how long EBS may take for a modification whose progress is not
// known, and optimizeLeft what is left at least of one that is not complete.
const (
	optimizeTime = 6 * time.Hour
	optimizeMost = 24 * time.Hour
	optimizeLeft = 10 * time.Minute
)

// optimizingUntil guesses when a modification under way is over: from its progress
// once EBS tells one.
func optimizingUntil(m types.VolumeModification, now time.Time) time.Time {
	begun := aws.ToTime(m.StartTime)
	end := begun.Add(optimizeTime)
	if p, took := aws.ToInt64(m.Progress), now.Sub(begun); p > 0 && took > 0 {
		end = begun.Add(min(took*100/time.Duration(min(p, 100)), optimizeMost))
	}
	if least := now.Add(optimizeLeft); end.Before(least) {
		end = least
	}
	return end.UTC().Truncate(time.Second)
}
