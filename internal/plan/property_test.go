package plan_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/plan"
)

const aDay = 24 * time.Hour

// drawn is everything Decide looks at.
type drawn struct {
	f plan.Facts
	h plan.History
	r plan.Rule
	l plan.Limits
}

func (in drawn) decide(at time.Time) plan.Decision {
	return plan.Decide(at, in.f, in.h, in.r, in.l, prices())
}

func drawRule(t *rapid.T) plan.Rule {
	r := enforce()
	r.Name = "drawn"
	r.Target = rapid.Float64Range(0.3, 0.95).Draw(t, "target")
	r.HeadroomBytes = rapid.Int64Range(0, 20*gib).Draw(t, "headroomBytes")
	r.HeadroomPercent = rapid.Float64Range(0, 1/r.Target-1).Draw(t, "headroomPercent")
	r.HeadroomTime = time.Duration(rapid.Int64Range(0, 7200).Draw(t, "headroomSeconds")) * time.Second
	r.FloorGiB = rapid.SampledFrom([]int64{0, 0, 0, 10, 500}).Draw(t, "floor")
	r.CeilingGiB = rapid.SampledFrom([]int64{0, 0, 0, 500, 2000}).Draw(t, "ceiling")
	r.MinStepGiB = rapid.Int64Range(0, 50).Draw(t, "minStepGiB")
	r.MinStep = rapid.Float64Range(0, 0.5).Draw(t, "minStep")
	r.MaxStepGiB = rapid.SampledFrom([]int64{0, 0, 60, 1000}).Draw(t, "maxStep")
	r.MinShrinkGiB = rapid.Int64Range(1, 20).Draw(t, "minShrinkGiB")
	r.MinShrink = rapid.Float64Range(0, 0.3).Draw(t, "minShrink")
	r.Payback = time.Duration(rapid.Int64Range(1, 60).Draw(t, "paybackDays")) * aDay
	r.Snapshot = rapid.Bool().Draw(t, "snapshot")
	r.ThrottleMiBs = rapid.SampledFrom([]int64{0, 0, 20}).Draw(t, "throttle")
	r.MinIOPS = rapid.SampledFrom([]int32{0, 0, 5000, 20000}).Draw(t, "minIOPS")
	r.MinMiBs = rapid.SampledFrom([]int32{0, 0, 300, 1000}).Draw(t, "minMiBs")
	r.FollowPeak = rapid.Bool().Draw(t, "followPeak")
	r.Types = rapid.SampledFrom([][]string{nil, nil, {"gp3"}, {"gp3", "io2"}, {"io1", "io2", "gp2", "gp3"}}).Draw(t, "types")
	r.MaxStripes = rapid.IntRange(1, 4).Draw(t, "stripes")
	return r
}

func drawVolume(t *rapid.T, gib int64) plan.Volume {
	v := plan.Volume{GiB: gib, Type: rapid.SampledFrom([]string{"gp3", "gp3", "gp3", "gp2", "io2"}).Draw(t, "type")}
	switch v.Type {
	case "gp3":
		v.IOPS = rapid.Int32Range(3000, max(3000, min(80000, int32(gib*500)))).Draw(t, "iops")
		v.ThroughputMiBs = rapid.Int32Range(125, max(125, min(2000, v.IOPS/4))).Draw(t, "mibs")
	case "io2":
		v.GiB = max(gib, 4)
		v.IOPS = rapid.Int32Range(100, min(64000, int32(v.GiB*1000))).Draw(t, "iops")
	}
	return v
}

// draw makes facts that agree with each other. Disks have at most 12 TiB, so that
// each fits one volume of any type.
func draw(t *rapid.T) drawn {
	in := drawn{r: drawRule(t), l: plan.DefaultLimits()}
	in.f = disk(rapid.Int64Range(1, 12000).Draw(t, "sizeGiB"), 1, 0)
	total := rapid.Int64Range(1, 12000).Draw(t, "backingGiB")
	in.f.Volumes = nil
	for n := rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "volumes"); n > 0; n-- {
		v := drawVolume(t, max(total/int64(n), 1))
		v.ID = "vol-0000000" + string(rune('0'+n))
		for range rapid.IntRange(0, 4).Draw(t, "modifications") {
			v.Modified = append(v.Modified, now.Add(-time.Duration(rapid.Int64Range(1, 90000).Draw(t, "ago"))*time.Second))
		}
		if rapid.IntRange(0, 3).Draw(t, "optimizing") == 0 {
			v.OptimizingUntil = now.Add(time.Duration(rapid.Int64Range(1, 20000).Draw(t, "for")) * time.Second)
		}
		in.f.Volumes = append(in.f.Volumes, v)
		total -= v.GiB
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 4, 5}).Draw(t, "ofDisk") {
		in.f.Modified = append(in.f.Modified, now.Add(-time.Duration(rapid.Int64Range(1, 90000).Draw(t, "diskAgo"))*time.Second))
	}
	in.f.OverheadBytes = plan.OverheadBytes(in.f.BackingGiB())
	in.f.UsedBytes = rapid.Int64Range(0, min(in.f.PoolBytes(), in.f.SizeBytes)).Draw(t, "used")
	in.f.FillRate = rapid.SampledFrom([]float64{0, 0, 1e3, 1e5, 1e7, 1e9, 1e30, math.Inf(1), math.NaN(), -1e9}).Draw(t, "rate")
	in.h = plan.History{
		Known:          time.Duration(rapid.Int64Range(0, 20).Draw(t, "knownDays")) * aDay,
		PeakUsedBytes:  rapid.Int64Range(0, in.f.SizeBytes).Draw(t, "peak"),
		PeakFillRate:   rapid.SampledFrom([]float64{0, 0, 1e4, 1e6}).Draw(t, "peakRate"),
		DayGrowthBytes: rapid.SampledFrom([]int64{0, 0, gib, 100 * gib}).Draw(t, "dayGrowth"),
		PeakIOPS:       rapid.Int32Range(0, 100000).Draw(t, "peakIOPS"),
		PeakMiBs:       rapid.Int32Range(0, 3000).Draw(t, "peakMiBs"),
	}
	in.r.LookBack = rapid.SampledFrom([]time.Duration{0, 3 * time.Hour, 7 * aDay, 7 * aDay}).Draw(t, "lookBack")
	in.f.DayPeakBytes = rapid.SampledFrom([]int64{0, in.f.UsedBytes, in.h.PeakUsedBytes, in.f.SizeBytes}).Draw(t, "dayPeak")
	if rapid.Bool().Draw(t, "changed") {
		in.h.LastShrink = now.Add(-time.Duration(rapid.Int64Range(0, 72).Draw(t, "hours")) * time.Hour)
	}
	return in
}

// after is the disk once a decision was carried out, as EBS and the node do it.
func (in drawn) after(at time.Time, d plan.Decision) drawn {
	in.f.Volumes = slices.Clone(in.f.Volumes)
	if d.Action == plan.Grow || d.Action == plan.Append {
		in.f.Modified = append(slices.Clone(in.f.Modified), at) // and a move carries them over
	}
	switch d.Action {
	case plan.Grow:
		i := slices.IndexFunc(in.f.Volumes, func(v plan.Volume) bool { return v.ID == d.Volume })
		v := &in.f.Volumes[i]
		in.f.OverheadBytes += (d.VolumeGiB - v.GiB) * gib / 1000
		v.GiB = d.VolumeGiB
		v.Modified = append(slices.Clone(v.Modified), at)
		v.OptimizingUntil = at.Add(2 * time.Hour)
		in.h.LastGrow = at
	case plan.Append:
		in.f.Volumes = append(in.f.Volumes, plan.Volume{ID: "vol-a" + at.Format("150405"), GiB: d.VolumeGiB, Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs})
		in.f.OverheadBytes += d.VolumeGiB*gib/1000 + 4<<20
		in.h.LastGrow = at
	case plan.Shrink:
		in.f.Volumes = nil
		for i := range d.Stripes {
			in.f.Volumes = append(in.f.Volumes, plan.Volume{ID: "vol-b" + string(rune('0'+i)), GiB: d.VolumeGiB, Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs})
		}
		in.f.Striped = d.Stripes > 1
		in.f.OverheadBytes = plan.OverheadBytes(d.GiB) + int64(d.Stripes-1)*(8<<20)
		in.h.LastShrink = at
	}
	return in
}

func TestNeverBelowUsedAndHeadroom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		d := in.decide(now)
		if d.Action == plan.None {
			return
		}
		done := in.after(now, d)
		require.Equal(t, done.f.BackingGiB(), d.GiB)
		used, rate := in.f.UsedBytes, in.f.FillRate
		if d.Action == plan.Shrink {
			used, rate = max(used, in.h.PeakUsedBytes), max(rate, in.h.PeakFillRate, in.burst())
			if in.r.LookBack < aDay && len(in.spent(now)) >= 2 {
				used = max(used, in.f.DayPeakBytes)
			}
			require.GreaterOrEqual(t, float64(done.f.PoolBytes()), min(float64(in.f.UsedBytes)*1.05/0.98, float64(in.f.SizeBytes), float64(in.f.PoolBytes())), "room for the copy as it lands")
			require.GreaterOrEqual(t, d.GiB, min(in.r.FloorGiB, in.f.SizeBytes/gib), "floor")
		}
		want := used + in.r.Headroom(now, used, rate)
		if d.Action == plan.Shrink {
			require.GreaterOrEqual(t, done.f.PoolBytes(), min(want, in.f.SizeBytes))
			return
		}
		if done.f.PoolBytes() < min(want, in.f.SizeBytes) {
			require.Positive(t, in.r.CeilingGiB, "only the policy's ceiling leaves less")
			require.GreaterOrEqual(t, d.GiB, in.r.CeilingGiB)
		}
	})
}

// burst is what the recorded throughput brings in each second, as far as the volumes
// can give it.
func (in drawn) burst() float64 {
	var all int32
	for _, v := range in.f.Volumes {
		_, mibs := given(v)
		all += mibs
	}
	return float64(min(in.h.PeakMiBs, all)) * (1 << 20)
}

// spent are the disk's modifications in the 24 hours before a moment.
func (in drawn) spent(at time.Time) []time.Time {
	in.f.Modified = slices.Clone(in.f.Modified)
	var volumes []time.Time
	for _, v := range in.f.Volumes {
		volumes = append(volumes, v.Modified...)
	}
	old := func(m time.Time) bool { return !m.After(at.Add(-aDay)) }
	disk, volumes := slices.DeleteFunc(in.f.Modified, old), slices.DeleteFunc(volumes, old)
	if len(volumes) > len(disk) {
		disk = volumes
	}
	slices.SortFunc(disk, time.Time.Compare)
	return disk
}

func TestTargetIsKeptAfterAnOperation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		d := in.decide(now)
		if d.Action != plan.Shrink || in.f.SizeBytes <= d.GiB*gib || d.GiB == d.FromGiB {
			return
		}
		require.LessOrEqual(t, float64(max(in.f.UsedBytes, in.h.PeakUsedBytes)), float64(in.after(now, d).f.PoolBytes())*in.r.Target+1)
	})
}

// TestNeverMoreModificationsThanEBSAllows lets disks fill and drain for days. The
// reserve is touched by emergencies alone.
func TestNeverMoreModificationsThanEBSAllows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn{f: disk(12000, rapid.Int64Range(5, 200).Draw(t, "backingGiB"), 1), r: drawRule(t), l: plan.DefaultLimits()}
		in.r.FloorGiB, in.r.CeilingGiB, in.h.Known = 0, 0, 100*aDay
		drains := rapid.Int64Range(0, 4).Draw(t, "drains")
		at := now
		for range 60 {
			at = at.Add(time.Duration(rapid.Int64Range(60, 4*3600).Draw(t, "later")) * time.Second)
			room := min(in.f.PoolBytes(), in.f.SizeBytes)
			in.f.UsedBytes = max(0, min(room, in.f.UsedBytes+rapid.Int64Range(-room*drains/10, room/2).Draw(t, "change")))
			in.f.FillRate = rapid.SampledFrom([]float64{0, 1e5, 1e8}).Draw(t, "rate")
			in.h.PeakUsedBytes = in.f.UsedBytes
			d := in.decide(at)
			spent := len(in.spent(at))
			in = in.after(at, d)
			switch d.Action {
			case plan.Grow, plan.Append:
				require.Less(t, spent, in.l.DiskModifications, "of the disk")
				require.True(t, d.Urgent || spent < in.l.DiskModifications-in.l.Reserve, "the reserve is for emergencies")
			case plan.Shrink:
				require.Less(t, spent, in.l.DiskModifications, "smaller, and no way to grow again")
			}
			if d.Action != plan.Grow {
				continue
			}
			v := in.f.Volumes[slices.IndexFunc(in.f.Volumes, func(v plan.Volume) bool { return v.ID == d.Volume })]
			recent := 0
			for _, m := range v.Modified {
				if m.After(at.Add(-aDay)) {
					recent++
				}
			}
			require.LessOrEqual(t, recent, in.l.Modifications)
			if !d.Urgent {
				require.LessOrEqual(t, recent, in.l.Modifications-in.l.Reserve, "the reserve is for emergencies")
			}
			if n := len(v.Modified); n > 1 {
				require.GreaterOrEqual(t, v.Modified[n-1].Sub(v.Modified[n-2]), 2*time.Hour, "the last one was still under way")
			}
		}
	})
}

// TestTheWorkflowTakesTheSizeDecidedOn: what ShrinkTarget, which guards the workflow,
// calls too small is nothing that Decide asks for.
func TestTheWorkflowTakesTheSizeDecidedOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		d := in.decide(now)
		if d.Action != plan.Shrink || d.Stripes > 1 || d.GiB >= d.FromGiB {
			return
		}
		u := plan.Usage{SizeBytes: in.f.SizeBytes, BackingBytes: in.f.BackingGiB() * gib, OverheadBytes: in.f.OverheadBytes, UsedBytes: in.f.UsedBytes}
		got, err := plan.ShrinkTarget(u, plan.Policy{Utilization: 0.95}, 1, u.UsedBytes+u.UsedBytes/20, d.GiB, false)
		require.NoError(t, err, d.Reasons)
		require.Equal(t, d.GiB, got.GiB)
	})
}

// TestTheLastGrowthOfADaySuffices: however fast a disk is filled, once the last of
// its modifications is spent it has room until another is free.
func TestTheLastGrowthOfADaySuffices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn{f: disk(rapid.Int64Range(10, 12000).Draw(t, "sizeGiB"), rapid.Int64Range(5, 200).Draw(t, "backingGiB"), 0), r: drawRule(t), l: plan.DefaultLimits()}
		in.r.CeilingGiB, in.r.HeadroomBytes = 0, gib
		in.f.Volumes[0].ThroughputMiBs = rapid.Int32Range(125, 500).Draw(t, "mibs")
		for range in.l.DiskModifications - 1 {
			in.f.Modified = append(in.f.Modified, now.Add(-time.Duration(rapid.Int64Range(1, 86399).Draw(t, "ago"))*time.Second))
		}
		in.f.UsedBytes = min(in.f.PoolBytes(), in.f.SizeBytes)
		in.f.Full = rapid.Bool().Draw(t, "full")
		d := in.decide(now)
		if in.f.PoolBytes() >= in.f.SizeBytes {
			require.NotEqual(t, plan.Append, d.Action)
			return
		}
		require.Equal(t, plan.Append, d.Action, "%v", d.Reasons)
		free := slices.MinFunc(in.f.Modified, time.Time.Compare).Add(aDay)
		done := in.after(now, d)
		written := int64(in.f.Volumes[0].ThroughputMiBs) << 20 * int64(free.Sub(now).Seconds())
		require.GreaterOrEqual(t, done.f.PoolBytes(), min(in.f.UsedBytes+written, in.f.SizeBytes))
	})
}

// TestAllSpentIsNoReasonToLetWritesWait: the limit of a disk is Ebb's own; EBS would
// take another volume.
func TestAllSpentIsNoReasonToLetWritesWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		in.f.Full, in.r.CeilingGiB = true, 0
		d := in.decide(now)
		if in.f.PoolBytes() < in.f.SizeBytes {
			require.Contains(t, []plan.Action{plan.Grow, plan.Append}, d.Action, "%v", d.Reasons)
		}
	})
}

// TestNoOscillation: with a workload that does not change, at most two operations
// are ever started, whatever the beginning, and none takes back what another did.
func TestNoOscillation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		in.h.PeakUsedBytes = max(in.h.PeakUsedBytes, in.f.UsedBytes)
		operations := []plan.Action{}
		stepped := false // a disk that grew already lately is given more, which may come back
		for at := now; at.Before(now.Add(40 * aDay)); at = at.Add(6 * time.Hour) {
			d := in.decide(at)
			in.h.Known += 6 * time.Hour
			if d.Action == plan.None {
				continue
			}
			stepped = stepped || len(operations) == 0 && len(in.spent(at)) > 0
			operations = append(operations, d.Action)
			require.LessOrEqual(t, len(operations), 2, "%v, last: %v", operations, d.Reasons)
			if len(operations) == 2 {
				first, last := operations[0], in.f.Volumes[0]
				require.False(t, first == plan.Shrink && d.Action != plan.Shrink, "grown after a shrink: %v", d.Reasons)
				same := d.Type == last.Type && d.IOPS == last.IOPS && d.ThroughputMiBs == last.ThroughputMiBs && d.Stripes == len(in.f.Volumes)
				require.False(t, first != plan.Shrink && d.Action == plan.Shrink && same && !d.Fold && !stepped, "shrunk after a growth: %v", d.Reasons)
			}
			in = in.after(at, d)
		}
	})
}

// TestMonotoneInUsage: the more is used, now or at the peak, the larger the backing
// is afterwards.
func TestMonotoneInUsage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		in.h.Known, in.h.LastShrink = 30*aDay, time.Time{} // most of it would be held back
		low := in
		low.f.UsedBytes, low.h.PeakUsedBytes = 0, 0
		before := low.decide(now)
		for range 30 {
			high := low
			room := min(in.f.PoolBytes(), in.f.SizeBytes)
			high.f.UsedBytes = min(room, low.f.UsedBytes+rapid.Int64Range(0, room/20).Draw(t, "more"))
			high.h.PeakUsedBytes = min(room, low.h.PeakUsedBytes+rapid.Int64Range(0, room/15).Draw(t, "morePeak"))
			d := high.decide(now)
			require.LessOrEqual(t, afterwards(before), afterwards(d), "%v\n%v", before.Reasons, d.Reasons)
			low, before = high, d
		}
	})
}

// TestGrowthByAStepIsNotShrunkBack: a policy may want large steps of growth and
// small ones of shrinking.
func TestGrowthByAStepIsNotShrunkBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn{f: disk(12000, rapid.Int64Range(20, 4000).Draw(t, "backingGiB"), 0), r: enforce(), l: plan.DefaultLimits()}
		in.r.MinStep = rapid.Float64Range(0, 0.5).Draw(t, "minStep")
		in.r.MinStepGiB = rapid.Int64Range(0, 300).Draw(t, "minStepGiB")
		in.r.MinShrink, in.r.MinShrinkGiB = rapid.Float64Range(0, 0.2).Draw(t, "minShrink"), 1
		in.f.UsedBytes = int64(float64(in.f.PoolBytes()) * rapid.Float64Range(0.85, 1).Draw(t, "used"))
		in.h = plan.History{Known: 30 * aDay, PeakUsedBytes: in.f.UsedBytes}
		d := in.decide(now)
		if d.Action != plan.Grow {
			return
		}
		again := in.after(now, d).decide(now.Add(30 * aDay))
		require.Equal(t, plan.None, again.Wanted, "%v, then %v", d.Reasons, again.Reasons)
	})
}

func afterwards(d plan.Decision) int64 {
	if d.Action == plan.None {
		return d.FromGiB
	}
	return d.GiB
}

// TestShrinkPaysForItself works the cost out again: the new volume while it is
// filled and compared, the old one for its grace period, the snapshot.
func TestShrinkPaysForItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		d := in.decide(now)
		if d.Action != plan.Shrink || d.Fold {
			return
		}
		p := prices()
		done := in.after(now, d)
		was, is := p.BackingMonth(in.f.Volumes), p.BackingMonth(done.f.Volumes)
		const month = 730.0
		peak := float64(max(in.f.UsedBytes, in.h.PeakUsedBytes)) / float64(gib)
		rate := in.l.CopyMiBs
		if in.r.ThrottleMiBs > 0 {
			rate = min(rate, float64(in.r.ThrottleMiBs))
		}
		cost := was*in.r.GracePeriod.Hours()/month + is*2*peak*1024/rate/3600/month
		if in.r.Snapshot {
			cost += peak * p.SnapshotGiBMonth * in.r.SnapshotRetention.Hours() / month
		}
		require.LessOrEqual(t, cost, d.CostUSD+1e-9)
		require.InDelta(t, was-is, d.SavingUSDMonth, 1e-6)
		require.LessOrEqual(t, cost, (was-is)*in.r.Payback.Hours()/month+1e-9)
	})
}

// TestPerformanceIsNeverBelowTheNeed: the recorded peak as far as the old volumes
// gave it, the policy's least, and what there was unless the policy follows peaks.
func TestPerformanceIsNeverBelowTheNeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		d := in.decide(now)
		if d.Action == plan.None {
			return
		}
		var mostIOPS, mostMiBs, allIOPS, allMiBs int32
		for _, v := range in.f.Volumes {
			iops, mibs := given(v)
			mostIOPS, mostMiBs, allIOPS, allMiBs = max(mostIOPS, iops), max(mostMiBs, mibs), allIOPS+iops, allMiBs+mibs
		}
		iops, mibs := given(plan.Volume{Type: d.Type, GiB: d.VolumeGiB, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs})
		if d.Action != plan.Shrink {
			last := in.f.Volumes[len(in.f.Volumes)-1]
			require.Equal(t, []any{last.Type, last.IOPS, last.ThroughputMiBs}, []any{d.Type, d.IOPS, d.ThroughputMiBs}, "growth keeps what there is")
			return
		}
		iops, mibs = iops*int32(d.Stripes), mibs*int32(d.Stripes)
		require.GreaterOrEqual(t, iops, max(in.r.MinIOPS, min(in.h.PeakIOPS, allIOPS)))
		require.GreaterOrEqual(t, mibs, max(in.r.MinMiBs, min(in.h.PeakMiBs, allMiBs)))
		if !in.r.FollowPeak {
			require.GreaterOrEqual(t, iops, mostIOPS)
			require.GreaterOrEqual(t, mibs, mostMiBs)
		}
		// EBS would make such a volume.
		limits := in.l.Types[d.Type]
		require.GreaterOrEqual(t, d.VolumeGiB, limits.MinGiB)
		require.LessOrEqual(t, d.VolumeGiB, limits.MaxGiB)
		if d.IOPS > limits.BaseIOPS {
			require.LessOrEqual(t, int64(d.IOPS), min(d.VolumeGiB*limits.IOPSPerGiB, int64(limits.MaxIOPS)))
		}
		if d.Type == "gp3" {
			require.LessOrEqual(t, d.ThroughputMiBs*4, d.IOPS)
		}
	})
}

// given is what a volume gives by the EBS guide.
func given(v plan.Volume) (iops, mibs int32) {
	switch v.Type {
	case "gp3":
		return v.IOPS, v.ThroughputMiBs
	case "gp2":
		iops = int32(min(max(v.GiB*3, 100), 16000))
		if v.GiB < 1000 {
			iops = max(iops, 3000)
		}
		if v.GiB <= 170 {
			return iops, 128
		}
		return iops, 250
	case "io1":
		return v.IOPS, min(v.IOPS/4, 500)
	}
	return v.IOPS, min(v.IOPS/4, 4000)
}

// TestSameInputSamePlan: neither the order of what has none nor an earlier call
// makes a difference, and nothing that was passed in is changed.
func TestSameInputSamePlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		again := in
		again.f.Volumes = slices.Clone(in.f.Volumes)
		for i := range again.f.Volumes {
			again.f.Volumes[i].Modified = rapid.Permutation(in.f.Volumes[i].Modified).Draw(t, "order")
		}
		before := slices.Clone(in.f.Volumes[0].Modified)
		d := in.decide(now)
		require.Equal(t, before, in.f.Volumes[0].Modified)
		require.Equal(t, d, again.decide(now))
		require.Equal(t, d, in.decide(now))
		require.NotEmpty(t, d.Reason)
		require.NotEmpty(t, d.Reasons)
		require.Equal(t, d.Action == plan.None && d.Wanted != plan.None, d.Why != plan.WhyNone && d.Why != plan.WhyFacts)
		require.False(t, math.IsNaN(d.CostUSD) || math.IsNaN(d.SavingUSDMonth))
	})
}

// TestNothingHappensUnlessThePolicyEnforces, whatever the need.
func TestNothingHappensUnlessThePolicyEnforces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		free := in.decide(now)
		in.r.Mode = rapid.SampledFrom([]plan.Mode{plan.Observe, plan.Recommend, "", "other"}).Draw(t, "mode")
		d := in.decide(now)
		require.Equal(t, plan.None, d.Action)
		require.Equal(t, free.Wanted, d.Wanted)
		if free.Action != plan.None {
			require.Equal(t, plan.WhyMode, d.Why)
			require.Equal(t, free.GiB, d.GiB)
		}
		in.r.Mode, in.f.Operation = plan.Enforce, "Shrink"
		require.Equal(t, plan.None, in.decide(now).Action)
	})
}

// TestMovesKeepQuietAndWindow: not before NotBefore, and then not because of time.
func TestMovesKeepQuietAndWindow(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		w := plan.Window{Zone: "Europe/Berlin", Location: berlin}
		for i := range w.Days {
			w.Days[i] = rapid.Bool().Draw(t, "day")
		}
		w.From = time.Duration(rapid.Int64Range(0, 23).Draw(t, "from")) * time.Hour
		w.To = time.Duration(rapid.Int64Range(1, 24).Draw(t, "to")) * time.Hour
		in.r.Windows = []plan.Window{w}
		at := now.Add(time.Duration(rapid.Int64Range(0, 365*24*60).Draw(t, "minutes")) * time.Minute)
		d := in.decide(at)
		if d.Wanted != plan.Shrink {
			return
		}
		if d.Action == plan.Shrink {
			local := at.In(berlin)
			of := time.Duration(local.Hour())*time.Hour + time.Duration(local.Minute())*time.Minute
			today, yesterday := w.Days[local.Weekday()], w.Days[(local.Weekday()+6)%7]
			inside := today && of >= w.From && (of < w.To || w.To <= w.From) || yesterday && w.To <= w.From && of < w.To
			require.True(t, inside, "%s is outside of %+v", local, w)
			require.GreaterOrEqual(t, in.h.Known, in.r.LookBack)
			for _, last := range []time.Time{in.h.LastGrow, in.h.LastShrink} {
				require.True(t, last.IsZero() || at.Sub(last) >= in.r.ShrinkQuiet)
			}
			return
		}
		if w.Days == [7]bool{} {
			require.Zero(t, d.NotBefore, "it never opens")
			return
		}
		if d.Why == plan.WhyPayback || d.NotBefore.IsZero() {
			return
		}
		require.True(t, d.NotBefore.After(at))
		in.h.Known += d.NotBefore.Sub(at)
		require.Equal(t, plan.Shrink, in.decide(d.NotBefore).Action, "%v then %v", d.Reasons, in.decide(d.NotBefore).Reasons)
	})
}
