package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/bench/wire"
)

// fsyncExperiment tells what an application that writes 4 KiB and waits for
// fsync feels: while nothing else happens, while the disk moves, while the mirror
// is in sync and copies nothing, which is what the mirror's dirty log costs, and
// while dd copies between the same volumes, which is what a copy costs on this
// node whoever makes it.
func fsyncExperiment(ctx context.Context, r *rig) error {
	from, to, err := r.cloudVolumes(ctx)
	if err != nil {
		return err
	}
	d, dir, err := r.format(ctx, contract.XFS, 16*gib, from, true)
	if err != nil {
		return err
	}
	t := newTree(dir, r.p.Seed)
	for range size(r, 4, 16) {
		if err := t.add(64 * mib); err != nil {
			return err
		}
	}
	unix.Sync()
	var idle, move, inSync, dd latencies
	still := func() error { return sleep(ctx, size(r, 2*time.Second, 5*time.Second)) }
	// The stalls of the first moments belong to the move: it is begun under the writer.
	for range size(r, 2, 4) {
		if err := idle.during(dir, still); err != nil {
			return err
		}
		var e evacuation
		if err := move.during(dir, func() (err error) { e, err = r.evacuate(ctx, d, to); return err }); err != nil {
			return err
		}
		if err := inSync.during(dir, still); err != nil {
			return err
		}
		if err := r.callOff(ctx, e); err != nil {
			return err
		}
		if err := dd.during(dir, func() error { _, err := r.dd(ctx, from, to, e); return err }); err != nil {
			return err
		}
	}
	quiet := wire.Percentile(idle.ms, 0.99)
	for _, l := range []struct {
		what, key string
		latencies
	}{{"idle", "fsync_p99_idle_ms", idle}, {"during a move", "fsync_p99_move_ms", move}, {"mirror in sync, nothing copying", "", inSync}, {"dd alone, no move", "", dd}} {
		p99 := wire.Percentile(l.ms, 0.99)
		if err := r.say(l.key, "fsync of 4 KiB, "+l.what+": p99", p99, "ms", "%.1f times idle; p50 %.2f, p90 %.2f ms, longest stall %.0f ms, %d writes",
			p99/quiet, wire.Median(l.ms), wire.Percentile(l.ms, 0.9), wire.Percentile(l.ms, 1), len(l.ms)); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// latencies of writes, in milliseconds.
type latencies struct{ ms []float64 }

const fsyncFile = 16 * mib

// during overwrites a file of dir 4 KiB at a time, with an fsync each, while f
// runs.
func (l *latencies) during(dir string, f func() error) error {
	w, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }()
	if st, err := w.Stat(); err != nil || st.Size() < fsyncFile {
		if _, err := w.WriteAt(make([]byte, fsyncFile), 0); err != nil {
			return err
		}
	}
	if err := w.Sync(); err != nil {
		return err
	}
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, 4*kib)
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			buf[0] = byte(i)
			start := time.Now()
			_, err := w.WriteAt(buf, i*int64(len(buf))%fsyncFile)
			if err == nil {
				err = w.Sync()
			}
			if err != nil {
				done <- err
				return
			}
			l.ms = append(l.ms, float64(time.Since(start).Microseconds())/1000)
		}
	}()
	err = f()
	close(stop)
	if e := <-done; err == nil {
		err = e
	}
	return err
}
