package agent

import (
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// ceiling is what was told about a disk whose backing cannot grow any further,
// because it holds the whole disk already or because its policy says so. Growth is
// asked for once, so that the refusal with its next step stands where operators
// look, and then ever more rarely for as long as nothing changes.
type ceiling struct {
	was  contract.Measurement // when it was told
	gib  int64                // the ceiling that was told
	full bool                 // so was that writes wait
	next time.Time            // when it is told again
	wait time.Duration
}

// ceilingGiB is the greatest backing a disk may have: what holds all of it, or
// less by its policy.
func ceilingGiB(m contract.Measurement, g contract.Guide) (gib int64, byPolicy bool) {
	gib = ceilGiB(m.SizeBytes + m.OverheadBytes)
	if c := disk.CeilingGiB(g); c > 0 && c < gib {
		return c, true
	}
	return gib, false
}

func ceilGiB(b int64) int64 { return (b + contract.GiB - 1) / contract.GiB }

// atCeiling says that a larger backing would be of no use to the disk, or is not
// wanted: the decision by which Grow refuses.
func atCeiling(m contract.Measurement, g contract.Guide) bool {
	gib, _ := ceilingGiB(m, g)
	return m.SizeBytes > 0 && ceilGiB(m.BackingBytes) >= gib
}

// lifted says that something changed since the ceiling was told: the disk was
// expanded, its policy has another ceiling, its backing is another, or a good part
// of its data was deleted.
func (c ceiling) lifted(m contract.Measurement, g contract.Guide) bool {
	gib, _ := ceilingGiB(m, g)
	return gib != c.gib || !atCeiling(m, g) || m.SizeBytes != c.was.SizeBytes || m.BackingBytes != c.was.BackingBytes ||
		m.Generation != c.was.Generation || m.PoolUsedBytes < c.was.PoolUsedBytes-c.was.PoolBytes/16
}

// hush says for how long not to ask for growth of a pool, because its disk is at
// the ceiling and that was told. It tells it when it is time to. A full pool that
// holds the whole disk is never hushed: its writes wait, and growth would be a
// surprise. One at the ceiling of its policy is: the answer is known.
func (s *Sentinel) hush(key pool, ev disk.Event) time.Duration {
	m, known := s.usage.last(key.disk)
	g, _ := s.usage.guide(key.disk)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, told := s.ceilings[key.disk]
	if told && known && c.lifted(m, g) {
		delete(s.ceilings, key.disk)
		told = false
	}
	gib, byPolicy := ceilingGiB(m, g)
	if !known || !atCeiling(m, g) || key.generation != m.Generation || ev.Kind == disk.EventFull && !byPolicy {
		return 0
	}
	now := time.Now()
	full := ev.Kind == disk.EventFull
	if told && now.Before(c.next) && (c.full || !full) {
		return c.next.Sub(now)
	}
	if !told {
		c.was, c.gib, c.wait = m, gib, s.timing.ceiling
	} else {
		c.wait = min(2*c.wait, s.timing.ceilingMax)
	}
	c.next, c.full = now.Add(c.wait), full
	s.ceilings[key.disk] = c
	s.metrics.ceilings.WithLabelValues(string(key.disk)).Inc()
	why := "it holds the whole disk; next: delete files, or ebb expand"
	switch {
	case byPolicy && g.FailAtCeiling:
		why = "its policy's ceiling is reached and writes fail; next: raise the policy's ceiling, or delete files"
	case byPolicy && full:
		why = "its policy's ceiling is reached and writes wait; next: raise the policy's ceiling"
	case byPolicy:
		why = "its policy's ceiling is reached, writes will wait when it is full; next: raise the policy's ceiling, or delete files"
	}
	s.log.Error("the disk is filling and its backing cannot grow any further", "disk", string(key.disk), "why", why,
		"ceiling_gib", gib, "size", m.SizeBytes, "backing", m.BackingBytes, "pool", m.PoolBytes, "used", m.PoolUsedBytes, "again_in", c.wait)
	return 0
}

// measured looks at every measurement of a disk that was told to be at its
// ceiling, and wakes who waits there as soon as that is no longer so.
func (s *Sentinel) measured(m contract.Measurement) {
	g, _ := s.usage.guide(m.Disk)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, told := s.ceilings[m.Disk]
	if !told || !c.lifted(m, g) {
		return
	}
	delete(s.ceilings, m.Disk)
	if r := s.pending[pool{m.Disk, c.was.Generation}]; r != nil {
		r.lifted = true
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// takeLifted says once that the ceiling of a waiting request was lifted.
func (s *Sentinel) takeLifted(r *request) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := r.lifted
	r.lifted = false
	return was
}
