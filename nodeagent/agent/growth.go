package agent

import (
	"context"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// pool is one backing of a disk: during a move there are two, and each may
// press on its own.
type pool struct {
	disk       contract.DiskID
	generation uint64
}

// request is a growth that was asked for and not yet seen.
type request struct {
	wake chan struct{} // capacity 1: there is a newer event
	// since is when growth was first asked for in vain: later than a growth that
	// came, and than a ceiling. Of the goroutine that pursues the request.
	since time.Time

	// Guarded by Sentinel.mu.
	latest disk.Event
	fresh  bool      // latest came after the last call
	lifted bool      // the ceiling that was told is no longer one
	warned time.Time // when it was last told that it is overdue
}

// pursue asks for growth of one pool until it has grown or needs none.
func (s *Sentinel) pursue(ctx context.Context, key pool, r *request) {
	wait := s.timing.recheck
	for {
		sent := s.take(r)
		if s.trims.relieve(ctx, s.wg.Go, key, sent) {
			s.log.Info("a trim made room: no growth is needed", "disk", string(key.disk), "generation", key.generation)
			s.drop(key)
			return
		}
		pause := s.hush(key, sent)
		hushed := pause > 0
		if !hushed {
			if !s.ask(ctx, key, r, sent) {
				s.drop(key)
				return
			}
			pause = wait
		}
		why := s.await(ctx, key, r, sent, pause)
		if hushed {
			r.since = time.Now() // nothing was asked for until now
		}
		switch why {
		case over:
			return
		case urgent:
			wait = s.timing.recheck
		case overdue:
			if !hushed && time.Since(r.since) >= s.timing.late {
				s.warn(key, r, nil)
			}
			wait = min(2*wait, s.timing.recheckMax)
			if s.peek(r).Kind == disk.EventFull {
				wait = min(wait, s.timing.fullMax)
			}
		}
	}
}

// verdict is why a request stopped waiting.
type verdict int

const (
	over    verdict = iota // nothing more to ask for; the request is gone
	urgent                 // an event that cannot wait
	overdue                // the pool should have grown by now
)

// await waits after a call until the pool was looked at or something happens.
func (s *Sentinel) await(ctx context.Context, key pool, r *request, sent disk.Event, wait time.Duration) verdict {
	began := time.Now()
	look := time.NewTimer(wait)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			s.drop(key)
			return over
		case <-r.wake:
			if s.takeLifted(r) {
				if s.relieved(ctx, key, r, sent) {
					return over
				}
				return urgent
			}
			if s.urgent(r, sent) {
				if s.peek(r).Pressure.BackingBytes > sent.Pressure.BackingBytes {
					r.since = time.Now()
				}
				sleep(ctx, s.timing.gap-time.Since(began))
				return urgent
			}
		case <-look.C:
			if s.relieved(ctx, key, r, sent) {
				return over
			}
			return overdue
		}
	}
}

// take marks the latest event as being dealt with.
func (s *Sentinel) take(r *request) disk.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.fresh = false
	return r.latest
}

func (s *Sentinel) peek(r *request) disk.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.latest
}

func (s *Sentinel) drop(key pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(key)
}

// forget ends a request. The caller holds the lock.
func (s *Sentinel) forget(key pool) {
	delete(s.pending, key)
	s.metrics.growthNotOverdue(key.disk)
}

// overdueBelow is how soon a pool must be full for a growth that does not come to
// be worth waking somebody.
const overdueBelow = 30 * time.Minute

// warn tells, and shows in the metrics, that a pool fills and its growth does not
// come: it cannot be asked for (err), or nothing has happened since.
func (s *Sentinel) warn(key pool, r *request, err error) {
	ev := s.peek(r)
	p := ev.Pressure
	m, _ := s.usage.last(key.disk)
	if m.Generation == key.generation { // the request's numbers may be old
		p.UsedBytes, p.BackingBytes = m.PoolUsedBytes, m.BackingBytes
		p.FillRate = max(m.FillRate, s.usage.FillRate(key.disk, key.generation, m.PoolUsedBytes))
	}
	left := timeToFull(freeOf(m, p), p.FillRate)
	if ev.Kind == disk.EventFull {
		left = 0
	}
	if left >= overdueBelow {
		s.metrics.growthNotOverdue(key.disk)
		return
	}
	s.metrics.growthOverdue(key.disk, r.since)
	s.mu.Lock()
	again := time.Since(r.warned) >= complainEvery
	if again {
		r.warned = time.Now()
	}
	s.mu.Unlock()
	if !again {
		return
	}
	log := s.log.With("disk", string(key.disk), "generation", key.generation, "time_to_full", left.Round(time.Second), "asked_since", r.since.UTC())
	if err != nil {
		log.Error("the disk fills and its growth cannot be asked for; next: check that this node reaches Temporal", "error", err)
	} else {
		log.Error("the disk fills and has not grown since it was asked for; next: look at the disk's operation (ebb watch) and whether the control worker reaches EC2")
	}
}

// urgent says whether a further event must not wait for the next look: the
// pool is full now, or it did grow and fills again.
func (s *Sentinel) urgent(r *request, sent disk.Event) bool {
	ev := s.peek(r)
	return ev.Kind == disk.EventFull && sent.Kind != disk.EventFull ||
		ev.Pressure.BackingBytes > sent.Pressure.BackingBytes
}

// relieved looks at the disk. It ends the request when the pool needs nothing
// more, else it brings the request's numbers up to date. An event that came
// before a growth says nothing about the pool after it: taking it for news
// would grow a disk twice.
func (s *Sentinel) relieved(ctx context.Context, key pool, r *request, sent disk.Event) bool {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	m, err := s.disks.Measure(ctx, key.disk)
	if err == nil {
		s.usage.Observe(&m)
	}
	now, full, gone := pressureOf(m, key.generation)

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if ref, ok := contract.AsRefusal(err); ok && (ref.Code == contract.DiskUnknown || ref.Code == contract.DiskIncomplete) {
			s.forget(key)
			delete(s.ceilings, key.disk)
			return true
		}
		return false // not known: ask again
	}
	was := sent.Pressure
	grown := now.BackingBytes > was.BackingBytes
	// Half as much free space again: files were deleted.
	free, wasFree := now.BackingBytes-now.UsedBytes, was.BackingBytes-was.UsedBytes
	emptied := now.UsedBytes < was.UsedBytes && free > wasFree+wasFree/2
	news := r.fresh && r.latest.Pressure.BackingBytes >= now.BackingBytes
	if gone || (grown || emptied) && !full && !news {
		s.forget(key)
		return true
	}
	if grown {
		r.since = time.Now()
	}
	now.FillRate = max(now.FillRate, s.usage.FillRate(key.disk, key.generation, now.UsedBytes))
	r.latest.Pressure = now
	switch {
	case full:
		r.latest.Kind = disk.EventFull
	case !news:
		r.latest.Kind = disk.EventPressure
	}
	return false
}

// pressureOf is the state of one generation's pool; gone when the disk does not
// have it any more.
func pressureOf(m contract.Measurement, generation uint64) (p contract.Pressure, full, gone bool) {
	p = contract.Pressure{Node: m.Node, Generation: generation, FillRate: m.FillRate}
	switch mv := m.Move; {
	case generation == m.Generation:
		p.UsedBytes, p.BackingBytes, full = m.PoolUsedBytes, m.BackingBytes, m.Full
	case mv != nil && generation == mv.Generation:
		p.UsedBytes, full = mv.PoolUsedBytes, mv.Full
		for _, v := range mv.Members {
			p.BackingBytes += v.Bytes
		}
	default:
		gone = true
	}
	return p, full, gone
}
