package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// Reasons of trims, as the metrics have them.
const (
	trimPressure = "pressure"
	trimRoutine  = "routine"
	trimCeiling  = "ceiling"
	trimAsked    = "asked"
)

const (
	// trimWait is how long a growth is held back for a trim that may make it
	// unnecessary. A growth begins within a second of the kernel's event.
	trimWait = 700 * time.Millisecond
	// pressureTrim and routineTrim bound the work of one trim. What is left of a
	// large disk is for the next one.
	pressureTrim = 30 * time.Second
	routineTrim  = 5 * time.Minute
	// trimAgain is the least time between two trims for pressure, fruitlessTrim
	// after one that gave little back, routineEvery between two others.
	trimAgain     = time.Minute
	fruitlessTrim = 15 * time.Minute
	routineEvery  = time.Hour
	// settleIn is how long a new agent leaves disks alone that are in no need.
	settleIn = 10 * time.Minute
	// leastTrim is not worth a trim.
	leastTrim = 64 << 20
)

// trimmer gives filesystems' free blocks back to their pools: before a growth that
// this may spare, and now and then where deleted files lie in a pool. There is one
// trim of a disk at a time, and one routine trim of the node.
type trimmer struct {
	disks   Disks
	usage   *Usage
	metrics *Metrics
	log     *slog.Logger
	began   time.Time

	mu      sync.Mutex
	trims   map[contract.DiskID]*trim
	bases   map[contract.DiskID]base
	routine bool // one runs
}

// base is what a disk's pool held beyond what its filesystem used when all was
// trimmed: the pool's blocks that are used in part, and ext4's journal, which it
// does not count; below 0 on xfs, which counts what it has put aside for itself as
// used. A later generation holds a copy of that, or less: a move leaves free blocks
// behind.
type base struct {
	generation uint64
	bytes      int64
}

// trim is the last trim of a disk.
type trim struct {
	done  chan struct{} // closed when it has ended
	ended time.Time     // zero: it runs

	// Set before done is closed.
	after contract.Measurement
	err   error
	gave  int64 // pool bytes
	hoped int64 // what deleted files seemed to hold of the pool
}

func newTrimmer(d Disks, u *Usage, m *Metrics, log *slog.Logger) *trimmer {
	return &trimmer{disks: d, usage: u, metrics: m, log: log, began: time.Now(), trims: make(map[contract.DiskID]*trim), bases: make(map[contract.DiskID]base)}
}

// excess is what a disk's pool holds beyond what its filesystem uses, as far as a
// trim would change that; 0 when it is not known, or when a trim has to wait for
// the end of a move.
func (t *trimmer) excess(m contract.Measurement) int64 {
	if m.FilesystemBytes == 0 || m.Move != nil {
		return 0
	}
	b, _ := t.base(m)
	return max(0, m.PoolUsedBytes-m.FilesystemUsedBytes-b)
}

// base is 0 where it is not known.
func (t *trimmer) base(m contract.Measurement) (bytes int64, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, known := t.bases[m.Disk]
	if more := m.PoolUsedBytes - m.FilesystemUsedBytes; known && b.generation != m.Generation && more < b.bytes {
		b.bytes = more
		t.bases[m.Disk] = b
	}
	return b.bytes, known
}

// spares says that a trim may spare a growth: it is a tenth of the pool that may
// come back, or with some of it enough would be free.
func (t *trimmer) spares(s diskState) bool {
	more := t.excess(s.Measurement)
	free := s.PoolBytes - s.PoolUsedBytes
	return more >= leastTrim && (more >= s.PoolBytes/10 || free+more/2 >= s.lowWater())
}

// relieve tries to make a pool's pressure go away by a trim, and says whether it
// did. It takes trimWait at most, and no time when the pool has none: then the
// growth is asked for while the trim runs.
func (t *trimmer) relieve(ctx context.Context, start func(func()), key pool, ev disk.Event) bool {
	s, ok := t.usage.state(key.disk)
	if !ok || s.Generation != key.generation {
		return false
	}
	s.PoolUsedBytes = max(s.PoolUsedBytes, ev.Pressure.UsedBytes)
	if !t.spares(s) {
		return false
	}
	r := t.begin(ctx, start, s, trimPressure, pressureTrim)
	if r == nil || ev.Kind == disk.EventFull || s.PoolUsedBytes > s.PoolBytes/100*95 {
		return false
	}
	late := time.NewTimer(trimWait)
	defer late.Stop()
	select {
	case <-r.done:
	case <-late.C:
		return false
	case <-ctx.Done():
		return false
	}
	if r.err != nil || r.after.Full || r.gave == 0 {
		return false
	}
	s.Measurement = r.after
	free := s.PoolBytes - s.PoolUsedBytes
	return free >= s.lowWater() && timeToFull(free, s.FillRate) > runway
}

// look begins a routine trim of a disk that was just measured, when it is due. On
// xfs nothing can be said before the first one.
func (t *trimmer) look(ctx context.Context, start func(func()), m contract.Measurement) {
	more := t.excess(m)
	_, known := t.base(m)
	blind := !known && m.Filesystem == contract.XFS && m.PoolUsedBytes > leastTrim && m.Move == nil && m.FilesystemBytes > 0
	if (more < leastTrim || more <= m.FilesystemUsedBytes/10) && !blind || time.Since(t.began) < settleIn {
		return
	}
	if s, ok := t.usage.state(m.Disk); ok {
		t.begin(ctx, start, s, trimRoutine, routineTrim)
	}
}

// begin begins a trim, unless it is too soon for another one (nil). A trim that
// runs already is as good. start owns the goroutine.
func (t *trimmer) begin(ctx context.Context, start func(func()), s diskState, reason string, budget time.Duration) *trim {
	hoped := t.excess(s.Measurement)
	t.mu.Lock()
	defer t.mu.Unlock()
	if last := t.trims[s.Disk]; last != nil {
		if last.ended.IsZero() {
			return last
		}
		wait := trimAgain
		if last.gave < last.hoped/4 {
			wait = fruitlessTrim
		}
		if reason == trimRoutine {
			wait = routineEvery
		}
		if time.Since(last.ended) < wait {
			return nil
		}
	}
	if reason == trimRoutine {
		if t.routine {
			return nil
		}
		t.routine = true
	}
	r := &trim{done: make(chan struct{}), hoped: hoped}
	t.trims[s.Disk] = r
	start(func() { t.run(ctx, r, s.Disk, reason, budget) })
	return r
}

func (t *trimmer) run(ctx context.Context, r *trim, id contract.DiskID, reason string, budget time.Duration) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	out, err := t.disks.Reclaim(ctx, id)
	if err == nil {
		t.usage.Observe(&out.Measurement)
	}
	t.metrics.trimDone(id, reason, out.TrimmedBytes)
	log := t.log.With("disk", string(id), "reason", reason, "bytes", out.TrimmedBytes, "duration", time.Since(began).Round(time.Millisecond))
	if err != nil {
		log.Warn("trim ended early", "error", err)
	} else {
		log.Info("trimmed", "used", out.Measurement.PoolUsedBytes, "pool", out.Measurement.PoolBytes)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := out.Measurement; err == nil && ctx.Err() == nil && m.FilesystemBytes > 0 && m.Move == nil { // of the whole disk
		t.bases[id] = base{m.Generation, m.PoolUsedBytes - m.FilesystemUsedBytes}
		r.hoped = out.TrimmedBytes // no trim gives more: what is left is not of deleted files
	}
	r.after, r.err, r.gave, r.ended = out.Measurement, err, out.TrimmedBytes, time.Now()
	if reason == trimRoutine {
		t.routine = false
	}
	close(r.done)
}
