package agent

import (
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// ceiling is what was told about a disk whose backing cannot grow any further,
// because it holds the whole disk already. Growth is asked for once, so that the
// refusal with its next step stands where operators look, and then ever more
// rarely for as long as nothing changes.
type ceiling struct {
	was  contract.Measurement // when it was told
	next time.Time            // when it is told again
	wait time.Duration
}

// atCeiling says that a larger backing would be of no use to the disk: the
// decision by which Grow refuses.
func atCeiling(m contract.Measurement) bool {
	gib := func(b int64) int64 { return (b + contract.GiB - 1) / contract.GiB }
	return m.SizeBytes > 0 && gib(m.BackingBytes) >= gib(m.SizeBytes+m.OverheadBytes)
}

// lifted says that something changed since the ceiling was told: the disk was
// expanded, its backing is another, or a good part of its data was deleted.
func (c ceiling) lifted(m contract.Measurement) bool {
	return !atCeiling(m) || m.SizeBytes != c.was.SizeBytes || m.BackingBytes != c.was.BackingBytes ||
		m.Generation != c.was.Generation || m.PoolUsedBytes < c.was.PoolUsedBytes-c.was.PoolBytes/16
}

// hush says for how long not to ask for growth of a pool, because its disk is at
// the ceiling and that was told. It tells it when it is time to. A full pool is
// never hushed: its writes wait.
func (s *Sentinel) hush(key pool, ev disk.Event) time.Duration {
	m, known := s.usage.last(key.disk)
	s.mu.Lock()
	defer s.mu.Unlock()
	c, told := s.ceilings[key.disk]
	if told && known && c.lifted(m) {
		delete(s.ceilings, key.disk)
		told = false
	}
	if !known || !atCeiling(m) || key.generation != m.Generation || ev.Kind == disk.EventFull {
		return 0
	}
	now := time.Now()
	if told && now.Before(c.next) {
		return c.next.Sub(now)
	}
	if !told {
		c.was, c.wait = m, s.timing.ceiling
	} else {
		c.wait = min(2*c.wait, s.timing.ceilingMax)
	}
	c.next = now.Add(c.wait)
	s.ceilings[key.disk] = c
	s.metrics.ceilings.WithLabelValues(string(key.disk)).Inc()
	s.log.Error("the disk is filling and its backing cannot grow any further: it holds the whole disk; next: delete files, or ebb expand",
		"disk", string(key.disk), "size", m.SizeBytes, "backing", m.BackingBytes, "pool", m.PoolBytes, "used", m.PoolUsedBytes, "again_in", c.wait)
	return 0
}

// measured looks at every measurement of a disk that was told to be at its
// ceiling, and wakes who waits there as soon as that is no longer so.
func (s *Sentinel) measured(m contract.Measurement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, told := s.ceilings[m.Disk]
	if !told || !c.lifted(m) {
		return
	}
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
