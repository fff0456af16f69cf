package disk

import (
	"os"
	"strconv"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// throttleParam is dm-mirror's only copy-speed knob: the share of time, in
// percent, that kcopyd may be busy with copies. It is host-wide. Where the share
// is used up kcopyd sleeps before each piece it copies, and a write to the region
// under copy waits with it.
const throttleParam = "/sys/module/dm_mirror/parameters/raid1_resync_throttle"

// leastShare is the least that is ever asked for, leastRate the least rate: a
// region a second. Less would hold the application's writes to the region under
// copy for longer than that, so a paused copy trickles on.
const (
	leastShare = 3.0 // percent
	leastRate  = 4.0 // MiB/s
)

// throttle steers the knob towards a wanted rate, for one running copy.
type throttle struct {
	m    *Manager
	disk contract.DiskID
	last time.Time
}

// setThrottle sets one disk's share. The knob is shared: the slowest wish wins.
// It holds until the move ends, also while no activity steers it.
func (m *Manager) setThrottle(d contract.DiskID, percent float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.percent[d] = percent
	m.applyThrottle()
}

// unthrottle forgets a disk's share.
func (m *Manager) unthrottle(d contract.DiskID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.percent[d]; ok {
		delete(m.percent, d)
		m.applyThrottle()
	}
}

func (m *Manager) applyThrottle() {
	least := 100.0
	if m.hurried == 0 {
		for _, p := range m.percent {
			least = min(least, p)
		}
	}
	// Without the knob a copy runs at full speed: slower is a wish, not a promise.
	_ = os.WriteFile(throttleParam, []byte(strconv.Itoa(int(least))), 0o644)
}

// hurry lets copies run free while f swaps a mirror away, which waits for the
// region under copy.
func (m *Manager) hurry(f func() error) error {
	m.mu.Lock()
	m.hurried++
	m.applyThrottle()
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.hurried--
		m.applyThrottle()
	}()
	return f()
}

// share is a disk's present share.
func (m *Manager) share(d contract.DiskID) float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.percent[d]; ok {
		return p
	}
	return 100
}

// control moves the knob a little towards the wanted rate.
func (t *throttle) control(h *format.Header, rateMiBs float64) {
	if now := time.Now(); now.Sub(t.last) >= time.Second/2 {
		t.last = now
	} else {
		return
	}
	now := t.m.share(t.disk)
	want := 100.0
	if limit := limitOf(h); limit > 0 {
		want = now
		if rateMiBs > 0 {
			want = min(100, max(leastShare, now*min(2, max(0.5, limit/rateMiBs))))
		}
	}
	t.m.setThrottle(t.disk, want)
}

// limitOf is the rate that a move's header allows, in MiB/s; 0: any.
func limitOf(h *format.Header) float64 {
	switch {
	case h.Paused:
		return leastRate
	case h.ThrottleMiBs > 0:
		return max(leastRate, float64(h.ThrottleMiBs))
	}
	return 0
}

// holdBack holds a copy that the kernel takes up by itself (after a boot) back
// until an Evacuate steers it: one that was paused or throttled must not run free
// meanwhile.
func (m *Manager) holdBack(d contract.DiskID, h *format.Header) {
	if limitOf(h) > 0 {
		m.setThrottle(d, min(5, m.share(d)))
	}
}

// tracker turns positions into progress.
type tracker struct {
	phase contract.Phase
	marks []mark // of the last seconds
}

type mark struct {
	at   time.Time
	done int64
}

func newTracker(p contract.Phase) *tracker { return &tracker{phase: p} }

const rateWindow = 3 * time.Second

func (t *tracker) at(done, total int64) contract.CopyProgress {
	now := time.Now()
	t.marks = append(t.marks, mark{now, done})
	for len(t.marks) > 2 && now.Sub(t.marks[0].at) > rateWindow {
		t.marks = t.marks[1:]
	}
	p := contract.CopyProgress{Phase: t.phase, DoneBytes: done, TotalBytes: total}
	first := t.marks[0]
	if dt := now.Sub(first.at).Seconds(); dt > 0 {
		p.RateMiBs = float64(done-first.done) / dt / (1 << 20)
	}
	if p.RateMiBs > 0 {
		p.ETASeconds = float64(total-done) / (1 << 20) / p.RateMiBs
	}
	return p
}
