package agent

import (
	"math"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// rateWindow is the time constant of the smoothed copy rate: long enough that
// the ETA does not jump with every flush, short enough to follow a throttle.
const rateWindow = 15 * time.Second

// rateEvery is the shortest time a rate is computed over.
const rateEvery = time.Second

// progress is the state of one long activity: what it last reported, with the
// rate smoothed and the time left. It is safe for concurrent use.
type progress struct {
	now func() time.Time

	mu    sync.Mutex
	last  contract.CopyProgress
	known bool // last holds something worth a heartbeat

	baseAt    time.Time // where the next rate is measured from; zero: nowhere yet
	baseBytes int64
	rate      float64 // bytes per second
	rated     bool
}

// resume takes over the details of the previous attempt, so that the first
// heartbeat of this one does not blank what an operator sees.
func (p *progress) resume(c contract.CopyProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.RateMiBs, c.ETASeconds = 0, 0
	p.last, p.known = c, true
}

// report notes new numbers. The first report of a run, or of a phase, only sets
// the base line: what an earlier run copied says nothing about this one's rate.
func (p *progress) report(c contract.CopyProgress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	dt := now.Sub(p.baseAt).Seconds()
	switch {
	case p.baseAt.IsZero() || c.Phase != p.last.Phase || c.DoneBytes < p.last.DoneBytes:
		p.baseAt, p.baseBytes, p.rate, p.rated = now, c.DoneBytes, 0, false
	case dt >= rateEvery.Seconds():
		r := float64(c.DoneBytes-p.baseBytes) / dt
		if p.rated {
			r = ewma(p.rate, r, dt, rateWindow.Seconds())
		}
		p.baseAt, p.baseBytes, p.rate, p.rated = now, c.DoneBytes, r, true
	}
	c.RateMiBs, c.ETASeconds = p.rate/(1<<20), 0
	if left := c.TotalBytes - c.DoneBytes; left > 0 && p.rate > 0 {
		c.ETASeconds = math.Round(float64(left) / p.rate)
	}
	p.last, p.known = c, true
}

// snapshot is what a heartbeat carries; false when nothing is known yet.
func (p *progress) snapshot() (contract.CopyProgress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last, p.known
}

// ewma moves old towards sample by the weight of dt seconds against a time
// constant of tau seconds, so irregular samples weigh what they should.
func ewma(old, sample, dt, tau float64) float64 {
	return old + (1-math.Exp(-dt/tau))*(sample-old)
}
