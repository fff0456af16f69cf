package agent

import (
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

const (
	// leastPatience is the shortest a growth waits for EBS to modify a volume
	// before it appends another one.
	leastPatience = 15 * time.Second
	// never is a time to full that means: not in sight.
	never = 1<<63 - 1
)

// timeToFull is how long a pool lasts at a fill rate; never when it does not fill.
func timeToFull(free int64, rate float64) time.Duration {
	switch {
	case free <= 0:
		return 0
	case rate <= 0 || float64(free)/rate > (10*365*24*time.Hour).Seconds():
		return never
	}
	return time.Duration(float64(free) / rate * float64(time.Second))
}

// freeOf is what is left of the pool that a pressure is about, as far as its
// disk's measurement knows how much of the backing is no pool.
func freeOf(m contract.Measurement, p contract.Pressure) int64 {
	free := p.BackingBytes - p.UsedBytes
	switch {
	case p.Generation == m.Generation:
		free -= m.OverheadBytes
	case m.Move != nil && p.Generation == m.Move.Generation && m.Move.PoolBytes > 0:
		free = m.Move.PoolBytes - p.UsedBytes
	}
	return max(0, free)
}

// growSettings are the settings of a growth that the agent starts: the policy's,
// with its ceiling, with a step that reaches its headroom at once, and without
// patience that the pool does not have.
func (u *Usage) growSettings(ev disk.Event) contract.Settings {
	g, guided := u.guide(ev.Disk)
	m, known := u.last(ev.Disk)
	s := g.Settings
	s.CeilingGiB = disk.CeilingGiB(g)
	p := ev.Pressure
	free := freeOf(m, p)
	if ev.Kind == disk.EventFull {
		free = 0
	}
	pool := int64(0)
	switch mv := m.Move; {
	case !guided || !known:
	case p.Generation == m.Generation:
		pool = m.PoolBytes
	case mv != nil && p.Generation == mv.Generation:
		pool = mv.PoolBytes
	}
	if pool > 0 {
		// What the time at the fill rate asks for, the horizon gives.
		if lacks := disk.LowWater(&g, u.now(), m.SizeBytes, pool, p.UsedBytes, 0) - free; lacks > 0 {
			s.MinGrowGiB = max(s.MinGrowGiB, lacks/contract.GiB+1)
		}
	}
	patience := s.WithDefaults().ModifyPatience
	usual := contract.Settings{}.WithDefaults().ModifyPatience
	if left := timeToFull(free, p.FillRate); left < max(patience, usual) {
		s.ModifyPatience = min(patience, max(leastPatience, (left/3).Truncate(time.Second)))
	}
	return s
}
