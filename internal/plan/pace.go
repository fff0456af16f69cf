package plan

import (
	"math"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// pace is how far a growth goes, by how many modifications of the disk were spent
// in the last day: the fewer are left, the longer one has to last.
type pace struct {
	times float64 // the policy's fill time, and what a day brought by a third, so many times
	least float64 // at least this share of what is used is made free beside the headroom
	most  float64 // at most this share: a burst is no trend
}

// paces of the first growths of a day. Those after them go to the ceiling: then
// nothing can run out, and no other modification is needed.
var paces = [...]pace{
	{times: 4, most: 1},
	{times: 16, least: .25, most: 1},
	{least: .5, most: .5},
}

// spent is when the modifications of the disk in the window were, latest first, by
// the disk's own list and by its volumes': at any time as many as the longer of the
// two has by then.
func (f Facts) spent(now time.Time, window time.Duration) []time.Time {
	disk := recentFirst(now, f.Modified, window)
	var volumes []time.Time
	for _, v := range f.Volumes {
		volumes = append(volumes, v.Modified...)
	}
	volumes = recentFirst(now, volumes, window)
	if len(volumes) > len(disk) {
		disk, volumes = volumes, disk
	}
	for i, t := range volumes {
		if t.After(disk[i]) {
			disk[i] = t
		}
	}
	return disk
}

// left is how many modifications of the disk may still be spent now.
func (c *weighing) left() int {
	if c.l.DiskModifications <= 0 {
		return math.MaxInt32
	}
	return c.l.DiskModifications - len(c.spent)
}

// free is when a disk that has spent so many has one modification fewer on record
// than allowed.
func (c *weighing) free(allowed int) time.Time {
	if allowed <= 0 || len(c.spent) < allowed {
		return time.Time{}
	}
	return c.spent[allowed-1].Add(c.l.ModificationWindow)
}

// last tells that a growth now has to suffice until another modification is free.
func (c *weighing) last() bool { return c.left() <= 1 }

// growing is what used bytes want of a pool after a growth.
func (c *weighing) growing() int64 {
	used, p := c.f.UsedBytes, paces[min(len(c.spent), len(paces)-1)]
	coming := float64(within(c.f.FillRate, c.r.HeadroomTime)) * p.times
	coming = max(coming, float64(c.h.DayGrowthBytes)/3, float64(used)*p.least)
	coming = min(coming, max(float64(used)*p.most, float64(contract.GiB)))
	lasting := used + c.r.Headroom(c.now, used, c.f.FillRate) + int64(coming)
	return max(int64(math.Ceil(float64(used)/c.r.Target)), lasting)
}

// surely is what suffices until another modification is free, even if the volumes
// were written to as fast as they go until then.
func (c *weighing) surely() int64 {
	_, together := c.l.delivered(c.f)
	until := c.free(c.l.DiskModifications - 1)
	if together.mibs <= 0 || !until.After(c.now) {
		return c.f.SizeBytes
	}
	return c.f.UsedBytes + c.r.Headroom(c.now, c.f.UsedBytes, c.f.FillRate) + within(float64(together.mibs)*(1<<20), until.Sub(c.now))
}

// growth is the size that a growth goes to, at least the least.
func (c *weighing) growth(least, floor int64) int64 {
	ceiling := max(c.ceilingGiB(), c.have)
	if c.last() && c.d.Urgent { // any other is held back
		return min(max(c.fit(c.surely()), least, floor, c.have+1), ceiling)
	}
	step := c.step(c.have) << min(len(c.spent), 8) // 5%, 10%, 20%, ...
	want := max(c.fit(c.growing()), floor, c.have+step)
	if c.r.MaxStepGiB > 0 {
		want = max(min(want, c.have+c.r.MaxStepGiB), least)
	}
	return min(want, ceiling)
}

// dayPeak is the most that was used in the last day, and whether that is known.
func (c *weighing) dayPeak() (int64, bool) {
	if c.r.LookBack >= 24*time.Hour {
		return c.h.PeakUsedBytes, true
	}
	return max(c.f.DayPeakBytes, c.h.PeakUsedBytes), c.f.DayPeakBytes > 0
}

// holdSpent keeps a disk that cannot grow again before a modification is free from
// being made smaller, and one that was modified often in a day that is not known.
func (c *weighing) holdSpent() time.Time {
	allowed := c.l.DiskModifications
	if _, known := c.dayPeak(); !known {
		allowed = min(allowed, often)
	}
	until := c.free(allowed)
	if until.After(c.now) {
		c.hold(Shrink, WhyModifications, until, "%d of the %d modifications of a day are spent", len(c.spent), c.l.DiskModifications)
	}
	return until
}

// often modifications in a day make a shrink look back a whole day.
const often = 2

func recentFirst(now time.Time, at []time.Time, window time.Duration) []time.Time {
	var out []time.Time
	for _, t := range at {
		if t.After(now.Add(-window)) && t.Before(now.Add(time.Hour)) { // clocks differ; further ahead is damage
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b time.Time) int { return b.Compare(a) })
	return out
}
