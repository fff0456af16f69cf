package disk

import (
	"os"
	"strconv"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// throttleParam is dm-mirror's only copy-speed knob: the share of time, in
// percent, that kcopyd may be busy with copies. It is host-wide; 0 still lets
// about one region a second through.
const throttleParam = "/sys/module/dm_mirror/parameters/raid1_resync_throttle"

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
	for _, p := range m.percent {
		least = min(least, p)
	}
	// Without the knob a copy runs at full speed: slower is a wish, not a promise.
	_ = os.WriteFile(throttleParam, []byte(strconv.Itoa(int(least))), 0o644)
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
	want := now
	switch {
	case h.Paused:
		want = 0
	case h.ThrottleMiBs == 0:
		want = 100
	case rateMiBs > 0:
		want = min(100, max(1, max(now, 1)*min(2, max(0.5, float64(h.ThrottleMiBs)/rateMiBs))))
	}
	t.m.setThrottle(t.disk, want)
}

// holdBack holds a copy that the kernel takes up by itself (after a boot) back
// until an Evacuate steers it: one that was paused or throttled must not run free
// meanwhile.
func (m *Manager) holdBack(d contract.DiskID, h *format.Header) {
	switch {
	case h.Paused:
		m.setThrottle(d, 0)
	case h.ThrottleMiBs > 0:
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
