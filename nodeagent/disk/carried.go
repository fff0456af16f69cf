package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// countProgram marks Ebb's counts among a device's.
const countProgram = "ebb"

const (
	// countMemory bounds what the kernel's counters of one move may take.
	countMemory = 64 << 20
	leastAreas  = 1024
	mostAreas   = 1 << 16
	// countedWithin is how long what has ended below may take to be counted above.
	countedWithin = 2 * time.Second
)

type extent struct{ start, length uint64 }

type areaState int

const (
	areaBlank  areaState = iota
	areaCopied           // once, or by an agent before this one: to be compared
	areaProven           // equal, unless it was written since
)

type area struct {
	runs  []extent // what the new backing holds there
	bytes uint64
	state areaState
	since dm.Counters // when its comparison began
}

// carried is what a pre-copy has brought over. It lives with the count of writes
// that it relies on, in the kernel, and in no other agent.
type carried struct {
	move  string
	count uint64        // dm-stats id, on the top device
	whole uint64        // of a count of the device as a whole
	area  uint64        // bytes; a multiple of the region size
	held  format.Bitmap // regions that the new backing holds
	areas []area

	// What reaches the old backing's device is counted, too: the check on the count.
	// Both as they were when it had begun, in sectors.
	below                  string // the device
	belowCount             uint64
	belowBase, countedBase uint64

	written   uint64 // bytes copied, those that were copied again included
	identical uint64 // bytes that an earlier agent's copy had right
	again     bool   // there was one
}

// written tells that an area may have changed since.
func written(since, now dm.Counters) bool { return since.Writes != now.Writes || now.InFlight }

// unchanged tells, for all areas, what is proven still: nothing, if the old backing
// was written to more than was counted.
func (m *Manager) unchanged(ctx context.Context, d contract.DiskID, c *carried) ([]bool, error) {
	below, err := m.writtenBelow(c)
	if err != nil {
		return nil, err
	}
	below -= c.belowBase
	out := make([]bool, len(c.areas))
	for deadline := time.Now().Add(countedWithin); ; {
		now, counted, err := m.countersOf(d, c)
		if err != nil {
			return nil, err
		}
		for i := range c.areas {
			out[i] = c.areas[i].state == areaProven && !written(c.areas[i].since, now[i])
		}
		if counted-c.countedBase >= below {
			return out, nil
		}
		if time.Now().After(deadline) {
			m.Logger.Error("writes were not counted: nothing that was compared counts as proven", "disk", d, "counted_sectors", counted-c.countedBase, "written_sectors", below)
			return make([]bool, len(c.areas)), nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// countersOf reads all areas' counts, and the sum of the sectors written.
func (m *Manager) countersOf(d contract.DiskID, c *carried) (all []dm.Counters, sectors uint64, err error) {
	if all, err = m.DM.CountersOf(topName(d), c.count, 0, len(c.areas)); err != nil {
		return nil, 0, err
	}
	if len(all) != len(c.areas) {
		return nil, 0, fmt.Errorf("disk %s: %d areas of %d are counted", d, len(all), len(c.areas))
	}
	for _, x := range all {
		sectors += x.Written
	}
	return all, sectors, nil
}

// writtenBelow is how many sectors the old backing was written.
func (m *Manager) writtenBelow(c *carried) (sectors uint64, err error) {
	one, err := m.DM.CountersOf(c.below, c.belowCount, 0, 1)
	if err == nil && len(one) != 1 {
		err = fmt.Errorf("device %s is not counted", c.below)
	}
	if err != nil {
		return 0, err
	}
	return one[0].Written, nil
}

// holds tells that the new backing holds a stretch in whole regions.
func (c *carried) holds(start, length, regionBytes uint64) bool {
	for r := start / regionBytes; r <= (start+length-1)/regionBytes; r++ {
		if !c.held.Get(r) {
			return false
		}
	}
	return true
}

// provenRegion tells that a region is proven, by what unchanged said.
func (c *carried) provenRegion(r, regionBytes uint64, unchanged []bool) bool {
	return c.held.Get(r) && unchanged[r*regionBytes/c.area]
}

// disprove leaves what the mirror copies to the verification: regions that are held
// and not clean when it begins.
func (c *carried) disprove(regionBytes uint64, clean format.Bitmap) {
	for r := range (uint64(len(c.areas))*c.area + regionBytes - 1) / regionBytes {
		if r/8 < uint64(len(clean)) && c.held.Get(r) && !clean.Get(r) {
			c.areas[r*regionBytes/c.area].state = areaCopied
		}
	}
}

// areaBytes is how much of a disk shares a counter: whole regions, as few as the
// memory for counters allows.
func areaBytes(size, region uint64, processors int) uint64 {
	per := 120 + 96*uint64(processors) // struct dm_stat_shared, dm_stat_percpu
	areas := min(max(countMemory/per, leastAreas), mostAreas)
	n := region
	for (size+n-1)/n > areas {
		n += region
	}
	return n
}

// processors is how many the kernel keeps counters for: all that there may ever be.
func processors() int {
	b, err := os.ReadFile("/sys/devices/system/cpu/possible")
	last := strings.TrimSpace(string(b))
	if i := strings.LastIndexAny(last, "-,"); i >= 0 {
		last = last[i+1:]
	}
	n, e := strconv.Atoi(last)
	if err != nil || e != nil || n < 0 {
		return 1024
	}
	return n + 1
}

// beginCount begins to count the I/O of a disk and of its old backing, in place of
// what a dead agent has left. The caller holds the lock, which is given up meanwhile.
func (m *Manager) beginCount(h *handle, d contract.DiskID, c *carried, size uint64) error {
	if err := m.endCounts(d); err != nil {
		return err
	}
	for _, x := range []struct {
		device string
		area   uint64
		id     *uint64
	}{{c.below, size, &c.belowCount}, {topName(d), c.area, &c.count}, {topName(d), size, &c.whole}} {
		var pause float64                     // of the I/O alone, not of those that wait for the lock
		if err := h.swap(func() (err error) { // it drains the device as a swap does
			start := time.Now()
			*x.id, err = m.DM.CountIO(x.device, x.area/sector, countProgram)
			pause = float64(time.Since(start).Microseconds()) / 1000
			return err
		}); err != nil {
			return err
		}
		h.pauses[c.move] = append(h.pauses[c.move], pause)
	}
	var err error
	if _, c.countedBase, err = m.countersOf(d, c); err == nil {
		c.belowBase, err = m.writtenBelow(c)
	}
	return err
}

// stopCounting forgets what a pre-copy has proven.
func (m *Manager) stopCounting(d contract.DiskID, h *handle) {
	h.carried, h.partial = nil, nil
	if err := m.endCounts(d); err != nil {
		m.Logger.Warn("stop counting I/O", "disk", d, "error", err)
	}
}

// endCounts ends all counts on a disk's devices. It is safe to repeat.
func (m *Manager) endCounts(d contract.DiskID) error {
	list, err := m.DM.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range list {
		if _, part := cutPart(i.Name); part == "" && (i.Name == topName(d) || strings.HasPrefix(i.Name, topName(d)+"-g")) && i.UUID == uuidOf(i.Name) {
			if err := m.DM.StopCounting(i.Name, countProgram); err != nil && !errors.Is(err, dm.ErrNotFound) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// outline divides what the new backing holds into areas. Where it holds a block
// the old one must be copied, also where that has nothing any more: a mapped block
// holds whatever the volume had there.
func (m *Manager) outline(c *carried, n *backing) error {
	size, region := n.head.SizeBytes, n.head.RegionBytes
	count := regions(n.head)
	held, err := m.usedRegions(n, region, count)
	if err != nil {
		return err
	}
	c.held = held
	for r := range count {
		if !held.Get(r) {
			continue
		}
		x := &c.areas[r*region/c.area]
		begin, length := r*region, min(region, size-r*region)
		if k := len(x.runs); k > 0 && x.runs[k-1].start+x.runs[k-1].length == begin {
			x.runs[k-1].length += length
		} else {
			x.runs = append(x.runs, extent{begin, length})
		}
		x.bytes += length
		if c.again {
			x.state = areaCopied
		}
	}
	return nil
}
