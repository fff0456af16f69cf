package ec2

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// ages is how old something must be before it is a leftover.
type ages struct {
	least     time.Duration // of no use
	grace     time.Duration // retired
	retention time.Duration // a snapshot
}

// Leftovers lists what the tags of EC2 say nothing needs, by disk, and last what
// may only be reported: volumes retired for longer than grace and minAge, volumes
// made for a disk longer than minAge ago that never became part of it, and
// snapshots taken before a move longer than retention ago of disks that still
// exist. What is only strange is Suspect: an active volume of an older generation, a volume without a role, a
// retired one that may be the last copy of its disk. A detached disk, and the
// snapshots of a disk that was deleted, are no leftovers.
//
// Nothing is named that not two looks, a quarter of Settle apart, agree on. Whether
// a workflow runs on the disk, and what is on the volume, is for the caller to ask.
// It changes nothing.
func (a *Activities) Leftovers(ctx context.Context, minAge, grace, retention time.Duration) ([]contract.Leftover, error) {
	age := ages{least: minAge, grace: grace, retention: retention}
	first, err := a.leftovers(ctx, age)
	if err == nil && len(first) > 0 {
		until := time.Now().Add(a.Settle / 4)
		err = a.poll(ctx, "EC2's describes catch up", func(context.Context) (bool, error) { return time.Now().After(until), nil })
	}
	if err != nil || len(first) == 0 {
		return first, translate(err, "", "")
	}
	second, err := a.leftovers(ctx, age)
	if err != nil {
		return nil, translate(err, "", "")
	}
	agreed := slices.DeleteFunc(second, func(l contract.Leftover) bool {
		_, found := slices.BinarySearchFunc(first, l, orderLeftovers)
		return !found
	})
	slices.SortStableFunc(agreed, func(x, y contract.Leftover) int {
		switch {
		case x.Suspect == y.Suspect:
			return 0
		case y.Suspect:
			return -1
		}
		return 1
	})
	return agreed, nil
}

// orderLeftovers compares what two looks must agree on. A reason names what it
// was judged by.
func orderLeftovers(x, y contract.Leftover) int {
	return cmp.Or(cmp.Compare(x.Disk, y.Disk), cmp.Compare(x.Volume, y.Volume), cmp.Compare(x.Snapshot, y.Snapshot), cmp.Compare(x.Reason, y.Reason))
}

// leftovers is one look.
func (a *Activities) leftovers(ctx context.Context, age ages) ([]contract.Leftover, error) {
	known, doubtful, err := a.doubtful(ctx)
	if err != nil {
		return nil, err
	}
	out := []contract.Leftover{}
	for part := range slices.Chunk(doubtful, maxFilter) {
		// A disk is judged by all its volumes, whatever cluster they name.
		foreign := map[string]bool{}
		disks, err := a.disks(ctx, []types.Filter{{Name: aws.String("tag:" + contract.TagDisk), Values: part}}, func(v types.Volume) {
			if a.Cluster != "" && tagOf(v.Tags, contract.TagCluster) != a.Cluster {
				foreign[aws.ToString(v.VolumeId)] = true
			}
		})
		if err != nil {
			return nil, err
		}
		for _, d := range disks {
			for _, l := range judge(d, age, a.Now()) {
				if !foreign[l.Volume] {
					out = append(out, l)
				}
			}
		}
	}
	snaps, err := a.oldSnapshots(ctx, known, age)
	out = append(out, snaps...)
	slices.SortFunc(out, orderLeftovers)
	return out, err
}

// doubtful goes through all volumes once. known are the disks with an active
// volume; doubtful, by id, those that have anything else than one active
// generation.
func (a *Activities) doubtful(ctx context.Context) (known map[contract.DiskID]bool, doubtful []string, err error) {
	generation := map[contract.DiskID]string{} // of an active volume
	other := map[contract.DiskID]bool{}
	err = a.eachPage(ctx, a.inTurn, a.all(contract.TagDisk), func(vs []types.Volume) {
		for _, v := range vs {
			id, ok := a.diskOf(v)
			if !ok {
				continue
			}
			id = contract.DiskID(strings.Clone(string(id)))
			gen := tagOf(v.Tags, contract.TagGeneration)
			have, seen := generation[id]
			switch {
			case contract.Role(tagOf(v.Tags, contract.TagRole)) != contract.RoleActive, seen && have != gen:
				other[id] = true
			default:
				generation[id] = strings.Clone(gen)
			}
		}
	})
	known = make(map[contract.DiskID]bool, len(generation))
	for id := range generation {
		known[id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(other)) {
		doubtful = append(doubtful, string(id))
	}
	return known, doubtful, err
}

// judge names the leftovers among all volumes of a disk.
func judge(d contract.DiskFacts, age ages, now time.Time) []contract.Leftover {
	var highest uint64
	active := false
	for _, v := range d.Volumes {
		if v.Role == contract.RoleActive {
			active, highest = true, max(highest, v.Generation)
		}
	}
	var out []contract.Leftover
	for _, v := range d.Volumes {
		l := contract.Leftover{
			Disk: d.Disk, Volume: v.ID, GiB: v.SizeGiB, Role: v.Role, Generation: v.Generation, Move: v.Move,
			Zone: v.Zone, Node: v.Node, Since: v.CreatedAt,
		}
		wait := age.least
		switch v.Role {
		case contract.RoleActive:
			if v.Generation == highest {
				continue
			}
			l.Suspect = true
			l.Reason = fmt.Sprintf("active in generation %d, but generation %d is active too", v.Generation, highest)
		case contract.RoleIncoming:
			l.Reason = incoming(v, active, highest)
		case contract.RoleRetired:
			wait = max(wait, age.grace)
			if !v.RetiredAt.IsZero() {
				l.Since = v.RetiredAt
			}
			l.Reason, l.Suspect = retired(v, active, highest)
		default:
			l.Suspect = true
			l.Reason = fmt.Sprintf("its tag %s is %q", contract.TagRole, v.Role)
		}
		if !now.Before(l.Since.Add(wait)) {
			out = append(out, l)
		}
	}
	return out
}

// incoming says why a volume never became part of its disk.
func incoming(v contract.VolumeFacts, active bool, highest uint64) string {
	made := "created " + v.CreatedAt.UTC().Format(time.RFC3339)
	switch {
	case !active:
		return made + " for a disk that was never finished: it has no active volume"
	case v.Generation > highest:
		return fmt.Sprintf("%s for a move to generation %d, which was never finished", made, v.Generation)
	case v.Generation == highest:
		return made + " to be appended, which was never finished"
	}
	return fmt.Sprintf("%s for a move to generation %d, which generation %d has overtaken", made, v.Generation, highest)
}

// retired says since when a volume is of no use, and whether that can be believed.
func retired(v contract.VolumeFacts, active bool, highest uint64) (reason string, suspect bool) {
	switch {
	case v.RetiredAt.IsZero():
		return "retired, but its tags do not say when", true
	case !active:
		return "retired, but the disk has no active volume: this may be the last copy", true
	case v.Generation >= highest:
		return fmt.Sprintf("retired in generation %d, but generation %d is active", v.Generation, highest), true
	}
	return "retired " + v.RetiredAt.UTC().Format(time.RFC3339) + ", its grace period is over", false
}
