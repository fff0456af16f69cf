// Package simulate plays a trace of a fleet's usage to Ebb's own planner, against
// a model of EBS, and counts what comes of it: utilization, footprint, cost,
// operations, near misses, times out of space.
//
// Decisions are internal/plan's alone: this package takes the place of nodes, EC2
// and the clock. What the model assumes is in docs/simulate.md.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"runtime"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/trace"
)

// Options of a run. Source and Rule are required; zero fields mean the defaults
// that are named.
type Options struct {
	Source trace.Source
	// Rule is the policy for a disk, asked once for each, from several
	// goroutines. False: no policy selects it, so it stays as it is.
	Rule    func(plan.Facts) (plan.Rule, bool)
	Limits  plan.Limits // no types: plan.DefaultLimits
	Prices  plan.Prices
	Budgets plan.Budgets // compared with what happened, not enforced; see Result

	// Every is the time between two rounds of planning (growth does not wait for
	// them). Default 4 hours.
	Every time.Duration
	// Rollout is the time over which the disks join, one after the other, so that
	// not all move at once. Default 3 days; negative: all at once.
	Rollout time.Duration
	// ControlUSDMonth is what Ebb's worker and Temporal cost. Negative: 0.
	// Default 400: three small instances and their disks.
	ControlUSDMonth float64
	Seed            uint64 // of EBS's delays
	Workers         int    // default: one for each processor
	Title           string // of the report

	// Operation is told each operation, when not nil: by one goroutine at a time,
	// a disk's own in the order of time.
	Operation func(report.Operation) error

	whole bool // give the planner all records, not only those it looks at
}

// Result is what came of it.
type Result struct {
	Report report.Report
	// EBSRefused counts what the planner asked of EBS that EBS does not allow. It
	// is not 0 when the planner's limits are not EBS's.
	EBSRefused int
	// Waits are the times out of space, up to 100 of them.
	Waits []Wait
	// Oscillations, up to 100 of them, in words.
	Oscillations []string
}

// Wait is one time a write would have waited for room.
type Wait struct {
	Disk    string
	At      time.Time
	Seconds float64
	Why     string
}

func (o Options) withDefaults() Options {
	if o.Every <= 0 {
		o.Every = 4 * time.Hour
	}
	o.Every = max(o.Every.Truncate(time.Hour), time.Hour)
	switch {
	case o.Rollout == 0:
		o.Rollout = 3 * 24 * time.Hour
	case o.Rollout < 0:
		o.Rollout = 0
	}
	switch {
	case o.ControlUSDMonth == 0:
		o.ControlUSDMonth = 400
	case o.ControlUSDMonth < 0:
		o.ControlUSDMonth = 0
	}
	if len(o.Limits.Types) == 0 {
		o.Limits = plan.DefaultLimits()
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Title == "" {
		o.Title = "Simulated fleet"
	}
	return o
}

// Run plays the whole trace. The same options give the same result, however many
// workers there are.
func Run(ctx context.Context, o Options) (Result, error) {
	o = o.withDefaults()
	if o.Source == nil || o.Rule == nil {
		return Result{}, errors.New("simulate: a source and a rule are required")
	}
	sum := newTally()
	free := make(chan *player, o.Workers) // players are used again: they are large
	for range o.Workers {
		free <- newPlayer(&o)
	}
	var tell sync.Mutex
	err := o.Source(ctx, o.Workers, func(d *trace.Disk) error {
		p := <-free
		defer func() { free <- p }()
		p.play(d)
		if o.Operation == nil {
			return ctx.Err()
		}
		tell.Lock()
		defer tell.Unlock()
		for _, op := range p.ops {
			if err := o.Operation(op); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return Result{}, err
	}
	for range o.Workers {
		sum.add((<-free).tally)
	}
	if sum.disks == 0 {
		return Result{}, errors.New("simulate: there is no disk in the trace")
	}
	return sum.result(&o), nil
}

// draw gives a disk's own number for a use, evenly from 0 to 1, by its name.
func draw(seed uint64, disk, use string) float64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s/%s", seed, disk, use)
	v := h.Sum64()
	v ^= v >> 33
	v *= 0xff51afd7ed558ccd
	v ^= v >> 33
	return float64(v>>11) / (1 << 53)
}
