package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

const (
	// MeasureEvery is the default distance of two measurements of a disk.
	MeasureEvery = 30 * time.Second
	// measureTimeout bounds one measurement; it reads a few status lines.
	measureTimeout = 10 * time.Second
	// fillWindow is the time constant of the fill rate: a burst of a minute
	// counts, a flush of the page cache does not dominate.
	fillWindow = time.Minute
	// leastSample is the shortest time a fill rate is computed over.
	leastSample = time.Second
	// runway is how soon a pool may be full before the agent asks for growth
	// on its own, whatever the low-water mark says.
	runway = time.Minute
)

// Usage keeps the latest measurement of every disk and the guide that its policy
// gave it, and estimates how fast it fills. It is safe for concurrent use.
type Usage struct {
	now func() time.Time

	mu     sync.Mutex
	disks  map[contract.DiskID]*diskUsage
	guides map[contract.DiskID]contract.Guide // as last told, until the agent ends
	seen   func(contract.Measurement)         // may be nil
}

type diskUsage struct {
	last contract.Measurement
	at   time.Time // of the sample rate was last computed from
	used int64     // pool bytes used at that time
	rate float64   // bytes per second; below 0 while a disk empties

	fullSince time.Time     // zero: not full
	fullFor   time.Duration // in all, but for the time since fullSince
}

// NewUsage makes an empty Usage.
func NewUsage() *Usage {
	return &Usage{now: time.Now, disks: make(map[contract.DiskID]*diskUsage), guides: make(map[contract.DiskID]contract.Guide)}
}

// setGuide keeps what a policy wants of a disk.
func (u *Usage) setGuide(id contract.DiskID, g contract.Guide) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.guides[id] = g
}

// forgetGuide goes back to the defaults.
func (u *Usage) forgetGuide(id contract.DiskID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.guides, id)
}

// guide is what a policy wants of a disk, if it was told.
func (u *Usage) guide(id contract.DiskID) (g contract.Guide, told bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	g, told = u.guides[id]
	return g, told
}

// Observe takes a measurement into account and fills in its FillRate when the
// measurer left it at 0.
func (u *Usage) Observe(m *contract.Measurement) {
	if m.Disk == "" {
		return
	}
	if seen := u.observe(m); seen != nil {
		seen(*m)
	}
}

// watch has every later measurement given to seen.
func (u *Usage) watch(seen func(contract.Measurement)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = seen
}

// last is the latest measurement of a disk, if there was one.
func (u *Usage) last(id contract.DiskID) (m contract.Measurement, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d := u.disks[id]; d != nil {
		return d.last, true
	}
	return m, false
}

func (u *Usage) observe(m *contract.Measurement) func(contract.Measurement) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	d := u.disks[m.Disk]
	switch {
	case d == nil:
		d = &diskUsage{at: now, used: m.PoolUsedBytes}
		u.disks[m.Disk] = d
	case d.last.Generation != m.Generation:
		// Another backing counts its blocks afresh; the application's habit
		// stays what it was.
		d.at, d.used = now, m.PoolUsedBytes
	case now.Sub(d.at) >= leastSample:
		dt := now.Sub(d.at).Seconds()
		d.rate = ewma(d.rate, float64(m.PoolUsedBytes-d.used)/dt, dt, fillWindow.Seconds())
		d.at, d.used = now, m.PoolUsedBytes
	}
	if m.FillRate == 0 {
		m.FillRate = max(0, d.rate)
	}
	d.last = *m
	switch {
	case m.Full && d.fullSince.IsZero():
		d.fullSince = now
	case !m.Full && !d.fullSince.IsZero():
		d.fullFor += now.Sub(d.fullSince)
		d.fullSince = time.Time{}
	}
	return u.seen
}

// full notes that a disk's pool is full, as an event says sooner than a
// measurement.
func (u *Usage) full(id contract.DiskID, generation uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if d := u.disks[id]; d != nil && d.last.Generation == generation && d.fullSince.IsZero() {
		d.fullSince = u.now()
	}
}

// FillRate estimates the fill rate of a disk that now has used bytes in its
// pool, in bytes per second, 0 when unknown. It is quicker to rise than the
// smoothed rate: under pressure a growth too large costs less than one too
// small.
func (u *Usage) FillRate(id contract.DiskID, generation uint64, used int64) float64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	d := u.disks[id]
	if d == nil {
		return 0
	}
	rate := max(0, d.rate)
	if dt := u.now().Sub(d.at); d.last.Generation == generation && dt >= leastSample {
		rate = max(rate, float64(used-d.used)/dt.Seconds())
	}
	return rate
}

// Latest are the last measurements, by disk id.
func (u *Usage) Latest() []contract.Measurement {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make([]contract.Measurement, 0, len(u.disks))
	for _, id := range slices.Sorted(maps.Keys(u.disks)) {
		out = append(out, u.disks[id].last)
	}
	return out
}

// diskState is what is known of one disk.
type diskState struct {
	contract.Measurement
	guide   contract.Guide
	guided  bool
	now     time.Time
	fullFor time.Duration // how long writes have waited in all
}

// states are those of all disks, by id.
func (u *Usage) states() []diskState {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	out := make([]diskState, 0, len(u.disks))
	for _, id := range slices.Sorted(maps.Keys(u.disks)) {
		out = append(out, u.stateOf(id, now))
	}
	return out
}

// state is that of one disk, if it was measured.
func (u *Usage) state(id contract.DiskID) (s diskState, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.disks[id] == nil {
		return s, false
	}
	return u.stateOf(id, u.now()), true
}

func (u *Usage) stateOf(id contract.DiskID, now time.Time) diskState {
	d := u.disks[id]
	s := diskState{Measurement: d.last, now: now, fullFor: d.fullFor}
	s.guide, s.guided = u.guides[id]
	if !d.fullSince.IsZero() {
		s.fullFor += now.Sub(d.fullSince)
	}
	return s
}

// lowWater is how much of the disk's pool must be free.
func (s diskState) lowWater() int64 {
	var g *contract.Guide
	if s.guided {
		g = &s.guide
	}
	return disk.LowWater(g, s.now, s.SizeBytes, s.PoolBytes, s.PoolUsedBytes, s.FillRate)
}

// keep forgets all disks but these.
func (u *Usage) keep(ids []contract.DiskID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.disks, func(id contract.DiskID, _ *diskUsage) bool { return !slices.Contains(ids, id) })
}

// measurer measures every disk now and then. It is the safety net below the
// kernel's events: a pool found full, or about to be, is reported like one.
type measurer struct {
	disks  Disks
	usage  *Usage
	every  time.Duration
	notify func(disk.Event)
	// measured, when not nil, is called with each measurement.
	measured func(contract.Measurement)
	log      *slog.Logger
	looks    looker
}

// run measures until ctx is done.
func (m *measurer) run(ctx context.Context) {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		m.all(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (m *measurer) all(ctx context.Context) {
	ids := m.disks.Disks()
	m.usage.keep(ids)
	_ = m.looks.each(ctx, len(ids), func(ctx context.Context, i int) {
		got, err := look(ctx, &m.looks, string(ids[i]), func(ctx context.Context) (contract.Measurement, error) {
			return m.disks.Measure(ctx, ids[i])
		})
		if err != nil {
			// A disk that is just being taken down or moved is no news.
			m.log.Debug("measurement failed", "disk", string(ids[i]), "error", err)
			return
		}
		m.usage.Observe(&got)
		for _, ev := range pressing(got) {
			m.notify(ev)
		}
		if m.measured != nil {
			m.measured(got)
		}
	}) // an error is ctx's
}

// pressing finds the pools of a disk that are full or will be within runway.
// A pool that already holds every block the disk can have needs no growth.
func pressing(m contract.Measurement) []disk.Event {
	var out []disk.Event
	add := func(generation uint64, pool, used, backing int64, full bool) {
		free := pool - used
		kind := disk.EventPressure
		switch {
		case pool <= 0 || pool >= m.SizeBytes:
			return
		case full || free <= 0:
			kind = disk.EventFull
		case m.FillRate <= 0 || float64(free) > m.FillRate*runway.Seconds():
			return
		}
		out = append(out, disk.Event{
			Disk: m.Disk, Kind: kind, Message: "seen by a measurement",
			Pressure: contract.Pressure{
				Node: m.Node, Generation: generation, UsedBytes: used, BackingBytes: backing, FillRate: m.FillRate,
			},
		})
	}
	add(m.Generation, m.PoolBytes, m.PoolUsedBytes, m.BackingBytes, m.Full)
	if mv := m.Move; mv != nil && mv.Generation != m.Generation {
		var backing int64
		for _, v := range mv.Members {
			backing += v.Bytes
		}
		// The new pool fills at the copy's rate, which its events follow; only
		// a full one is caught here.
		if mv.Full {
			add(mv.Generation, mv.PoolBytes, mv.PoolUsedBytes, backing, true)
		}
	}
	return out
}
