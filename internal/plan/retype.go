package plan

import (
	"fmt"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// elastic are the types that EBS changes into each other in place, as far as size and
// performance allow.
var elastic = map[string]bool{gp2: true, gp3: true, io1: true, io2: true}

// Elastic tells whether EBS changes volumes of a type in place into others.
func Elastic(volumeType string) bool { return elastic[volumeType] }

// Carried is the throughput that comes with a volume's IOPS, in MiB/s, where none is
// provisioned (io1, io2); 0 for other types.
func Carried(v contract.VolumeFacts) int32 {
	l := DefaultLimits()
	if l.Types[v.Type].CarriedMiBs == 0 {
		return 0
	}
	return l.performance(Volume{GiB: v.SizeGiB, Type: v.Type, IOPS: v.IOPS}).mibs
}

// optimizing is for how long EBS is expected to take no other modification of a volume
// after one: some six hours for a full volume of 1 TiB, a day at most.
const optimizing = 6 * time.Hour

// improve decides what is done where no growth is due: a move, or a change in place,
// which copies nothing and costs nothing. The change goes before a move that is not for
// the size, before one that does not pay, and before one that has to wait while
// performance is lacking. Any other move brings the better type along.
func (c *weighing) improve() {
	blank := c.d
	moving := c.move()
	held := c.d.Action == None && c.d.Why != WhyMode && c.d.Why != WhyRunning
	if moving && (c.d.Resume || c.d.Fold || c.smaller && c.d.Why != WhyPayback && !(held && c.lacks())) {
		return
	}
	moved := c.d
	c.d = blank
	if !c.retype() {
		c.d = moved
	}
}

// lacks tells whether the volume gives less than the policy wants at least.
func (c *weighing) lacks() bool {
	_, together := c.l.delivered(c.f)
	return together.iops < c.r.MinIOPS || together.mibs < c.r.MinMiBs
}

// retype decides on another type or performance of the volume in place, and tells
// whether that is wanted. A backing of several volumes waits for a move to one.
func (c *weighing) retype() bool {
	v, lacks := c.f.Volumes[0], c.lacks()
	if len(c.f.Volumes) != 1 || !elastic[v.Type] || !lacks && !c.retyping() {
		return false
	}
	s, ok := c.choose(v.GiB, true)
	if !ok || s.is(v) {
		return false
	}
	old, month := c.p.VolumeMonth(v), c.p.VolumeMonth(s.Volume)
	saving := old - month
	if !lacks && saving < max(old*c.r.MinShrink, 0.01) {
		return false
	}
	c.want(Retype, c.have)
	c.d.Volume, c.d.VolumeGiB, c.d.Type, c.d.IOPS, c.d.ThroughputMiBs = v.ID, v.GiB, s.Type, s.IOPS, s.ThroughputMiBs
	c.d.SavingUSDMonth, c.d.Lacks = saving, lacks
	c.d.Reason = fmt.Sprintf("change %d GiB of %s in place to %s", v.GiB, v, s.Volume)
	if lacks {
		c.d.Reason += fmt.Sprintf(": %s wants %d IOPS and %d MiB/s at least", c.r, c.r.MinIOPS, c.r.MinMiBs)
	} else {
		c.d.Reason += fmt.Sprintf(": saves $%.2f a month", saving)
	}
	c.because("%s", c.d.Reason)
	need := c.need()
	c.because("needed are %d IOPS and %d MiB/s: $%.2f instead of $%.2f a month", need.iops, need.mibs, month, old)
	c.holdRetype(v, lacks)
	return true
}

// is tells that a volume has this shape already: asking EBS for what there is would
// spend a modification all the same.
func (s shape) is(v Volume) bool {
	return s.Type == v.Type && (s.IOPS == 0 || s.IOPS == v.IOPS) && (s.ThroughputMiBs == 0 || s.ThroughputMiBs == v.ThroughputMiBs)
}

// String names a volume's type and what is provisioned of it.
func (v Volume) String() string {
	switch {
	case v.Type == gp2 || v.IOPS == 0:
		return v.Type
	case v.ThroughputMiBs == 0:
		return fmt.Sprintf("%s with %d IOPS", v.Type, v.IOPS)
	}
	return fmt.Sprintf("%s with %d IOPS and %d MiB/s", v.Type, v.IOPS, v.ThroughputMiBs)
}

// holdRetype checks what a change has to wait for. It must not be in growth's way: EBS
// takes no other modification of the volume for hours. One that only saves leaves the
// day's modifications to growth, and waits as a move does.
func (c *weighing) holdRetype(v Volume, lacks bool) {
	used := c.h.PeakUsedBytes
	if day, _ := c.dayPeak(); day > used {
		used = day
	}
	used = max(used, c.f.UsedBytes)
	need := used + c.r.Headroom(c.now, used, c.f.FillRate) + max(within(c.f.FillRate, optimizing), c.h.DayGrowthBytes)
	if need = min(need, c.f.SizeBytes); need > c.pool {
		c.hold(Retype, WhyRoom, time.Time{}, "%s are wanted while EBS works on the change, and the pool has %s", Bytes(need), Bytes(c.pool))
	}
	if from, why := c.l.modifiable(c.now, v, false); from.After(c.now) {
		c.hold(Retype, why, from, "EBS can modify %s again from %s on", name(v), from.UTC().Format(time.RFC3339))
	}
	allowed := 1
	if lacks {
		allowed = c.l.DiskModifications - c.l.Reserve
	}
	start := c.now
	if until := c.free(allowed); until.After(c.now) {
		start = until
		c.hold(Retype, WhyModifications, until, "%d of the %d modifications of a day are spent; the others are for growth", len(c.spent), c.l.DiskModifications)
	}
	if !lacks {
		c.holdSaving(start)
	}
	c.gate()
}

// holdSaving checks what a change that only saves has to wait for.
func (c *weighing) holdSaving(start time.Time) {
	if c.r.FollowPeak && c.h.Known < c.r.LookBack {
		start = c.now.Add(c.r.LookBack - c.h.Known)
		c.hold(Retype, WhyHistory, start, "%s of usage are on record, %s wants %s", words(c.h.Known), c.r, words(c.r.LookBack))
	}
	start = c.holdQuiet(Retype, start)
	c.holdWindow(Retype, start)
}
