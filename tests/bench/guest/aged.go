package main

import (
	"context"
	"fmt"
	"os"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/thinmap"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// agedExperiment tells how much more than what is used a move copies: on a
// filesystem that was only filled, and on one with a past.
func agedExperiment(ctx context.Context, r *rig) error {
	worst := map[string]float64{}
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		if err := r.amplification(ctx, fs, worst); err != nil {
			return err
		}
	}
	if err := r.say("copied_over_used_fresh", "fresh: copied over used", worst["fresh"], "x", "the worse filesystem"); err != nil {
		return err
	}
	return r.say("copied_over_used_aged", "aged: copied over used", worst["aged"], "x", "the worse filesystem")
}

func (r *rig) amplification(ctx context.Context, fs contract.Filesystem, worst map[string]float64) error {
	bytes := size(r, gib, 2*gib)
	from, err := r.volume(bytes + bytes/16)
	if err != nil {
		return err
	}
	to, err := r.volume(bytes + bytes/16)
	if err != nil {
		return err
	}
	for _, state := range []string{"fresh", "aged"} {
		for _, v := range []string{from, to} {
			if err := blank(v); err != nil {
				return err
			}
		}
		d, dir, err := r.format(ctx, fs, bytes, from, true)
		if err != nil {
			return err
		}
		t := newTree(dir, r.p.Seed)
		if state == "fresh" {
			err = t.fill(agedEnd, agedLow, agedHigh)
		} else {
			err = t.age()
		}
		if err != nil {
			return err
		}
		tr, err := r.m.Trim(ctx, d)
		if err != nil {
			return err
		}
		e, err := r.evacuate(ctx, d, to)
		if err != nil {
			return err
		}
		if err := r.callOff(ctx, e); err != nil {
			return err
		}
		ratio := float64(e.CopiedBytes) / float64(e.UsedBytes)
		worst[state] = max(worst[state], ratio)
		m := tr.Measurement
		if err := r.say("", fmt.Sprintf("%s %s: copied over used", fs, state), ratio, "x", "%d MiB copied, %d MiB used in the pool, %d MiB by the filesystem, %d files; regions of %d KiB",
			e.CopiedBytes/mib, e.UsedBytes/mib, m.FilesystemUsedBytes/mib, len(t.files), e.region/kib); err != nil {
			return err
		}
		if err := r.sayRegions(d, fs, state, m); err != nil {
			return err
		}
		if err := r.m.Disassemble(ctx, d); err != nil {
			return err
		}
		r.disks = r.disks[:len(r.disks)-1]
	}
	return nil
}

// sayRegions tells from the pool's map what other region sizes would copy.
func (r *rig) sayRegions(d contract.DiskID, fs contract.Filesystem, state string, m contract.Measurement) error {
	pool := fmt.Sprintf("ebb-%s-g1", d)
	runs, err := r.poolMap(pool)
	if err != nil {
		return err
	}
	note := ""
	for region := 256 * kib; region <= 8*mib; region *= 2 {
		covered := int64(0)
		last := int64(-1)
		for _, run := range runs {
			first, end := int64(run.Start)*m.BlockBytes/region, (int64(run.Start+run.Length)*m.BlockBytes-1)/region
			covered += end - max(first, last+1) + 1
			last = end
		}
		note += fmt.Sprintf(" %dK:%.3f", region/kib, float64(covered*region)/float64(m.PoolUsedBytes))
	}
	return r.say("", fmt.Sprintf("%s %s: mapped runs", fs, state), float64(len(runs)), "", "copied over used by region size:%s", note)
}

// poolMap reads the runs of mapped blocks of a disk that does not move.
func (r *rig) poolMap(name string) (runs []thinmap.Run, err error) {
	if _, err := r.dm.Message(name+"-pool", 0, "reserve_metadata_snap"); err != nil {
		return nil, err
	}
	defer func() {
		if _, e := r.dm.Message(name+"-pool", 0, "release_metadata_snap"); err == nil {
			err = e
		}
	}()
	_, st, err := r.dm.Status(name + "-pool")
	if err != nil {
		return nil, err
	}
	pool, err := dm.ParsePool(st[0].Params)
	if err != nil {
		return nil, err
	}
	meta, err := r.dm.Info(name + "-meta")
	if err != nil {
		return nil, err
	}
	dropCaches()
	f, err := os.Open(dm.DevPath(meta))
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	err = thinmap.Mapped(f, volume.AlignedBuffer(thinmap.BlockBytes), pool.HeldRoot, 0, func(run thinmap.Run) error {
		if n := len(runs); n > 0 && runs[n-1].Start+runs[n-1].Length == run.Start {
			runs[n-1].Length += run.Length
		} else {
			runs = append(runs, run)
		}
		return nil
	})
	return runs, err
}
