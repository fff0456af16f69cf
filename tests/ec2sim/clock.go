package ec2sim

import (
	"sort"
	"sync"
	"time"
)

// Clock is the server's source of time.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once, in its own goroutine or in the one that moves
	// the clock, when d has passed; stop prevents that if it has not begun.
	AfterFunc(d time.Duration, f func()) (stop func())
}

// WarpClock runs with the real clock and can be moved forward, so a test need
// not wait for lags or for a day to pass. Make one with [NewWarpClock].
type WarpClock struct {
	mu     sync.Mutex
	offset time.Duration
	timers map[*warpTimer]struct{}
}

type warpTimer struct {
	due  time.Time
	f    func()
	real *time.Timer
}

// NewWarpClock returns a clock that shows the real time until it is advanced.
func NewWarpClock() *WarpClock {
	return &WarpClock{timers: map[*warpTimer]struct{}{}}
}

// Now is the real time plus what the clock was advanced by.
func (c *WarpClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *WarpClock) now() time.Time { return time.Now().UTC().Round(0).Add(c.offset) }

// Offset is what the clock was advanced by.
func (c *WarpClock) Offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}

// AfterFunc implements [Clock].
func (c *WarpClock) AfterFunc(d time.Duration, f func()) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &warpTimer{due: c.now().Add(d), f: f}
	c.timers[t] = struct{}{}
	t.real = time.AfterFunc(d, func() {
		if c.take(t) {
			t.f()
		}
	})
	return func() { c.take(t) }
}

// take removes t and reports whether the caller is the one to run it.
func (c *WarpClock) take(t *warpTimer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.timers[t]
	delete(c.timers, t)
	t.real.Stop()
	return ok
}

// Advance moves the clock forward and runs what fell due, earliest first,
// before it returns.
func (c *WarpClock) Advance(d time.Duration) {
	c.mu.Lock()
	c.offset += d
	c.mu.Unlock()
	for {
		t := c.nextDue()
		if t == nil {
			return
		}
		if c.take(t) {
			t.f()
		}
	}
}

func (c *WarpClock) nextDue() *warpTimer {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	var due []*warpTimer
	for t := range c.timers {
		if !t.due.After(now) {
			due = append(due, t)
		}
	}
	if len(due) == 0 {
		return nil
	}
	sort.Slice(due, func(i, j int) bool { return due[i].due.Before(due[j].due) })
	return due[0]
}

// farFuture is when what hangs goes on by itself: never.
var farFuture = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
