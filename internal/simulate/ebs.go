package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/plan"
)

// How EBS answers, in the model. Sizes of the tails are what makes a fill that is
// faster than a growth show.
const (
	modifyMedian = 12 * time.Second // from the call until the new size is usable, the agent's own steps included
	modifySpread = .6               // of the logarithm: one in a hundred takes 4 times as long
	modifySlow   = .005             // the share that takes minutes instead
	slowLeast    = 2 * time.Minute
	slowMost     = 15 * time.Minute
	createMedian = 15 * time.Second // create, attach, format, append
	createSpread = .5
	optimizeBase = 2 * time.Minute // after it is usable, plus:
	optimizeTiB  = 6 * time.Hour   // for each TiB
	optimizeMost = 24 * time.Hour
	// A modification is waited for a third of the time until the pool is full, at
	// least leastPatience and at most contract.Settings' default: then another
	// volume is appended.
	leastPatience  = 15 * time.Second
	modifyPatience = 3 * time.Minute
	// setUp is what a move takes beside copying: create, attach, map, swap.
	setUp = time.Minute
)

// ebs is the model of one disk's volumes in EC2: how long things take and what is
// refused.
type ebs struct {
	r      *rand.Rand
	limits plan.Limits
}

func lognormal(r *rand.Rand, median time.Duration, spread float64) time.Duration {
	return time.Duration(float64(median) * math.Exp(spread*math.Max(-2.5, math.Min(r.NormFloat64(), 3.5))))
}

// modify is how long a modification takes to become usable.
func (e *ebs) modify() time.Duration {
	if e.r.Float64() < modifySlow {
		return slowLeast + time.Duration(e.r.Float64()*float64(slowMost-slowLeast))
	}
	return lognormal(e.r, modifyMedian, modifySpread)
}

// patience is how long a modification is waited for before another volume is
// appended, when the pool is full in a time (0: not filling).
func patience(full time.Duration) time.Duration {
	if full == 0 {
		return modifyPatience
	}
	return min(max(full/3, leastPatience), modifyPatience)
}

// create is how long a new volume takes until it can be used.
func (e *ebs) create() time.Duration { return lognormal(e.r, createMedian, createSpread) }

// optimize is how long a volume is not to be modified again after a modification.
func (e *ebs) optimize(gib int64) time.Duration {
	d := optimizeBase + time.Duration(float64(optimizeTiB)*float64(gib)/1024)
	return min(lognormal(e.r, d, .4), optimizeMost)
}

// allows tells whether EC2 would take a modification now.
func (e *ebs) allows(now time.Time, v plan.Volume, gib int64) bool {
	recent := 0
	for _, t := range v.Modified {
		if t.After(now.Add(-24 * time.Hour)) {
			recent++
		}
	}
	return recent < 4 && !v.OptimizingUntil.After(now) && gib >= v.GiB && gib <= e.limits.Types[v.Type].MaxGiB
}

// modified notes a modification and forgets those that do not matter any more.
func modified(v *plan.Volume, now time.Time) {
	v.Modified = slices.DeleteFunc(v.Modified, func(t time.Time) bool { return !t.After(now.Add(-24 * time.Hour)) })
	v.Modified = append(v.Modified, now)
}
