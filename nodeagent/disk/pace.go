package disk

import (
	"context"
	"time"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

const (
	// A chunk is read from the old volume at a time, several while nobody uses the
	// disk. While the application does its requests wait behind one, a small one
	// under heavy use.
	largeChunk = 512 << 10
	lightChunk = 256 << 10
	smallChunk = 64 << 10
	// More than busyIOs in a window of busyFor are heavy use.
	busyFor = 100 * time.Millisecond
	busyIOs = 10

	// lookInterval is how often the application's I/O is looked at, headerInterval
	// how often what Throttle wants.
	lookInterval   = 10 * time.Millisecond
	headerInterval = 200 * time.Millisecond
)

// pace keeps a copy out of the application's way, and below a wanted rate.
type pace struct {
	paused bool
	mibs   float64 // 0: any

	asked  time.Time // the header, last
	looked time.Time // at the application's I/O, last
	window time.Time // when the present one began
	ios    uint64    // until then
	recent uint64    // I/Os of the last window, or of this one if more
	begin  time.Time // of the present second or so
	moved  uint64    // bytes since
}

// chunk is how much to take at a time, and whether alone. look tells what the
// application does; in doubt it uses the disk.
func (p *pace) chunk(look func() (dm.Counters, error)) (bytes uint64, alone bool) {
	now := time.Now()
	if now.Sub(p.looked) >= lookInterval {
		p.looked = now
		io, err := look()
		ios := io.Reads + io.Writes
		if err != nil {
			ios = p.ios + busyIOs + 1
		}
		if n := ios - p.ios; now.Sub(p.window) >= busyFor {
			p.recent, p.ios, p.window = n, ios, now
		} else {
			p.recent = max(p.recent, n)
		}
		if io.InFlight {
			p.recent = max(p.recent, 1)
		}
	}
	switch {
	case p.recent > busyIOs:
		return smallChunk, true
	case p.recent > 0:
		return lightChunk, true
	}
	return largeChunk, false
}

// wait holds the copy back as the header wants it. refresh reads that.
func (p *pace) wait(ctx context.Context, refresh func() error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		if now.Sub(p.asked) >= headerInterval {
			p.asked = now
			if err := refresh(); err != nil {
				return err
			}
		}
		var hold time.Duration
		switch since := now.Sub(p.begin); {
		case p.paused:
			hold = headerInterval
		case p.mibs > 0:
			if since > time.Second {
				p.begin, p.moved = now, 0
			} else if ahead := time.Duration(float64(p.moved)/(p.mibs*(1<<20))*1e9) - since; ahead > 0 {
				hold = min(ahead, headerInterval)
			}
		}
		if hold == 0 {
			return nil
		}
		timer := time.NewTimer(hold)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
