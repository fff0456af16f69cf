package plan_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/plan"
)

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
			case plan.Retype:
				lacks := d.SavingUSDMonth < 0 || in.r.MinIOPS > 0 || in.r.MinMiBs > 0
				require.True(t, spent == 0 || lacks && spent < in.l.DiskModifications-in.l.Reserve, "what only saves leaves a day's modifications to growth")
			case plan.Shrink:
				require.Less(t, spent, in.l.DiskModifications, "smaller, and no way to grow again")
			}
			if d.Action != plan.Grow && d.Action != plan.Retype {
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

// TestNoOscillation: with a workload that does not change, at most two operations on the
// size are ever started, whatever the beginning, and none takes back what another did.
// Beside them type and performance are changed in place twice at most: to what the
// policy wants at least, and to what is cheapest then.
func TestNoOscillation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		in.h.PeakUsedBytes = max(in.h.PeakUsedBytes, in.f.UsedBytes)
		operations, retyped := []plan.Action{}, []float64{}
		stepped := false // a disk that grew already lately is given more, which may come back
		for at := now; at.Before(now.Add(40 * aDay)); at = at.Add(6 * time.Hour) {
			d := in.decide(at)
			in.h.Known += 6 * time.Hour
			if d.Action == plan.None {
				continue
			}
			if d.Action == plan.Retype {
				retyped = append(retyped, d.SavingUSDMonth)
				require.LessOrEqual(t, len(retyped), 2, "%v", d.Reasons)
				require.False(t, len(retyped) == 2 && retyped[0] >= 0 && len(operations) == 0, "changed twice: %v", d.Reasons)
				in = in.after(at, d)
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
