package main

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/node"
)

// moveExperiment compares a move with dd of as many bytes between the same two
// volumes and with rsync of the same files to a filesystem on the same target.
func moveExperiment(ctx context.Context, r *rig) error {
	from, to, err := r.cloudVolumes(ctx)
	if err != nil {
		return err
	}
	d, dir, err := r.format(ctx, contract.XFS, 16*gib, from, true)
	if err != nil {
		return err
	}
	large := newTree(dir+"/large", r.p.Seed)
	if err := os.Mkdir(large.dir, 0o755); err != nil {
		return err
	}
	for range size(r, 4, 16) {
		if err := large.add(64 * mib); err != nil {
			return err
		}
	}
	rounds := size(r, 3, 5)
	e, err := r.race(ctx, d, dir, from, to, rounds, size(r, 1, 2))
	if err != nil {
		return err
	}
	if err := r.sayMove("large files", e, "move_vs_dd", ""); err != nil {
		return err
	}
	if err := os.RemoveAll(large.dir); err != nil {
		return err
	}
	small := newTree(dir+"/small", r.p.Seed)
	if err := os.Mkdir(small.dir, 0o755); err != nil {
		return err
	}
	for range size(r, 2000, 8000) {
		if err := small.add(small.between(kib, 64*kib)); err != nil {
			return err
		}
	}
	if _, err := r.m.Trim(ctx, d); err != nil {
		return err
	}
	if e, err = r.race(ctx, d, dir, from, to, size(r, 2, 3), size(r, 2, 3)); err != nil {
		return err
	}
	return r.sayMove("small files", e, "", "move_vs_rsync_small")
}

// contest is what a race gave: seconds by rival, in the order of the rounds.
type contest struct {
	move, dd, rsync []float64
	last            evacuation
}

// race runs the rivals in turns, so that what else the machine does hits all. A first
// move does not count: the host gives the node its memory then.
func (r *rig) race(ctx context.Context, d contract.DiskID, dir, from, to string, rounds, rsyncs int) (c contest, err error) {
	first, err := r.evacuate(ctx, d, to)
	if err == nil {
		err = r.callOff(ctx, first)
	}
	if err != nil {
		return c, err
	}
	for i := range rounds {
		if c.last, err = r.evacuate(ctx, d, to); err != nil {
			return c, err
		}
		if err := r.callOff(ctx, c.last); err != nil {
			return c, err
		}
		c.move = append(c.move, c.last.seconds)
		s, err := r.dd(ctx, from, to, c.last)
		if err != nil {
			return c, err
		}
		c.dd = append(c.dd, s)
		if i < rsyncs {
			if s, err = r.rsync(ctx, dir, to); err != nil {
				return c, err
			}
			c.rsync = append(c.rsync, s)
		}
	}
	return c, nil
}

// rsync copies the disk's files to a new filesystem right on the volume.
func (r *rig) rsync(ctx context.Context, dir, to string) (float64, error) {
	dev := node.VolumePath(to)
	if _, err := shell(ctx, "mkfs.xfs", "-q", "-f", "-K", dev); err != nil {
		return 0, err
	}
	target := dir + "-rsync"
	if err := os.MkdirAll(target, 0o755); err != nil {
		return 0, err
	}
	if err := unix.Mount(dev, target, "xfs", 0, ""); err != nil {
		return 0, fmt.Errorf("mount %s: %w", dev, err)
	}
	s, err := timed(ctx, "sh", "-ec", `rsync -aHAX "$0/" "$1/"; sync -f "$1"`, dir, target)
	if e := unix.Unmount(target, 0); err == nil && e != nil {
		err = fmt.Errorf("unmount %s: %w", target, e)
	}
	return s, err
}

func (r *rig) sayMove(what string, c contest, ddKey, rsyncKey string) error {
	copied := float64(c.last.CopiedBytes) / float64(mib)
	move, dd, rsync := wire.Median(c.move), wire.Median(c.dd), wire.Median(c.rsync)
	if err := r.say("", what+": move", copied/move, "MiB/s", "%.0f MiB in regions of %d KiB, %.0f MiB used; %.2f s, then %.2f to compare it", copied, c.last.region/kib, float64(c.last.UsedBytes)/float64(mib), c.last.seconds, c.last.compare); err != nil {
		return err
	}
	if err := r.say("", what+": dd", copied/dd, "MiB/s", "the node's limit"); err != nil {
		return err
	}
	ratios := make([]float64, len(c.move)) // each round's: the machine may be slower in one than in another
	for i := range ratios {
		ratios[i] = c.dd[i] / c.move[i]
	}
	if err := r.say(ddKey, what+": move vs dd", wire.Median(ratios), "x", "of the same bytes; median of %d rounds", len(ratios)); err != nil {
		return err
	}
	return r.say(rsyncKey, what+": move vs rsync", rsync/move, "x", "of the same files; rsync %.1f s, move %.1f s", rsync, move)
}
