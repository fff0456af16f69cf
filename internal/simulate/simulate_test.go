package simulate

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/trace"
)

var monday = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC).Unix()

// options are those of a small run under the fleet's policy, all disks at once.
func options(t testing.TB, s trace.Source) Options {
	t.Helper()
	p, err := policy.Load(FleetPolicy())
	require.NoError(t, err)
	prices, ok := price.BuiltIn().In(price.DefaultRegion)
	require.True(t, ok)
	return Options{Source: s, Prices: prices, Rollout: -1, ControlUSDMonth: -1, Every: time.Hour, Rule: func(f plan.Facts) (plan.Rule, bool) {
		r, _ := p.For(f)
		return r, true
	}}
}

// disk has a size in GiB and use in GiB at hours after Monday.
func disk(id string, capacity int64, use ...[2]float64) *trace.Disk {
	d := &trace.Disk{ID: id, Namespace: "ml", Class: "test"}
	for _, u := range use {
		d.Samples = append(d.Samples, trace.Sample{At: monday + int64(u[0]*3600), Used: int64(u[1] * float64(trace.GiB)), Capacity: capacity * trace.GiB})
	}
	return d
}

func run(t testing.TB, o Options) (Result, []report.Operation) {
	t.Helper()
	var ops []report.Operation
	o.Operation = func(op report.Operation) error {
		ops = append(ops, op)
		return nil
	}
	res, err := Run(t.Context(), o)
	require.NoError(t, err)
	return res, ops
}

func TestEmptyDiskIsShrunkOnceAndStays(t *testing.T) {
	res, ops := run(t, options(t, trace.Of(disk("a", 1000, [2]float64{0, 250}, [2]float64{24 * 30, 250}))))
	require.Len(t, ops, 1)
	require.Equal(t, "shrink", ops[0].What)
	require.EqualValues(t, 1000, ops[0].FromGiB)
	require.InDelta(t, 270, ops[0].ToGiB, 10)
	tot := res.Report.Totals
	require.InDelta(t, .25, tot.UtilizationFirst, 1e-9)
	require.InDelta(t, 250/float64(ops[0].ToGiB), tot.UtilizationAfterWeek, 1e-6)
	require.Zero(t, tot.Waits+tot.OutOfSpace+tot.Oscillations+res.EBSRefused)
	// 1,000 GiB of gp3 are $80 a month; what is left of it is $21.
	require.InDelta(t, 80, res.Report.Money.Without, .01)
	require.InDelta(t, 80-.08*float64(ops[0].ToGiB), res.Report.Money.Net, .01)
	require.InDelta(t, .6, res.Report.Money.Payback, .5)
}

func TestNoPolicyMeansNothingIsDone(t *testing.T) {
	o := options(t, trace.Of(disk("a", 100, [2]float64{0, 20}, [2]float64{24 * 10, 20})))
	o.Rule = func(plan.Facts) (plan.Rule, bool) { return plan.Rule{}, false }
	res, ops := run(t, o)
	require.Empty(t, ops)
	require.InDelta(t, .2, res.Report.Totals.UtilizationAfterWeek, 1e-9)
	require.Zero(t, res.Report.Money.Net)
}

func TestSlowFillNeverWaits(t *testing.T) {
	res, ops := run(t, options(t, trace.Of(disk("a", 1000, [2]float64{0, 50}, [2]float64{24 * 10, 60}, [2]float64{24 * 40, 900}))))
	require.Zero(t, res.Report.Totals.Waits)
	require.Zero(t, res.Report.Totals.NearMisses)
	require.Greater(t, len(ops), 3)
	require.Greater(t, res.Report.Totals.UtilizationAfterWeek, .85)
}

// A fill that no growth could keep up with is counted, not hidden.
func TestFillFasterThanAnyGrowthIsOutOfSpace(t *testing.T) {
	d := disk("a", 1000, [2]float64{0, 50}, [2]float64{48, 50}, [2]float64{48.1, 850}, [2]float64{72, 850}) // 2.2 GiB/s
	res, _ := run(t, options(t, trace.Of(d)))
	require.Positive(t, res.Report.Totals.OutOfSpace)
	require.Positive(t, res.Report.Totals.WaitSeconds)
	require.Equal(t, "a", res.Waits[0].Disk)
	require.Contains(t, res.Waits[0].Why, "a growth by ")
	require.Equal(t, res.Report.Totals.OutOfSpace, res.Report.Classes[0].OutOfSpace)
}

// At the disk's own size nothing waits for Ebb: the filesystem's end comes first.
func TestFullDiskIsNotOutOfSpace(t *testing.T) {
	d := disk("a", 100, [2]float64{0, 20}, [2]float64{48, 20}, [2]float64{60, 99.5}, [2]float64{240, 99.5})
	res, _ := run(t, options(t, trace.Of(d)))
	require.Zero(t, res.Report.Totals.Waits)
}

func TestGapInHeadroomIsRefilledByAppendWhileEBSIsBusy(t *testing.T) {
	// 100 MiB/s for 20 minutes: several growths, while the volume is optimizing.
	d := disk("a", 1000, [2]float64{0, 100}, [2]float64{48, 100}, [2]float64{48 + 1./3, 217}, [2]float64{96, 217})
	res, ops := run(t, options(t, trace.Of(d)))
	require.Positive(t, res.Report.Totals.Appends)
	require.Zero(t, res.EBSRefused)
	require.True(t, slices.ContainsFunc(ops, func(o report.Operation) bool { return o.What == "fold" }), "the volumes become one again")
	growths := 0
	for _, op := range ops {
		if op.What == "grow" || op.What == "append" {
			growths++
		}
	}
	require.Equal(t, growths, res.Report.Totals.MaxModificationsPerDay, "appended volumes count")
}

func TestExpandedDisk(t *testing.T) {
	d := disk("a", 100, [2]float64{0, 80}, [2]float64{100, 80}, [2]float64{200, 150}, [2]float64{300, 150})
	d.Samples[2].Capacity, d.Samples[3].Capacity = 200*trace.GiB, 200*trace.GiB
	res, _ := run(t, options(t, trace.Of(d)))
	require.Equal(t, 1, res.Report.Totals.Expands)
	require.Zero(t, res.Report.Totals.Waits)
}

func TestOscillationIsSeen(t *testing.T) {
	p := newPlayer(&Options{})
	p.d = disk("a", 100, [2]float64{0, 50}, [2]float64{24, 20}, [2]float64{48, 50}, [2]float64{72, 60})
	p.tally.begin(p.d, p.d.Samples[0].At, p.d.Samples[3].At, 100, 0)
	p.lastShrink = &shrunk{at: monday + 24*hour, from: 100, to: 60, peak: 50 * trace.GiB}
	p.now = monday + 40*hour
	p.checkOscillation(2)
	require.Equal(t, 1, p.tally.oscillations, "usage is 40 GiB and no more than 45 in the hour to come")
	p.lastShrink = &shrunk{at: monday + 24*hour, from: 100, to: 60, peak: 50 * trace.GiB}
	p.now = monday + 48*hour
	p.checkOscillation(3)
	require.Equal(t, 1, p.tally.oscillations, "usage rises above 50 GiB within the hour")
	require.Equal(t, 1, p.tally.regrown)
	p.lastShrink = &shrunk{at: monday - 8*24*hour, from: 100, to: 60, peak: 50 * trace.GiB}
	p.checkOscillation(3)
	require.Equal(t, 1, p.tally.oscillations, "too long ago")
}

func TestResultIsTheSameForAnyNumberOfWorkers(t *testing.T) {
	f, err := trace.NewFleet(trace.Fleet{Shape: "ai-platform", Disks: 60, Days: 20, Seed: 5})
	require.NoError(t, err)
	o := options(t, f.Play)
	o.Rollout = 24 * time.Hour
	o.Workers = 1
	a, err := Run(t.Context(), o)
	require.NoError(t, err)
	o.Workers = 3
	b, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, a, b)
}

func TestOldRecordsChangeNothing(t *testing.T) {
	f, err := trace.NewFleet(trace.Fleet{Shape: "ai-platform", Disks: 60, Days: 60, Seed: 9})
	require.NoError(t, err)
	o := options(t, f.Play)
	a, err := Run(t.Context(), o)
	require.NoError(t, err)
	o.whole = true
	b, err := Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, b, a)
}

// Before a disk joins it is a plain volume: nothing waits, nothing is done.
func TestBeforeItJoins(t *testing.T) {
	d := disk("a", 100, [2]float64{0, 20}, [2]float64{1, 99.99}, [2]float64{2, 20}, [2]float64{3, 20})
	o := options(t, trace.Of(d))
	o.Rollout, o.Seed = 1000*24*time.Hour, 1
	res, ops := run(t, o)
	require.Empty(t, ops)
	require.Zero(t, res.Report.Totals.Waits)
}

// Whatever the usage: EBS is never asked for what it refuses, no volume is
// modified more than four times in 24 hours, the books balance.
func TestAnyUsageKeepsEBSsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, err := trace.NewFleet(trace.Fleet{Shape: "ai-platform", Disks: 4, Days: rapid.IntRange(1, 30).Draw(t, "days"), Seed: rapid.Uint64().Draw(t, "seed")})
		require.NoError(t, err)
		p, err := policy.Load(FleetPolicy())
		require.NoError(t, err)
		prices, _ := price.BuiltIn().In(price.DefaultRegion)
		o := Options{Source: f.Play, Prices: prices, Seed: rapid.Uint64().Draw(t, "ebs"), Rule: func(f plan.Facts) (plan.Rule, bool) {
			r, _ := p.For(f)
			return r, true
		}}
		res, err := Run(t.Context(), o)
		require.NoError(t, err)
		require.Zero(t, res.EBSRefused)
		tot := res.Report.Totals
		require.LessOrEqual(t, tot.MaxModificationsPerDay, 4)
		require.Equal(t, f.Disks, tot.Disks)
		disks, volumes := 0, 0.0
		for _, g := range res.Report.Classes {
			disks += g.Disks
			volumes += g.WithoutUSDMont
			require.LessOrEqual(t, g.Utilization(), 1.0)
		}
		require.Equal(t, f.Disks, disks)
		require.InDelta(t, res.Report.Money.Without, volumes, .01)
		for _, s := range res.Report.Series {
			require.LessOrEqual(t, s.BackingBytes, s.PaidBytes)
		}
	})
}

// In any 24 hours no disk has more than four growths on record, one of them urgent,
// and the figure in the report leaves none out.
func TestFourModificationsOfADiskInADay(t *testing.T) {
	f, err := trace.NewFleet(trace.Fleet{Shape: "training", Disks: 150, Days: 30, Seed: 3})
	require.NoError(t, err)
	res, ops := run(t, options(t, f.Play))
	most, growths := 0, map[string][]time.Time{}
	for _, op := range ops {
		if op.What != "grow" && op.What != "append" {
			continue
		}
		n, recent := growths[op.Disk], 1
		for _, at := range n {
			if at.After(op.At.Add(-day)) {
				recent++
			}
		}
		growths[op.Disk] = append(n, op.At)
		most = max(most, recent)
		require.LessOrEqual(t, recent, 4, "%s at %s", op.Disk, op.At)
		require.True(t, recent < 4 || op.Urgent, "the reserve is for emergencies: %s at %s", op.Disk, op.At)
	}
	require.Equal(t, 4, most, "the fleet is to come to its limits")
	require.Equal(t, most, res.Report.Totals.MaxModificationsPerDay)
	require.Zero(t, res.Report.Totals.OutOfSpace, res.Waits)
}

// Of a growth and the volume begun beside it the first is used, and what both spend
// of the day's modifications is counted.
func TestWhicheverIsFirstIsUsed(t *testing.T) {
	at := monday + 30*hour
	for name, tt := range map[string]struct {
		growth, spare int64 // arrive so many seconds from now
		volume        int   // of the growth; -1: another volume
		used          float64
		gib           int64 // of the backing then
		spent         int
	}{
		"the modification":                 {0, 9, 0, 50, 110, 1},
		"the modification, too small":      {0, 9, 0, 108, 110, 2},
		"both, and the first is too small": {0, 0, 0, 108, 130, 2},
		"the other volume":                 {9, 0, 0, 50, 120, 2},
		"a volume":                         {0, 9, -1, 50, 110, 1},
		"a volume, too small":              {0, 9, -1, 108, 110, 1},
		"the other one of two volumes":     {9, 0, -1, 50, 120, 1},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, nil).withDefaults()
			p := newPlayer(&o)
			p.play(disk("a", 1000, [2]float64{0, 100}, [2]float64{48, 100}))
			p.now, p.used, p.growth, p.move, p.mods = at, tt.used*float64(trace.GiB), nil, nil, nil
			p.facts.Volumes = []plan.Volume{{ID: "vol-x", GiB: 100, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}}
			p.rebuilt()
			p.modification()
			g := &growth{at: at + tt.growth, began: at - 60, volume: tt.volume, fromGiB: 100, newGiB: 110, loses: never, d: plan.Decision{Type: "gp3"}}
			if tt.volume < 0 {
				g.fromGiB, g.newGiB = 0, 10
			}
			g.spare = &growth{at: at + tt.spare, began: at - 30, volume: -1, newGiB: 20, loses: never, d: plan.Decision{Type: "gp3"}}
			p.growth = g
			p.events()
			require.Equal(t, tt.gib, p.backingGiB)
			require.Len(t, p.modified(), tt.spent)
			if tt.volume >= 0 && tt.growth > 0 {
				p.now += tt.growth
				p.events()
				require.Equal(t, tt.gib+10, p.backingGiB, "EBS takes no modification back")
			}
		})
	}
}

// A move whose new backing would lack the headroom by now is given up.
func TestMoveIsGivenUpBeforeItLacksTheHeadroom(t *testing.T) {
	d := disk("a", 1000, [2]float64{0, 250}, [2]float64{3, 250}, [2]float64{4, 264}, [2]float64{96, 264})
	_, ops := run(t, options(t, trace.Of(d)))
	require.Equal(t, []string{"abort", "shrink"}, []string{ops[0].What, ops[1].What})
	require.Less(t, ops[0].UsedBytes, (ops[0].ToGiB-5)*trace.GiB)
}

// What docs/simulate.md says of a fleet holds, with some room, for a small one.
func TestFleetIsFullAndQuiet(t *testing.T) {
	f, err := trace.NewFleet(trace.Fleet{Shape: "ai-platform", Disks: 300, Days: 30, Seed: 2})
	require.NoError(t, err)
	o := options(t, f.Play)
	o.Rollout, o.Every = 0, 0
	res, err := Run(t.Context(), o)
	require.NoError(t, err)
	tot := res.Report.Totals
	require.Greater(t, tot.UtilizationAfterWeek, .75)
	require.Zero(t, tot.Oscillations, res.Oscillations)
	require.Zero(t, tot.OutOfSpace, res.Waits)
	require.LessOrEqual(t, tot.MaxModificationsPerDay, 4)
	require.LessOrEqual(t, tot.Waits, tot.Grows/500)
	require.Greater(t, res.Report.Money.Net, res.Report.Money.Without/3)
}

func TestBadOptions(t *testing.T) {
	_, err := Run(t.Context(), Options{})
	require.ErrorContains(t, err, "a source and a rule are required")
	_, err = Run(t.Context(), options(t, trace.Of()))
	require.ErrorContains(t, err, "no disk in the trace")
	boom := fmt.Errorf("boom")
	o := options(t, trace.Of(disk("a", 1000, [2]float64{0, 100}, [2]float64{48, 100})))
	o.Operation = func(report.Operation) error { return boom }
	_, err = Run(t.Context(), o)
	require.ErrorIs(t, err, boom)
}

func BenchmarkDisk(b *testing.B) {
	f, err := trace.NewFleet(trace.Fleet{Shape: "ai-platform", Disks: 1000, Days: 90, Seed: 1})
	require.NoError(b, err)
	o := options(b, nil).withDefaults()
	p := newPlayer(&o)
	for i := 0; b.Loop(); i++ {
		p.play(f.Disk(i % f.Disks))
	}
}
