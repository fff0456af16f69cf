package plan_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func prices() price.Table {
	t, _ := price.BuiltIn().In("us-east-1")
	return t
}

func enforce() plan.Rule {
	r := plan.DefaultRule()
	r.Mode = plan.Enforce
	return r
}

func disk(sizeGiB, backingGiB, usedGiB int64) plan.Facts {
	return plan.Facts{
		Disk: "d-00000000000000001", Node: "i-00000001", Zone: "us-east-1a",
		SizeBytes: sizeGiB * gib, UsedBytes: usedGiB * gib, OverheadBytes: plan.OverheadBytes(backingGiB),
		Volumes: []plan.Volume{{ID: "vol-00000001", GiB: backingGiB, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}},
	}
}

func known(peakGiB int64) plan.History {
	return plan.History{Known: 30 * 24 * time.Hour, PeakUsedBytes: peakGiB * gib}
}

// TestDecisionsInWords goes through every answer once.
func TestDecisionsInWords(t *testing.T) {
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
		gib    int64
		reason string // of Reason
		also   string // in one of Reasons
	}{
		"settled": {func(x *in) { x.f = disk(1000, 100, 75); x.h = known(75) }, plan.None, plan.None, "", 100, "75.0 GiB of 99.9 GiB used", ""},
		"room for the copy": {
			func(x *in) { x.f = disk(2000, 2000, 900); x.h = known(900); x.r.Target, x.r.HeadroomPercent = .95, 0 },
			plan.Shrink, plan.Shrink, "", 966, "", "",
		},
		"bursts of 125 MiB/s": {
			func(x *in) {
				x.f = disk(1000, 200, 50)
				x.h = known(50)
				x.h.PeakMiBs = 125
				x.r.HeadroomTime = 10 * time.Minute
			},
			plan.Shrink, plan.Shrink, "", 124, "", "",
		},
		"mostly empty":   {func(*in) {}, plan.Shrink, plan.Shrink, "", 376, "shrink from 1000 to 376 GiB: at most 300.0 GiB used in 7d, saves $49.92 a month", "costs $6.16, paid back in 4d"},
		"to the floor":   {func(x *in) { x.r.FloorGiB = 500 }, plan.Shrink, plan.Shrink, "", 500, "", ""},
		"above its peak": {func(x *in) { x.h = known(900) }, plan.None, plan.None, "", 1000, "", ""},
		"observed":       {func(x *in) { x.r.Mode = plan.Observe; x.r.Name = "all" }, plan.None, plan.Shrink, plan.WhyMode, 376, "shrink from 1000 to 376 GiB: at most 300.0 GiB used in 7d, saves $49.92 a month", `the mode is observe (rule "all")`},
		"busy":           {func(x *in) { x.f.Operation = "Rehome" }, plan.None, plan.Shrink, plan.WhyRunning, 376, "Rehome runs on the disk", ""},
		"move left":      {func(x *in) { x.f.Operation, x.h.Known = plan.MoveLeft, 0 }, plan.Shrink, plan.Shrink, "", 1000, "a move was begun and no operation carries it on: take it up", ""},
		"left, observed": {func(x *in) { x.f.Operation, x.r.Mode = plan.MoveLeft, plan.Observe }, plan.None, plan.Shrink, plan.WhyMode, 1000, "a move was begun and no operation carries it on: take it up", ""},
		"left, too dear": {func(x *in) { x.f.Operation, x.r.MinIOPS = plan.MoveLeft, 9000 }, plan.Shrink, plan.Shrink, "", 1000, "", ""},
		"left, and full": {func(x *in) { x.f = disk(1000, 100, 92); x.f.Operation = plan.MoveLeft }, plan.Grow, plan.Grow, "", 116, "", ""},
		"new":            {func(x *in) { x.h.Known = 24 * time.Hour }, plan.None, plan.Shrink, plan.WhyHistory, 376, "24h of usage are on record, the policy wants 7d", ""},
		"just grown":     {func(x *in) { x.h.LastGrow = now.Add(-time.Hour) }, plan.None, plan.Shrink, plan.WhyQuiet, 376, "changed in the hour from 2026-11-22T11:00:00Z on, the policy wants 24h of quiet", ""},
		"grown in an hour that began a day ago": {
			func(x *in) { x.h.LastGrow = now.Add(-24 * time.Hour) }, plan.None, plan.Shrink, plan.WhyQuiet, 376,
			"changed in the hour from 2026-11-21T12:00:00Z on, the policy wants 24h of quiet", "",
		},
		"grown in an hour that ended a day ago": {func(x *in) { x.h.LastGrow = now.Add(-25 * time.Hour) }, plan.Shrink, plan.Shrink, "", 376, "", ""},
		"grown in this hour, quiet of seconds": {
			func(x *in) { x.h.LastGrow, x.r.ShrinkQuiet = now.Add(-time.Minute), 20*time.Second }, plan.Shrink, plan.Shrink, "", 376, "", "",
		},
		"by day": {
			func(x *in) {
				x.r.Windows = []plan.Window{{Days: [7]bool{true, true, true, true, true, true, true}, From: 22 * time.Hour, To: 6 * time.Hour, Zone: "UTC"}}
			}, plan.None, plan.Shrink, plan.WhyWindow, 376, "outside of the maintenance windows; the next opens 2026-11-22T22:00:00Z", "",
		},
		"in a zone that is not loaded": {
			func(x *in) {
				x.r.Windows = []plan.Window{{Days: [7]bool{true, true, true, true, true, true, true}, To: 24 * time.Hour, Zone: "Asia/Tokyo"}}
			}, plan.None, plan.Shrink, plan.WhyWindow, 376, "no maintenance window ever opens", "",
		},
		"dear": {func(x *in) { x.r.Payback = 24 * time.Hour }, plan.None, plan.Shrink, plan.WhyPayback, 376, "would be paid back in 4d, the policy allows 24h", ""},
		"several volumes": {
			func(x *in) {
				x.f = disk(1000, 300, 290)
				x.f.Volumes = append(x.f.Volumes, x.f.Volumes[0])
				x.h = known(290)
			},
			plan.Shrink, plan.Shrink, "", 363, "fold 2 volumes of 600 GiB into 363 GiB", "",
		},
		"gp2": {
			func(x *in) {
				x.f = disk(1000, 450, 300)
				x.f.Volumes[0].Type, x.f.Volumes[0].IOPS, x.f.Volumes[0].ThroughputMiBs = "gp2", 0, 0
			},
			plan.Shrink, plan.Shrink, "", 376, "shrink from 450 to 376 GiB", "376 GiB of gp3 instead of 450 GiB: $35.08 instead of $45.00 a month",
		},

		"nearly full": {func(x *in) { x.f = disk(1000, 100, 92) }, plan.Grow, plan.Grow, "", 116, "grow from 100 to 116 GiB: 92.0 GiB used, 9.2 GiB wanted free", ""},
		"filling": {
			func(x *in) {
				x.f = disk(1000, 100, 80)
				x.f.FillRate = 20 * float64(gib) / 600
				x.r.HeadroomTime = 30 * time.Minute
			},
			plan.Grow, plan.Grow, "", 221, "grow from 100 to 221 GiB", "full in 10m at 34.1 MiB/s",
		},
		"spent, no hurry": {
			func(x *in) { x.f = disk(1000, 100, 92); x.f.Volumes[0].Modified = hoursAgo(3, 9, 20) },
			plan.None, plan.Grow, plan.WhyModifications, 148, "the next is free from 2026-11-22T16:00:00Z on", "",
		},
		"the second of a day": {
			func(x *in) { x.f = disk(1000, 100, 92); x.f.Modified = hoursAgo(3) },
			plan.Grow, plan.Grow, "", 125, "grow from 100 to 125 GiB", "",
		},
		"the second of a day, by steps": {
			func(x *in) { x.f = disk(1000, 100, 92); x.f.Modified = hoursAgo(3); x.r.MinStepGiB = 40 },
			plan.Grow, plan.Grow, "", 180, "grow from 100 to 180 GiB", "",
		},
		"the third of a day": {
			func(x *in) { x.f = disk(1000, 100, 92); x.f.Modified = hoursAgo(3, 20) },
			plan.Grow, plan.Grow, "", 148, "grow from 100 to 148 GiB", "",
		},
		"the reserve, no hurry": {
			func(x *in) { x.f = disk(1000, 100, 92); x.f.Modified = hoursAgo(3, 9, 20) },
			plan.None, plan.Grow, plan.WhyModifications, 148, "3 of the 4 modifications of a day are spent, the next is free from 2026-11-22T16:00:00Z on", "",
		},
		"the reserve, hurry": {
			func(x *in) { x.f = disk(1000, 100, 97); x.f.Modified = hoursAgo(3, 9, 20) },
			plan.Append, plan.Append, "", 1002, "grow from 100 to 1002 GiB", "the last modification of the day: another volume of 902 GiB, since nothing could help one that takes long",
		},
		"the reserve, of a disk that cannot be filled until another is free": {
			func(x *in) { x.f = disk(10000, 100, 97); x.f.Modified = hoursAgo(3, 9, 20) },
			plan.Append, plan.Append, "", 1867, "grow from 100 to 1867 GiB", "",
		},
		"spent by its volumes": {
			func(x *in) { x.f = disk(1000, 100, 97); x.f.Volumes[0].Modified = hoursAgo(3, 9, 20) },
			plan.Append, plan.Append, "", 1002, "grow from 100 to 1002 GiB", "",
		},
		"all spent, hurry": {
			func(x *in) { x.f = disk(1000, 100, 97); x.f.Modified = hoursAgo(3, 9, 15, 20) },
			plan.None, plan.Grow, plan.WhyModifications, 1002, "4 of the 4 modifications of a day are spent, the next is free from 2026-11-22T16:00:00Z on", "",
		},
		"all spent, writes wait": {
			func(x *in) { x.f = disk(1000, 100, 99); x.f.Modified = hoursAgo(3, 9, 15, 20); x.f.Full = true },
			plan.Append, plan.Append, "", 1002, "", "",
		},
		"shrink after four growths": {
			func(x *in) { x.f.Modified = hoursAgo(3, 9, 20, 22) },
			plan.None, plan.Shrink, plan.WhyModifications, 376, "4 of the 4 modifications of a day are spent", "",
		},
		"shrink after two growths, looking back an hour": {
			func(x *in) { x.f.Modified = hoursAgo(3, 9); x.r.LookBack = time.Hour; x.f.DayPeakBytes = 400 * gib },
			plan.Shrink, plan.Shrink, "", 501, "at most 400.0 GiB used", "",
		},
		"shrink after two growths, the day is not known": {
			func(x *in) { x.f.Modified = hoursAgo(3, 9); x.r.LookBack = time.Hour },
			plan.None, plan.Shrink, plan.WhyModifications, 376, "2 of the 4 modifications of a day are spent", "",
		},
		"optimizing": {
			func(x *in) { x.f = disk(1000, 100, 92); x.f.Volumes[0].OptimizingUntil = now.Add(time.Hour) },
			plan.None, plan.Grow, plan.WhyModifying, 116, "EBS can modify vol-00000001 again from 2026-11-22T13:00:00Z on", "",
		},
		"at the ceiling": {
			func(x *in) { x.f = disk(1000, 100, 97); x.r.CeilingGiB, x.r.AtCeiling = 100, plan.AtCeilingFail },
			plan.None, plan.Grow, plan.WhyCeiling, 100, "the backing has 100 GiB, and 100 GiB is the ceiling", "",
		},
		"holds the whole disk": {func(x *in) { x.f = disk(100, 101, 99); x.h = known(99) }, plan.None, plan.None, "", 101, "99.0 GiB of 100.9 GiB used", ""},
		"not measured":         {func(x *in) { x.f.SizeBytes = 0 }, plan.None, plan.None, plan.WhyFacts, 1000, "the facts or the rule are incomplete: nothing is decided", ""},
		"headroom asked for": {
			func(x *in) {
				x.f = disk(1000, 100, 50)
				x.r.ExtraBytes, x.r.ExtraUntil = 200*gib, now.Add(time.Minute)
			},
			plan.Grow, plan.Grow, "", 256, "grow from 100 to 256 GiB: 50.0 GiB used, 205.0 GiB wanted free", "",
		},
		"headroom no more": {
			func(x *in) { x.f = disk(1000, 100, 75); x.h = known(75); x.r.ExtraBytes, x.r.ExtraUntil = 200*gib, now },
			plan.None, plan.None, "", 100, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := in{f: disk(1000, 1000, 250), h: known(300), r: enforce()}
			tt.change(&x)
			d := plan.Decide(now, x.f, x.h, x.r, plan.DefaultLimits(), prices())
			require.Equal(t, []any{tt.action, tt.wanted, tt.why, tt.gib}, []any{d.Action, d.Wanted, d.Why, d.GiB}, "%q", d.Reasons)
			require.Contains(t, d.Reason, tt.reason)
			require.Contains(t, strings.Join(d.Reasons, "\n"), tt.also)
			if d.Why == plan.WhyCeiling {
				require.Equal(t, plan.AtCeilingFail, d.AtCeiling)
			}
		})
	}
}

// TestUntilTheWindowCloses: what may begin in a maintenance window may not after it.
func TestUntilTheWindowCloses(t *testing.T) {
	daily := func(from, to int) plan.Window {
		return plan.Window{Days: [7]bool{true, true, true, true, true, true, true}, From: time.Duration(from) * time.Hour, To: time.Duration(to) * time.Hour, Zone: "UTC"}
	}
	at := func(f plan.Facts, change func(*plan.Rule)) time.Time {
		r := enforce()
		r.Windows = []plan.Window{daily(22, 6), daily(10, 13), daily(11, 14), daily(11, 12)}
		change(&r)
		return plan.Decide(now, f, known(f.UsedBytes/gib), r, plan.DefaultLimits(), prices()).NotAfter
	}
	ends := now.Add(2 * time.Hour)
	large, lacking, saving := disk(1000, 1000, 250), fits("gp3", 3000, 125), fits("gp2", 300, 0)
	require.Equal(t, ends, at(large, func(*plan.Rule) {}), "a move")
	require.Equal(t, ends, at(saving, func(r *plan.Rule) { r.LookBack = 0 }), "a change that saves")
	require.Zero(t, at(large, func(r *plan.Rule) { r.Windows = nil }))
	require.Zero(t, at(large, func(r *plan.Rule) { r.Windows = r.Windows[:1] }), "it waits")
	require.Zero(t, at(large, func(r *plan.Rule) { r.Payback = time.Hour }), "it is held")
	require.Zero(t, at(large, func(r *plan.Rule) { r.Mode = plan.Recommend }), "an approval looks itself")
	require.Zero(t, at(lacking, func(r *plan.Rule) { r.MinIOPS = 6000 }), "a change for the least performance")
	require.Zero(t, at(disk(1000, 100, 92), func(*plan.Rule) {}), "growth")
	large.Operation = plan.MoveLeft
	require.Zero(t, at(large, func(*plan.Rule) {}), "a move that was left")
}

func hoursAgo(hours ...int) []time.Time {
	out := make([]time.Time, len(hours))
	for i, h := range hours {
		out[i] = now.Add(-time.Duration(h) * time.Hour)
	}
	return out
}

// Stripes: two gp3 volumes bring for nothing what one would be provisioned with.
func TestStripesWhereTheyCostLess(t *testing.T) {
	f := disk(2000, 1000, 780)
	f.Volumes[0].IOPS, f.Volumes[0].ThroughputMiBs = 6000, 250
	r := enforce()
	require.Equal(t, plan.None, plan.Decide(now, f, known(780), r, plan.DefaultLimits(), prices()).Wanted)
	r.MaxStripes = 4
	d := plan.Decide(now, f, known(780), r, plan.DefaultLimits(), prices())
	require.Equal(t, plan.Shrink, d.Action, d.Reasons)
	require.Equal(t, []any{2, int32(3000), int32(125)}, []any{d.Stripes, d.IOPS, d.ThroughputMiBs})
	require.InDelta(t, 20, d.SavingUSDMonth-float64(1000-d.GiB)*0.08, 1e-6)
}

// By price gp3 takes the place of io2, up to what gp3 can give.
func TestTypeByPriceAndNeed(t *testing.T) {
	f := disk(2000, 1000, 700)
	f.Volumes[0] = plan.Volume{ID: "vol-00000001", GiB: 1000, Type: "io2", IOPS: 20000}
	r := enforce()
	r.FollowPeak = true
	h := known(700)
	h.PeakIOPS, h.PeakMiBs = 8000, 300
	d := plan.Decide(now, f, h, r, plan.DefaultLimits(), prices())
	require.Equal(t, []any{"io2", int32(10000)}, []any{d.Type, d.IOPS}, "%q", d.Reasons)
	r.Types = []string{"io2", "gp3"}
	d = plan.Decide(now, f, h, r, plan.DefaultLimits(), prices())
	require.Equal(t, []any{"gp3", int32(10000), int32(375)}, []any{d.Type, d.IOPS, d.ThroughputMiBs}, "%q", d.Reasons)
	f.Volumes[0].IOPS, h.PeakIOPS = 200000, 100000
	d = plan.Decide(now, f, h, r, plan.DefaultLimits(), prices())
	require.Equal(t, []any{"io2", int32(125000)}, []any{d.Type, d.IOPS}, "%q", d.Reasons)
}

func TestFactsOf(t *testing.T) {
	at := contract.VolumeFacts{Role: contract.RoleActive, Generation: 3, Node: "i-00000001", Zone: "us-east-1a"}
	v0, v1, old := at, at, at
	v0.ID, v0.SizeGiB, v0.Type, v0.IOPS, v0.Tags = "vol-00000001", 100, "gp3", 3000, map[string]string{"team": "a"}
	v1.ID, v1.SizeGiB, v1.Type, v1.Index = "vol-00000002", 20, "gp3", 1
	old.ID, old.Generation, old.Role = "vol-00000003", 2, contract.RoleRetired
	r := contract.DiskReport{Facts: contract.DiskFacts{Disk: "d-00000000000000001", Name: "prod/data", Volumes: []contract.VolumeFacts{old, v0, v1}}}
	f := plan.FactsOf(r)
	require.Equal(t, plan.Facts{
		Disk: "d-00000000000000001", Name: "prod/data", Namespace: "prod", Claim: "data", Node: "i-00000001", Zone: "us-east-1a", Tags: v0.Tags,
		Volumes: []plan.Volume{{ID: "vol-00000001", GiB: 100, Type: "gp3", IOPS: 3000}, {ID: "vol-00000002", GiB: 20, Type: "gp3"}},
	}, f)
	require.Equal(t, plan.WhyFacts, plan.Decide(now, f, known(1), enforce(), plan.DefaultLimits(), prices()).Why)

	r.Facts.Volumes[1].Tags = map[string]string{"kubernetes.io/created-for/pvc/namespace": "ml", "kubernetes.io/created-for/pvc/name": "runs"}
	r.Facts.Volumes[1].Modified, r.Facts.Volumes[2].Modified = hoursAgo(5, 3), hoursAgo(9, 5)
	r.Facts.Volumes[2].OptimizingUntil = now
	r.Measurement = &contract.Measurement{SizeBytes: 9, OverheadBytes: 1, PoolUsedBytes: 5, FilesystemUsedBytes: 4, FillRate: 2, Full: true, Move: &contract.MoveState{}}
	f = plan.FactsOf(r)
	require.Equal(t, []any{"ml", "runs", int64(9), int64(5), int64(4), true, "a move"}, []any{f.Namespace, f.Claim, f.SizeBytes, f.UsedBytes, f.FilesystemUsedBytes, f.Full, f.Operation})
	require.Equal(t, hoursAgo(9, 5, 3), f.Modified)
	require.Equal(t, []time.Time{{}, now}, []time.Time{f.Volumes[0].OptimizingUntil, f.Volumes[1].OptimizingUntil})
}

// TestNoTypeWithoutAPrice: a type that the region's list lacks would look free.
func TestNoTypeWithoutAPrice(t *testing.T) {
	p := prices()
	p.Types = maps.Clone(p.Types)
	delete(p.Types, "io2")
	r := plan.DefaultRule()
	r.Mode, r.Types = plan.Enforce, []string{"gp3", "io2"}
	d := plan.Decide(now, disk(1000, 1000, 300), known(300), r, plan.DefaultLimits(), p)
	require.Equal(t, plan.Shrink, d.Action)
	require.Equal(t, "gp3", d.Type)
}
