package disk

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// throttleParam is dm-mirror's only copy-speed knob: the share of time, in
// percent, that kcopyd may be busy with copies. It is host-wide; 0 still lets
// about one region a second through.
const throttleParam = "/sys/module/dm_mirror/parameters/raid1_resync_throttle"

// throttles counts the running copies of this process, so that the last one
// restores full speed.
var throttles struct {
	sync.Mutex
	running int
}

// throttle steers the knob towards a wanted rate, for one running copy.
type throttle struct {
	percent float64
	last    time.Time
}

func (m *Manager) throttle() *throttle {
	throttles.Lock()
	defer throttles.Unlock()
	throttles.running++
	return &throttle{percent: readThrottle()}
}

func (t *throttle) release() {
	throttles.Lock()
	defer throttles.Unlock()
	if throttles.running--; throttles.running == 0 {
		setThrottle(100)
	}
}

// control moves the knob a little towards the wanted rate. With several copies
// on a node the slowest wish wins, roughly: the knob is shared.
func (t *throttle) control(h *format.Header, rateMiBs float64) {
	if now := time.Now(); now.Sub(t.last) >= time.Second/2 {
		t.last = now
	} else {
		return
	}
	want := t.percent
	switch {
	case h.Paused:
		want = 0
	case h.ThrottleMiBs == 0:
		want = 100
	case rateMiBs > 0:
		want = min(100, max(1, max(t.percent, 1)*min(2, max(0.5, float64(h.ThrottleMiBs)/rateMiBs))))
	}
	if int(want) != int(t.percent) {
		setThrottle(int(want))
	}
	t.percent = want
}

// startThrottle holds a copy that the kernel takes up by itself (after a boot)
// back until an Evacuate steers it: one that was paused or throttled must not
// run free meanwhile.
func startThrottle(h *format.Header) {
	switch {
	case h.Paused:
		setThrottle(0)
	case h.ThrottleMiBs > 0:
		setThrottle(5)
	}
}

func readThrottle() float64 {
	b, err := os.ReadFile(throttleParam)
	if err != nil {
		return 100
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 100
	}
	return float64(n)
}

func setThrottle(percent int) {
	// Without the knob a copy runs at full speed: slower is a wish, not a promise.
	_ = os.WriteFile(throttleParam, []byte(strconv.Itoa(percent)), 0o644)
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
