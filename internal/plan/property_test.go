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

func TestNeverBelowUsedAndHeadroom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		d := in.decide(now)
		if d.Action == plan.None {
			return
		}
		done := in.after(now, d)
		if d.Action == plan.Append { // the least volume of a type may be more than is of use
			require.GreaterOrEqual(t, done.f.BackingGiB(), d.GiB)
		} else {
			require.Equal(t, done.f.BackingGiB(), d.GiB)
		}
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
		p := plan.Policy{Utilization: 0.95, HeadroomBytes: in.r.HeadroomBytes, HeadroomPercent: in.r.HeadroomPercent}
		got, err := plan.ShrinkTarget(u, p, 1, u.UsedBytes+u.UsedBytes/20, d.GiB, false)
		require.NoError(t, err, d.Reasons)
		require.Equal(t, d.GiB, got.GiB)
	})
}

// TestTheWorkflowGrowsToTheSizeDecidedOn: what Decide asks for is nothing that GrowTo,
// which guards the workflow, refuses.
func TestTheWorkflowGrowsToTheSizeDecidedOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		if rapid.Bool().Draw(t, "last") { // to the ceiling
			in.f.Modified = []time.Time{now.Add(-time.Hour), now.Add(-2 * time.Hour), now.Add(-3 * time.Hour)}
			in.f.UsedBytes, in.f.Full = min(in.f.PoolBytes(), in.f.SizeBytes), true
		}
		d := in.decide(now)
		if d.Action != plan.Grow && d.Action != plan.Append {
			return
		}
		u := plan.Usage{SizeBytes: in.f.SizeBytes, BackingBytes: in.f.BackingGiB() * gib, OverheadBytes: in.f.OverheadBytes, UsedBytes: in.f.UsedBytes}
		got, err := plan.GrowTo(u, d.GiB)
		require.NoError(t, err, d.Reasons)
		require.Equal(t, d.GiB, got.GiB)
	})
}

func TestGrowthToTheWholeOfALargeDisk(t *testing.T) {
	for _, backing := range []int64{100, 600, 1001} {
		f := disk(1000, backing, backing-2)
		r := enforce()
		r.FloorGiB = 2000
		d := plan.Decide(now, f, known(backing), r, plan.DefaultLimits(), prices())
		require.Equal(t, []any{plan.Grow, int64(1002)}, []any{d.Action, d.GiB}, d.Reasons)
		u := plan.Usage{SizeBytes: f.SizeBytes, BackingBytes: backing * gib, OverheadBytes: f.OverheadBytes, UsedBytes: f.UsedBytes}
		_, err := plan.GrowTo(u, d.GiB)
		require.NoError(t, err)
		require.EqualValues(t, 1002, plan.CeilingGiB(u))
	}
	// What holds the whole disk is not grown for a floor.
	f := disk(1000, 1002, 900)
	r := enforce()
	r.FloorGiB = 2000
	require.Equal(t, plan.None, plan.Decide(now, f, known(900), r, plan.DefaultLimits(), prices()).Wanted)
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
		if d.Action == plan.Grow || d.Action == plan.Append {
			last := in.f.Volumes[len(in.f.Volumes)-1]
			require.Equal(t, []any{last.Type, last.IOPS, last.ThroughputMiBs}, []any{d.Type, d.IOPS, d.ThroughputMiBs}, "growth keeps what there is")
			return
		}
		n := int32(max(d.Stripes, 1))
		iops, mibs = iops*n, mibs*n
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
