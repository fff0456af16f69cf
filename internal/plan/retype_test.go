package plan_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/plan"
)

// fits is a disk of 100 GiB of which 75 are used: nothing to grow, nothing to shrink.
func fits(typ string, iops, mibs int32) plan.Facts {
	f := disk(1000, 100, 75)
	v := &f.Volumes[0]
	v.Type, v.IOPS, v.ThroughputMiBs = typ, iops, mibs
	return f
}

// TestRetypesInWords goes through every answer once.
func TestRetypesInWords(t *testing.T) {
	window := []plan.Window{{Days: [7]bool{true, true, true, true, true, true, true}, From: 22 * time.Hour, To: 6 * time.Hour, Zone: "UTC"}}
	type in struct {
		f plan.Facts
		h plan.History
		r plan.Rule
	}
	for name, tt := range map[string]struct {
		change func(*in)
		action plan.Action
		wanted plan.Action
		why    plan.Why
		shape  string
		reason string
	}{
		"gp2":       {func(x *in) { x.f = fits("gp2", 300, 0) }, plan.Retype, plan.Retype, "", "gp3 with 3000 IOPS and 128 MiB/s", "change 100 GiB of gp2 in place to gp3 with 3000 IOPS and 128 MiB/s: saves $1.88 a month"},
		"gp3 as is": {func(*in) {}, plan.None, plan.None, "", "", "75.0 GiB of 99.9 GiB used"},
		"provisioned, and kept": {
			func(x *in) { x.f = fits("gp3", 9000, 500); x.h.PeakIOPS, x.h.PeakMiBs = 100, 10 }, plan.None, plan.None, "", "", "",
		},
		"by its peak": {
			func(x *in) {
				x.f = fits("gp3", 9000, 500)
				x.h.PeakIOPS, x.h.PeakMiBs, x.r.FollowPeak = 4000, 100, true
			},
			plan.Retype, plan.Retype, "", "gp3 with 5000 IOPS and 125 MiB/s", "saves $35.00 a month",
		},
		"by a peak that is not known yet": {
			func(x *in) { x.f = fits("gp3", 9000, 500); x.h.Known, x.r.FollowPeak = time.Hour, true },
			plan.None, plan.Retype, plan.WhyHistory, "gp3 with 3000 IOPS and 125 MiB/s", "60m of usage are on record, the policy wants 7d",
		},
		"too little to be worth it": {
			func(x *in) { x.f = fits("gp3", 3100, 125); x.r.FollowPeak = true }, plan.None, plan.None, "", "", "",
		},
		"by type": {
			func(x *in) { x.f = fits("io2", 3000, 0); x.r.Types = []string{"io2", "gp3"} },
			plan.Retype, plan.Retype, "", "gp3 with 3000 IOPS and 750 MiB/s", "change 100 GiB of io2 with 3000 IOPS in place to gp3 with 3000 IOPS and 750 MiB/s",
		},
		"not st1": {func(x *in) { x.f = fits("st1", 0, 0); x.r.MinIOPS, x.r.Types = 5000, []string{"gp3"} }, plan.None, plan.None, "", "", ""},
		"a floor": {
			func(x *in) { x.r.MinIOPS, x.r.Name = 6000, "databases" },
			plan.Retype, plan.Retype, "", "gp3 with 6000 IOPS and 125 MiB/s", `change 100 GiB of gp3 with 3000 IOPS and 125 MiB/s in place to gp3 with 6000 IOPS and 125 MiB/s: rule "databases" wants 6000 IOPS and 0 MiB/s at least`,
		},
		"a floor waits for no window": {
			func(x *in) { x.r.MinIOPS, x.r.Windows, x.h.LastGrow = 6000, window, now.Add(-time.Hour) },
			plan.Retype, plan.Retype, "", "gp3 with 6000 IOPS and 125 MiB/s", "",
		},
		"a floor, and a peak that is not known yet": {
			func(x *in) {
				x.f = fits("gp3", 9000, 125)
				x.r.MinMiBs, x.r.FollowPeak, x.h.Known = 300, true, time.Hour
			},
			plan.Retype, plan.Retype, "", "gp3 with 9000 IOPS and 300 MiB/s", "",
		},
		"a floor that no volume of this size gives": {func(x *in) { x.r.MinIOPS = 60000 }, plan.None, plan.None, "", "", ""},
		"a floor, one growth today":                 {func(x *in) { x.r.MinIOPS, x.f.Modified = 6000, hoursAgo(3) }, plan.Retype, plan.Retype, "", "gp3 with 6000 IOPS and 125 MiB/s", ""},
		"a floor, the reserve": {
			func(x *in) { x.r.MinIOPS, x.f.Modified = 6000, hoursAgo(3, 9, 20) },
			plan.None, plan.Retype, plan.WhyModifications, "gp3 with 6000 IOPS and 125 MiB/s", "3 of the 4 modifications of a day are spent; the others are for growth",
		},
		"a saving, one growth today": {
			func(x *in) { x.f = fits("gp2", 300, 0); x.f.Modified = hoursAgo(3) },
			plan.None, plan.Retype, plan.WhyModifications, "gp3 with 3000 IOPS and 128 MiB/s", "1 of the 4 modifications of a day are spent; the others are for growth",
		},
		"optimizing": {
			func(x *in) { x.f = fits("gp2", 300, 0); x.f.Volumes[0].OptimizingUntil = now.Add(time.Hour) },
			plan.None, plan.Retype, plan.WhyModifying, "gp3 with 3000 IOPS and 128 MiB/s", "EBS can modify vol-00000001 again from 2026-11-22T13:00:00Z on",
		},
		"growth may be due": {
			func(x *in) { x.f = fits("gp2", 300, 0); x.h.DayGrowthBytes = 40 * gib },
			plan.None, plan.Retype, plan.WhyRoom, "gp3 with 3000 IOPS and 128 MiB/s", "122.5 GiB are wanted while EBS works on the change, and the pool has 99.9 GiB",
		},
		"just grown": {
			func(x *in) { x.f = fits("gp2", 300, 0); x.h.LastGrow = now.Add(-2 * time.Hour) },
			plan.None, plan.Retype, plan.WhyQuiet, "gp3 with 3000 IOPS and 128 MiB/s", "the policy wants 24h of quiet",
		},
		"by day": {
			func(x *in) { x.f = fits("gp2", 300, 0); x.r.Windows = window },
			plan.None, plan.Retype, plan.WhyWindow, "gp3 with 3000 IOPS and 128 MiB/s", "outside of the maintenance windows",
		},
		"observed": {func(x *in) { x.f = fits("gp2", 300, 0); x.r.Mode = plan.Observe }, plan.None, plan.Retype, plan.WhyMode, "gp3 with 3000 IOPS and 128 MiB/s", "change 100 GiB of gp2 in place"},
		"a shrink brings it along": {
			func(x *in) {
				x.f = disk(1000, 1000, 250)
				x.f.Volumes[0] = plan.Volume{ID: "vol-00000001", GiB: 1000, Type: "gp2"}
			},
			plan.Shrink, plan.Shrink, "", "gp3 with 3000 IOPS and 250 MiB/s", "shrink from 1000",
		},
		"a shrink that does not pay does not": {
			func(x *in) {
				x.f = disk(1000, 1000, 250)
				x.f.Volumes[0] = plan.Volume{ID: "vol-00000001", GiB: 1000, Type: "gp2"}
				x.r.Payback = time.Hour
			},
			plan.Retype, plan.Retype, "", "gp3 with 3000 IOPS and 250 MiB/s", "saves $15.00 a month",
		},
		"a shrink that waits, and a floor": {
			func(x *in) { x.f = disk(1000, 1000, 250); x.r.MinIOPS, x.r.Windows = 6000, window },
			plan.Retype, plan.Retype, "", "gp3 with 6000 IOPS and 125 MiB/s", "",
		},
		"growth goes first": {func(x *in) { x.f = disk(1000, 100, 92); x.r.MinIOPS = 6000 }, plan.Grow, plan.Grow, "", "gp3 with 3000 IOPS and 125 MiB/s", ""},
		"several volumes are folded": {
			func(x *in) {
				x.f = disk(1000, 50, 65)
				x.f.Volumes[0].Type, x.f.Volumes[0].IOPS = "gp2", 0
				x.f.Volumes = append(x.f.Volumes, x.f.Volumes[0])
			},
			plan.Shrink, plan.Shrink, "", "gp3 with 3000 IOPS and 128 MiB/s", "fold 2 volumes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := in{f: fits("gp3", 3000, 125), h: known(75), r: enforce()}
			tt.change(&x)
			d := plan.Decide(now, x.f, x.h, x.r, plan.DefaultLimits(), prices())
			require.Equal(t, []any{tt.action, tt.wanted, tt.why}, []any{d.Action, d.Wanted, d.Why}, "%q", d.Reasons)
			require.Contains(t, strings.Join(append(d.Reasons, d.Reason), "\n"), tt.reason)
			if tt.wanted == plan.None {
				return
			}
			require.Equal(t, tt.shape, plan.Volume{Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs}.String())
			if tt.wanted == plan.Retype {
				require.Equal(t, []any{"vol-00000001", x.f.BackingGiB(), x.f.BackingGiB()}, []any{d.Volume, d.VolumeGiB, d.GiB})
				require.Zero(t, d.CostUSD)
			}
		})
	}
}

// TestRetypeIsWorthIt: it changes something, by what the policy calls worth it or to
// what the policy wants at least, in a way that EBS takes, and never in growth's way.
func TestRetypeIsWorthIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := draw(t)
		if rapid.Bool().Draw(t, "right") { // most that are drawn are to grow or to shrink
			in.h.PeakUsedBytes = in.f.PoolBytes() * 6 / 10
			in.f.UsedBytes = in.h.PeakUsedBytes
		}
		d := in.decide(now)
		if d.Wanted != plan.Retype {
			return
		}
		require.Len(t, in.f.Volumes, 1)
		was := in.f.Volumes[0]
		is := plan.Volume{ID: was.ID, GiB: was.GiB, Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs}
		require.Equal(t, []any{was.GiB, was.GiB, was.ID}, []any{d.GiB, d.VolumeGiB, d.Volume})
		require.NotEqual(t, []any{was.Type, was.IOPS, was.ThroughputMiBs}, []any{is.Type, is.IOPS, is.ThroughputMiBs}, "a change of nothing is a modification all the same")
		require.NotContains(t, []string{"st1", "sc1", "standard"}, d.Type)
		wasIOPS, wasMiBs := given(was)
		iops, mibs := given(is)
		p := prices()
		saving := p.VolumeMonth(was) - p.VolumeMonth(is)
		require.InDelta(t, saving, d.SavingUSDMonth, 1e-9)
		lacked := wasIOPS < in.r.MinIOPS || wasMiBs < in.r.MinMiBs
		require.True(t, lacked || saving >= max(p.VolumeMonth(was)*in.r.MinShrink, 0.01), "it is worth it")
		require.GreaterOrEqual(t, iops, in.r.MinIOPS)
		require.GreaterOrEqual(t, mibs, in.r.MinMiBs)
		if len(in.r.Types) > 0 {
			require.Contains(t, in.r.Types, d.Type)
		}
		if d.Action == plan.None {
			return
		}
		require.False(t, was.OptimizingUntil.After(now))
		spent := len(in.spent(now))
		require.True(t, spent == 0 || lacked && spent < in.l.DiskModifications-in.l.Reserve)
		require.LessOrEqual(t, min(in.f.UsedBytes+in.r.Headroom(now, in.f.UsedBytes, in.f.FillRate)+in.h.DayGrowthBytes, in.f.SizeBytes), in.f.PoolBytes(), "room while EBS works on it")
	})
}

// TestRetypeSettles: whatever the shape at first, a disk whose size is right is changed
// twice at most - to what the policy wants, and to what its peaks want then - and the
// second never takes back the first.
func TestRetypeSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawn{f: fits("gp3", 3000, 125), r: drawRule(t), l: plan.DefaultLimits()}
		in.f.Volumes = []plan.Volume{drawVolume(t, rapid.Int64Range(50, 5000).Draw(t, "gib"))}
		in.f.Volumes[0].ID = "vol-00000001"
		in.r.FloorGiB, in.r.CeilingGiB, in.r.MaxStripes = in.f.BackingGiB(), 0, 1
		in.f.SizeBytes, in.f.OverheadBytes = in.f.BackingGiB()*gib*2, plan.OverheadBytes(in.f.BackingGiB())
		in.f.UsedBytes = in.f.PoolBytes() / 4
		in.r.HeadroomBytes, in.r.HeadroomPercent, in.r.HeadroomTime = 0, .1, 0
		in.h = plan.History{Known: 30 * aDay, PeakUsedBytes: in.f.UsedBytes, PeakIOPS: rapid.Int32Range(0, 100000).Draw(t, "peakIOPS"), PeakMiBs: rapid.Int32Range(0, 3000).Draw(t, "peakMiBs")}
		var done []plan.Decision
		for at := now; at.Before(now.Add(20 * aDay)); at = at.Add(6 * time.Hour) {
			d := in.decide(at)
			if d.Action == plan.None {
				continue
			}
			require.Equal(t, plan.Retype, d.Action, "%v", d.Reasons)
			done = append(done, d)
			require.LessOrEqual(t, len(done), 2, "%v", d.Reasons)
			if len(done) == 2 {
				require.Negative(t, done[0].SavingUSDMonth, "one change finds the cheapest: %q, then %q", done[0].Reasons, d.Reasons)
			}
			in = in.after(at, d)
		}
	})
}
