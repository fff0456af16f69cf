package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/node"
)

// growExperiment times what Ebb adds to a growth: from the pool passing its
// low-water mark to the report of it, and from the volume's new size to space
// in the pool. A writer goes on meanwhile.
func growExperiment(ctx context.Context, r *rig) error {
	now := 512 * mib
	vol, err := r.volume(now)
	if err != nil {
		return err
	}
	d, dir, err := r.format(ctx, contract.XFS, 16*gib, vol, true)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan time.Time, 64)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_ = r.m.Watch(ctx, func(e disk.Event) { // ends with ctx; a growth unseen fails below
			select {
			case events <- time.Now():
			default: // nobody waits for so many
			}
		})
	}()
	defer func() {
		cancel()
		<-watched
	}()
	f, err := os.Create(filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	pool := fmt.Sprintf("ebb-%s-g1-pool", d)
	buf := newTree(dir, r.p.Seed).data[:mib]
	var notice, extend, stall []float64
	for range size(r, 2, 4) {
		for len(events) > 0 {
			<-events
		}
		var crossed time.Time
		for crossed.IsZero() {
			start := time.Now()
			if _, err := f.Write(buf); err != nil {
				return err
			}
			if err := f.Sync(); err != nil {
				return err
			}
			stall = append(stall, time.Since(start).Seconds())
			low, err := r.low(pool)
			if err != nil {
				return err
			}
			if low {
				crossed = start
			}
		}
		select {
		case at := <-events:
			notice = append(notice, max(0, at.Sub(crossed).Seconds()))
		case <-time.After(30 * time.Second):
			return errors.New("the low-water mark was passed and nobody told")
		}
		now += 256 * mib
		if err := r.ask(wire.Order{Do: wire.Resize, Volume: vol, Bytes: now}); err != nil {
			return err
		}
		if err := visible(ctx, vol, now); err != nil {
			return err
		}
		before, err := r.m.Measure(ctx, d)
		if err != nil {
			return err
		}
		start := time.Now()
		after, err := r.m.GrowBacking(ctx, contract.GrowBackingInput{Disk: d, Volume: vol, Bytes: now})
		if err != nil {
			return err
		}
		extend = append(extend, time.Since(start).Seconds())
		if after.PoolBytes <= before.PoolBytes {
			return fmt.Errorf("the pool did not grow: %d bytes", after.PoolBytes)
		}
	}
	return r.say("grow_overhead_s", "growth less EC2", wire.Percentile(notice, 1)+wire.Percentile(extend, 1), "s",
		"the slowest of %d; event %.3f s after low water at most, extending the pool %.3f s; longest 1 MiB write + fsync %.3f s", len(notice), wire.Percentile(notice, 1), wire.Percentile(extend, 1), wire.Percentile(stall, 1))
}

// low tells whether the pool has passed the mark in its table.
func (r *rig) low(pool string) (bool, error) {
	_, table, err := r.dm.Table(pool)
	if err != nil {
		return false, err
	}
	mark, err := strconv.ParseUint(strings.Fields(table[0].Params)[3], 10, 64)
	if err != nil {
		return false, fmt.Errorf("table of %s: %w", pool, err)
	}
	_, st, err := r.dm.Status(pool)
	if err != nil {
		return false, err
	}
	s, err := dm.ParsePool(st[0].Params)
	return s.TotalData-s.UsedData <= mark, err
}

// visible waits until the node sees a volume's new size.
func visible(ctx context.Context, vol string, bytes int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		out, err := shell(ctx, "blockdev", "--getsize64", node.VolumePath(vol))
		if err != nil {
			return err
		}
		if n, _ := strconv.ParseInt(strings.TrimSpace(out), 10, 64); n >= bytes {
			return nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}
