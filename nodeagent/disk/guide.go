package disk

import (
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// Guide takes what a policy wants of a disk. It holds until the next one, until the
// disk is taken down, or until the process ends. It does not wait for the disk; the
// watch looks at it at once.
func (m *Manager) Guide(d contract.DiskID, g contract.Guide) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, ok := m.guides[d]; ok && old == g {
		return
	}
	m.guides[d] = g
	if m.wake != nil {
		m.wake()
	}
}

// Forget has a disk go back to the defaults. Like Guide it does not wait.
func (m *Manager) Forget(d contract.DiskID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.guides[d]; !ok {
		return
	}
	delete(m.guides, d)
	if m.wake != nil {
		m.wake()
	}
}

// wakeWatch has the watch look at once, for what no event tells of.
func (m *Manager) wakeWatch() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wake != nil {
		m.wake()
	}
}

// wakeBy lets a new guide, or a failed pre-copy, end the watch's wait.
func (m *Manager) wakeBy(wake func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wake = wake
}

// guide is what a policy wants of a disk; nil: none was told.
func (m *Manager) guide(d contract.DiskID) *contract.Guide {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g, ok := m.guides[d]; ok {
		return &g
	}
	return nil
}

// CeilingGiB is the greatest backing that a policy allows; 0: all that the disk can
// use. The lower of the guide's and its settings' counts.
func CeilingGiB(g contract.Guide) int64 {
	if c := g.Settings.CeilingGiB; c > 0 && (g.CeilingGiB == 0 || c < g.CeilingGiB) {
		return c
	}
	return g.CeilingGiB
}

const (
	// leastLow is the least that is kept free whatever a policy says: a growth
	// takes a while.
	leastLow = 64 << 20
	// growTime is how long a growth takes at least, with what the control plane
	// and EBS need.
	growTime = 30 * time.Second
)

// LowWater is how many free bytes of a pool make it ask for growth. By a policy:
// the greatest of its headroom's bytes, share of what is used and time at the fill
// rate, and what somebody wants free for a while on top; never less than what
// fills while the pool grows, and never more than the disk can still come to use,
// since a pool that holds the whole disk needs no growth. Without a policy (nil):
// 15% of the pool, at least 256 MiB, at most 64 GiB, never more than a third of a
// small pool, and not less than what fills while it grows. Sizes are in bytes, the
// rate in bytes per second.
func LowWater(g *contract.Guide, now time.Time, size, pool, used int64, rate float64) int64 {
	growing := bytesIn(rate, growTime)
	if g == nil {
		low := min(max(pool*15/100, 256<<20), 64<<30)
		return min(max(low, growing), pool/3)
	}
	low := max(g.HeadroomBytes, int64(g.HeadroomPercent*float64(used)), bytesIn(rate, g.HeadroomTime))
	if now.Before(g.ExtraUntil) {
		low += g.ExtraBytes
	}
	low = max(low, growing, min(leastLow, pool/3))
	return max(1, min(low, size-used))
}

// bytesIn is what a rate makes in a time, bounded so that sums of it fit.
func bytesIn(rate float64, t time.Duration) int64 {
	return int64(min(max(0, rate*t.Seconds()), float64(contract.MaxDiskBytes)))
}

// lowWater is LowWater of a backing's pool.
func (m *Manager) lowWater(b *backing, pool, used int64, rate float64) int64 {
	return LowWater(m.guide(contract.DiskID(b.head.Disk)), time.Now(), int64(b.head.SizeBytes), pool, used, rate)
}

// markBlocks is the low-water mark with which a backing's pool is built or
// extended, in blocks. The caller holds the disk's lock.
func (m *Manager) markBlocks(b *backing) uint64 {
	var used int64
	if st, err := m.poolState(b); err == nil {
		used = int64(st.UsedData * b.head.BlockBytes)
	}
	low := m.lowWater(b, int64(b.head.Bytes(format.Data)), used, m.handle(contract.DiskID(b.head.Disk)).rate.value)
	return max(1, uint64(low)/b.head.BlockBytes)
}

// markInterval is the least time between two changes of a pool's low-water mark: a
// change is a swap of its table. To lower it is not urgent: a mark that is too high
// tells too early.
const (
	markInterval      = time.Minute
	lowerMarkInterval = 10 * time.Minute
)

// mark brings the low-water mark that the kernel watches near the wanted one, so
// that crossing it is an event and not found by the next look. A mark that is off
// by a quarter is left: a look finds the rest. Only by a policy, never during a
// move. The caller holds the disk's lock, and the pool is not full.
func (m *Manager) mark(d contract.DiskID, h *handle, low int64) {
	if m.guide(d) == nil || h.lent() || h.view.incoming != nil || time.Since(h.marked) < markInterval {
		return
	}
	b := h.view.active
	name := stackName(b.head) + partPool
	_, table, err := m.DM.Table(name)
	if err != nil || len(table) != 1 {
		return
	}
	is, ok := dm.LowWater(table[0])
	want := max(1, uint64(low)/b.head.BlockBytes)
	if diff := max(is, want) - min(is, want); !ok || diff*4 <= is || want < is && time.Since(h.marked) < lowerMarkInterval {
		return
	}
	h.marked = time.Now()
	if _, err := m.replace(name, dm.WithLowWater(table[0], want)); err != nil {
		m.Logger.Warn("set the pool's low-water mark", "disk", d, "error", err)
		return
	}
	m.Logger.Debug("low-water mark", "disk", d, "bytes", want*b.head.BlockBytes, "was", is*b.head.BlockBytes)
}

// nextLook is when to look at the pools again at the latest: often enough that a
// headroom of some minutes of filling is not lost before it is noticed.
func (m *Manager) nextLook() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := watchInterval
	for _, g := range m.guides {
		if g.HeadroomTime > 0 {
			next = min(next, g.HeadroomTime/20)
		}
		if g.FailAtCeiling {
			next = min(next, ballastLook)
		}
	}
	return max(next, time.Second)
}
