package ledger

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/internal/report"
)

const gib = contract.GiB

var start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

func prices() plan.Prices {
	p, _ := price.BuiltIn().In("us-east-1")
	return p
}

func at(hours float64) time.Time { return start.Add(time.Duration(hours * float64(time.Hour))) }

// disk n of size and backing in GiB, with a plain gp3 volume.
func disk(n int, size, backing, used int64, hours ...contract.HistoryHour) Disk {
	id := contract.DiskID(fmt.Sprintf("d-%017d", n))
	return Disk{
		Facts: plan.Facts{
			Disk: id, Name: fmt.Sprintf("team/claim-%d", n), Namespace: "team", Node: "i-1", SizeBytes: size * gib, UsedBytes: used * gib,
			Volumes: []plan.Volume{{ID: "vol-1", GiB: backing, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}},
		},
		Hours: hours,
	}
}

// span is hours from a to b (without b), all alike.
func span(a, b int, backing, used int64) []contract.HistoryHour {
	var out []contract.HistoryHour
	for h := a; h < b; h++ {
		out = append(out, contract.HistoryHour{Hour: at(float64(h)), UsedMinBytes: used * gib, UsedMaxBytes: used * gib, BackingBytes: backing * gib})
	}
	return out
}

func input(disks ...Disk) Input {
	return Input{From: start, To: at(48), Disks: disks, Prices: prices(), BuiltIn: true}
}

const gibHour = .08 / 730 // of gp3

func TestSavingOfOneDisk(t *testing.T) {
	a := Sum(input(disk(1, 1000, 100, 80, span(0, 48, 100, 80)...)))
	require.InDelta(t, 1000*48*gibHour, a.Money.Full, 1e-9)
	require.InDelta(t, 100*48*gibHour, a.Money.Backing, 1e-9)
	require.InDelta(t, 900*48*gibHour, a.Money.Net, 1e-9)
	require.InDelta(t, 900*.08, a.Money.NetMonth, 1e-9)
	require.InDelta(t, 900*.08, a.Money.NowMonth, 1e-9)
	require.Zero(t, a.Money.OwnSum)
	require.Zero(t, a.Money.Payback, "there was nothing to pay back")
	require.InDelta(t, .8, a.Totals.MeanUtilization, 1e-9)
	require.InDelta(t, .08, a.Totals.FullUtilization, 1e-9)
	require.InDelta(t, 48, a.Totals.DiskHours, 1e-9)
	require.Zero(t, a.Totals.GapHours)
	require.Len(t, a.Series, 48)
	require.Equal(t, report.Sample{
		At: at(47), UsedBytes: 80 * gib, BackingBytes: 100 * gib, SizeBytes: 1000 * gib, Disks: 1, Recorded: 1, NetUSD: a.Series[47].NetUSD,
	}, a.Series[47])
	require.InDelta(t, a.Money.Net, a.Series[47].NetUSD, 1e-9)
	require.Equal(t, []report.Part{{Name: "team", Disks: 1, UsedBytes: 80 * gib, BackingBytes: 100 * gib, SizeBytes: 1000 * gib, FullUSD: a.Money.Full, NetUSD: a.Namespaces[0].NetUSD}}, a.Namespaces)
	require.Empty(t, a.Classes, "no class is known")
}

// Performance that is provisioned costs the same with and without Ebb.
func TestPerformanceIsNoSaving(t *testing.T) {
	d := disk(1, 1000, 100, 80, span(0, 48, 100, 80)...)
	d.Facts.Volumes[0].IOPS, d.Facts.Volumes[0].ThroughputMiBs = 10000, 500
	a := Sum(input(d))
	require.InDelta(t, 900*48*gibHour, a.Money.Net, 1e-9)
	require.InDelta(t, (1000*.08+7000*.005+375*.04)/730*48, a.Money.Full, 1e-9)
}

// A backing of another type is paid for at its own price.
func TestOtherTypesHaveTheirPrice(t *testing.T) {
	d := disk(1, 1000, 100, 80, span(0, 48, 100, 80)...)
	d.Facts.Volumes[0].Type = "gp2"
	require.InDelta(t, 100*48*.1/730, Sum(input(d)).Money.Backing, 1e-9)
}

func shrinkOp(n int, from, to float64, before, after int64) Operation {
	return Operation{
		Disk: contract.DiskID(fmt.Sprintf("d-%017d", n)), Workflow: contract.ShrinkWorkflow, Outcome: report.OutcomeDone, Began: at(from), Ended: at(to), By: "Rightsize",
		Reason: "the window's peak needs less", FromGiB: before, ToGiB: after,
		Result: &contract.Result{
			Outcome: contract.Done, BeforeGiB: before, AfterGiB: after, UsedBytes: 80 * gib, CopiedBytes: 81 * gib, SwapPausesMS: []float64{1.5, 4},
			Snapshot: "snap-1", Retired: []string{"vol-old"},
		},
	}
}

func TestWhatAShrinkCosts(t *testing.T) {
	hours := append(span(0, 10, 1000, 80), span(10, 48, 100, 80)...)
	in := input(disk(1, 1000, 100, 80, hours...))
	in.Operations = []Operation{shrinkOp(1, 9, 10.5, 1000, 100)}
	in.Retired = map[string]time.Time{"vol-old": at(34.5)}
	in.Snapshots = map[string]time.Time{"snap-1": at(29)}
	a := Sum(in)
	require.InDelta(t, 900*38*gibHour, a.Money.Full-a.Money.Backing, 1e-9)
	require.InDelta(t, 100*1.5*gibHour, a.Money.Own[costMoves].USD, 1e-9)
	require.InDelta(t, 1000*24*gibHour, a.Money.Own[costGrace].USD, 1e-9)
	require.InDelta(t, 80*20*.05/730, a.Money.Own[costSnapshots].USD, 1e-9)
	require.InDelta(t, a.Money.Full-a.Money.Backing-a.Money.OwnSum, a.Money.Net, 1e-12)
	require.InDelta(t, a.Money.Net, a.Series[47].NetUSD, 1e-9)
	require.InDelta(t, a.Money.Net, a.Disks[0].NetUSD, 1e-9)
	require.InDelta(t, a.Money.Net, a.Namespaces[0].NetUSD, 1e-9)
	// 900 a GiB-hour saved from hour 10 on, 1000 spent until 34.5: it never pays back
	// before the old volume goes, and needs 24*1000/900 = 26.7 h and the rest after that.
	require.InDelta(t, 37.0/24, a.Money.Payback, 1.01/24)
	require.Equal(t, 1000*gib, a.Hours[20].ExtraBytes)
	require.Equal(t, 100*gib, a.Hours[9].ExtraBytes)
	require.Equal(t, int64((.5*100+.5*1000)*float64(gib)), a.Hours[10].ExtraBytes)
	require.Equal(t, report.Sums{
		Disks: 1, Known: 1, DiskHours: 48, SizeBytes: 1000 * gib, BackingBytes: 100 * gib, UsedBytes: 80 * gib, Utilization: .8,
		FirstUtilization: a.Totals.FirstUtilization, MeanUtilization: a.Totals.MeanUtilization, FullUtilization: a.Totals.FullUtilization,
		Operations: 1, Shrinks: 1, GivenGiB: 900, CopiedBytes: 81 * gib, LongestMS: 4, Pauses: 2,
	}, a.Totals)
	require.InDelta(t, (10*80.+14*80)/(10*1000+14*100), a.Totals.FirstUtilization, 1e-9)
	require.Equal(t, "asked for by Rightsize", a.Done[0].Why)
	require.Equal(t, "from 1000 to 100 GiB: the window's peak needs less", a.Done[0].Example.Text)
}

// What is not known of the end of an old volume is counted as a day, and said.
func TestForgottenGracePeriod(t *testing.T) {
	in := input(disk(1, 1000, 100, 80, span(0, 48, 100, 80)...))
	in.Operations = []Operation{shrinkOp(1, -3, -2, 1000, 100)} // before the time, paid for in it
	a := Sum(in)
	require.Zero(t, a.Totals.Shrinks)
	require.Empty(t, a.Operations)
	require.InDelta(t, 1000*22*gibHour, a.Money.Own[costGrace].USD, 1e-9)
	require.Zero(t, a.Money.Own[costMoves].USD)
	require.InDelta(t, 80*48*.05/730, a.Money.Own[costSnapshots].USD, 1e-9)
	require.Contains(t, strings.Join(a.Notes, "\n"), "usual grace period")
	in.Retired = map[string]time.Time{"vol-old": {}} // it still waits
	require.InDelta(t, 1000*48*gibHour, Sum(in).Money.Own[costGrace].USD, 1e-9)
}

func TestGapsAreDrawnAndNotCounted(t *testing.T) {
	hours := append(span(0, 10, 100, 80), span(30, 40, 200, 90)...)
	a := Sum(input(disk(1, 1000, 200, 90, hours...)))
	require.InDelta(t, 20, a.Totals.DiskHours, 1e-9)
	require.InDelta(t, 28, a.Totals.GapHours, 1e-9)
	require.InDelta(t, (900*10+800*10)*gibHour, a.Money.Net, 1e-9)
	require.Equal(t, 100*gib, a.Hours[29].BackingBytes)
	require.Zero(t, a.Hours[29].Recorded)
	require.Equal(t, 200*gib, a.Hours[47].BackingBytes)
	require.Contains(t, strings.Join(a.Notes, "\n"), "28 disk-hours of 48 are not on record")
	// The change in the gap has no operation: the disk remembers it alone.
	require.Equal(t, 1, a.Totals.Unrecorded)
	require.Equal(t, 1, a.Totals.Grows)
	require.Equal(t, report.OutcomeUnrecorded, a.Operations[0].Outcome)
	// A proposal that waited all the time and led to nothing explains no change.
	in := input(disk(1, 1000, 200, 90, hours...))
	in.Operations = []Operation{{Disk: in.Disks[0].Facts.Disk, Workflow: contract.ShrinkWorkflow, Outcome: report.OutcomeRefused, Code: ProposalExpired, Began: at(0), Ended: at(47)}}
	a = Sum(in)
	require.Equal(t, 1, a.Totals.Unrecorded)
	require.Equal(t, "nobody approved it in time", a.Refused[0].Why)
	// A growth that was at work then does.
	in.Operations = []Operation{{Disk: in.Disks[0].Facts.Disk, Workflow: contract.GrowWorkflow, Outcome: report.OutcomeDone, Began: at(20), Ended: at(21)}}
	require.Zero(t, Sum(in).Totals.Unrecorded)
}

// What could not be read is said, and counted as neither done nor failed.
func TestWhatCouldNotBeRead(t *testing.T) {
	in := input(disk(1, 1000, 200, 90, append(span(0, 10, 100, 80), span(30, 40, 200, 90)...)...))
	require.Empty(t, in.Missing())
	in.Operations = []Operation{{Disk: in.Disks[0].Facts.Disk, Workflow: contract.GrowWorkflow, Outcome: report.OutcomeUnread, Began: at(20), Ended: at(21)}}
	in.Cut, in.Unread = 50_000, 3
	a := Sum(in)
	require.Equal(t, report.Sums{Operations: 1, Unread: 1}, report.Sums{
		Operations: a.Totals.Operations, Unread: a.Totals.Unread, Grows: a.Totals.Grows, Failed: a.Totals.Failed, RefusedOps: a.Totals.RefusedOps,
	})
	require.Zero(t, a.Hours[21].Refused)
	require.Zero(t, a.Totals.Unrecorded, "the operation explains the change")
	require.Equal(t, "grow: unread", a.Refused[0].What)
	// What it may have done is counted against Ebb.
	in.Operations = append(in.Operations,
		Operation{Disk: in.Disks[0].Facts.Disk, Workflow: contract.ExpandWorkflow, Outcome: report.OutcomeUnread, Began: at(4), Ended: at(5)},
		Operation{Disk: in.Disks[0].Facts.Disk, Workflow: contract.ShrinkWorkflow, Outcome: report.OutcomeUnread, Began: at(6), Ended: at(6), FromGiB: 100})
	a = Sum(in)
	require.InDelta(t, (900*5+800*10)*gibHour, a.Money.Full-a.Money.Backing, 1e-9)
	require.InDelta(t, 100*24*gibHour, a.Money.Own[costGrace].USD, 1e-9)
	missing := in.Missing()
	require.Len(t, missing, 2)
	require.Contains(t, missing[0], "the latest 50000")
	require.Contains(t, missing[0], "net saving is overstated")
	require.Contains(t, missing[1], "3 ended operations")
	require.Subset(t, a.Notes, missing)
}

func TestPartsOfHours(t *testing.T) {
	in := input(disk(1, 1000, 100, 80, span(0, 48, 100, 80)...))
	in.From, in.To = at(.5), at(2.25)
	a := Sum(in)
	require.InDelta(t, 1.75, a.Totals.DiskHours, 1e-9)
	require.InDelta(t, 900*1.75*gibHour, a.Money.Net, 1e-9)
	require.Len(t, a.Hours, 3)
	require.Equal(t, 100*gib, a.Hours[2].BackingBytes)
}

// Before a disk was expanded its full size is not known: nothing is claimed.
func TestExpansion(t *testing.T) {
	in := input(disk(1, 1000, 100, 80, span(0, 48, 100, 80)...))
	in.Operations = []Operation{{Disk: in.Disks[0].Facts.Disk, Workflow: contract.ExpandWorkflow, Outcome: report.OutcomeDone, Began: at(23), Ended: at(24)}}
	a := Sum(in)
	require.InDelta(t, 900*24*gibHour, a.Money.Net, 1e-9)
	require.Equal(t, 1, a.Totals.Expands)
	require.Contains(t, strings.Join(a.Notes, "\n"), "before its own size was raised")
}

func TestNothing(t *testing.T) {
	for name, in := range map[string]Input{
		"no disk":         input(),
		"no history":      input(disk(1, 1000, 100, 80)),
		"unknown":         input(Disk{Facts: plan.Facts{Disk: "d-1", Node: "i-1", Volumes: []plan.Volume{{GiB: 7, Type: "gp3"}}}, Unknown: "no agent answers"}),
		"before the time": input(disk(1, 1000, 100, 80, span(-5, -1, 100, 80)...)),
		"no time":         {From: start, To: start, Prices: prices()},
		"time backwards":  {From: at(5), To: start, Prices: prices()},
		"no prices":       {From: start, To: at(2), Disks: []Disk{disk(1, 1, 1, 1, span(0, 2, 1, 1)...)}},
		"no volume":       input(Disk{Facts: plan.Facts{Disk: "d-1", SizeBytes: gib}, Hours: span(0, 5, 1, 1)}),
	} {
		t.Run(name, func(t *testing.T) {
			a := Sum(in)
			var b bytes.Buffer
			require.NoError(t, a.HTML(&b))
			require.False(t, strings.Contains(b.String(), "NaN") || strings.Contains(b.String(), "Inf"), "the page has a number that is none")
			require.NoError(t, a.JSON(&b))
			require.NoError(t, a.CSV(&b))
			require.NoError(t, a.CSVHours(&b))
			require.NotContains(t, b.String(), "null")
		})
	}
	a := Sum(input(disk(1, 1000, 100, 80)))
	require.Equal(t, 1, a.Totals.WithoutHistory)
	require.InDelta(t, .8, a.Totals.Utilization, 1e-9)
}

func TestOutcomes(t *testing.T) {
	in := input(disk(1, 1000, 100, 80, span(0, 48, 100, 80)...))
	id := in.Disks[0].Facts.Disk
	op := func(workflow, outcome string, r *contract.Result) Operation {
		return Operation{Disk: id, Workflow: workflow, Outcome: outcome, Began: at(1), Ended: at(2), FromGiB: 10, ToGiB: 20, Result: r}
	}
	refusal := &contract.Result{Outcome: contract.Refused, Refusal: contract.Refuse(contract.ModificationLimit, "four in 24 hours")}
	running := op(contract.ShrinkWorkflow, report.OutcomeRunning, nil)
	running.Ended = time.Time{}
	in.Operations = []Operation{
		op(contract.GrowWorkflow, report.OutcomeDone, &contract.Result{Outcome: contract.Done, BeforeGiB: 10, AfterGiB: 20}),
		op(contract.GrowWorkflow, report.OutcomeRefused, refusal), op(contract.GrowWorkflow, report.OutcomeRefused, refusal),
		op(contract.ShrinkWorkflow, report.OutcomeCancelled, &contract.Result{Outcome: contract.Cancelled}),
		op(contract.ShrinkWorkflow, report.OutcomeFailed, nil),
		op(contract.ShrinkWorkflow, "planned", &contract.Result{Outcome: contract.Planned}),
		op(contract.RehomeWorkflow, report.OutcomeDone, &contract.Result{Outcome: contract.Done}),
		running,
	}
	in.Held = map[string]int{"budget": 3, "observe": 70}
	in.HeldAt = at(47)
	a := Sum(in)
	require.Equal(t, 6, a.Totals.Operations)
	require.Equal(t, 1, a.Totals.Running)
	require.Equal(t, []int{1, 0, 1, 2, 1, 1}, []int{a.Totals.Grows, a.Totals.Shrinks, a.Totals.Moves, a.Totals.RefusedOps, a.Totals.Cancelled, a.Totals.Failed})
	require.Equal(t, int64(10), a.Totals.GrownGiB)
	require.Equal(t, "grow: ModificationLimit", a.Refused[0].What)
	require.Equal(t, 2, a.Refused[0].Times)
	require.Equal(t, "asked for by "+ByAgent, a.Done[0].Why)
	require.Equal(t, []int{70, 3}, []int{a.Held[0].Times, a.Held[1].Times})
	// Cancelled and failed shrinks had a second volume for an hour, the running one
	// has it until now.
	require.InDelta(t, 20*(1+1+47)*gibHour, a.Money.Own[costMoves].USD, 1e-9)
	require.Equal(t, 3, a.Namespaces[0].Refused)
}

func TestThousandDisks(t *testing.T) {
	in := Input{From: start, To: at(30 * 24), Prices: prices()}
	for n := range 1000 {
		in.Disks = append(in.Disks, disk(n, 200, 100, 80, span(0, 30*24, 100, 80)...))
		in.Operations = append(in.Operations, shrinkOp(n, float64(n%700), float64(n%700)+1, 200, 100))
	}
	began := time.Now()
	a := Sum(in)
	var b bytes.Buffer
	require.NoError(t, a.HTML(&b))
	require.Less(t, time.Since(began), 10*time.Second)
	require.LessOrEqual(t, len(a.Series), report.MaxSamples)
	require.Len(t, a.Hours, 720)
	require.Less(t, b.Len(), 1<<20, "the page is too large to mail")
}

// TestSumsAgree: whatever is put in, the parts make the whole.
func TestSumsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{From: start, To: at(rapid.Float64Range(1, 400).Draw(t, "to")), Prices: prices(), ControlUSDMonth: rapid.SampledFrom([]float64{0, 400}).Draw(t, "control")}
		for n := range rapid.IntRange(0, 4).Draw(t, "disks") {
			var hours []contract.HistoryHour
			for h := range rapid.IntRange(0, 60).Draw(t, "hours") {
				if rapid.Bool().Draw(t, "gap") {
					continue
				}
				backing := rapid.Int64Range(0, 50).Draw(t, "backing")
				hours = append(hours, span(h-5, h-4, backing, rapid.Int64Range(0, backing).Draw(t, "used"))...)
			}
			d := disk(n, 100, 50, 10, hours...)
			d.Facts.Namespace = rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "namespace")
			d.Class = rapid.SampledFrom([]string{"db", ""}).Draw(t, "class")
			in.Disks = append(in.Disks, d)
			for range rapid.IntRange(0, 3).Draw(t, "operations") {
				from := rapid.Float64Range(-100, 300).Draw(t, "from")
				in.Operations = append(in.Operations, shrinkOp(n, from, from+rapid.Float64Range(0, 50).Draw(t, "took"), 50, 20))
			}
		}
		a := Sum(in)
		var disks, spaces, classes, control float64
		for _, d := range a.Disks {
			disks += d.NetUSD
		}
		for _, p := range a.Namespaces {
			spaces += p.NetUSD
		}
		for _, p := range a.Classes {
			classes += p.NetUSD
		}
		if len(a.Money.Own) > 3 {
			control = a.Money.Own[3].USD
		}
		const eps = 1e-6
		require.InDelta(t, a.Money.Net+control, disks, eps)
		require.InDelta(t, disks, spaces, eps)
		if len(a.Classes) > 0 {
			require.InDelta(t, disks, classes, eps)
		}
		require.InDelta(t, a.Money.Full-a.Money.Backing-a.Money.OwnSum, a.Money.Net, eps)
		if n := len(a.Hours); n > 0 && a.Totals.DiskHours > 0 {
			require.InDelta(t, a.Money.Net, a.Hours[n-1].NetUSD, eps)
			require.InDelta(t, a.Money.Net, a.Series[len(a.Series)-1].NetUSD, eps)
		}
		require.GreaterOrEqual(t, a.Totals.MeanUtilization, 0.0)
		require.LessOrEqual(t, a.Totals.MeanUtilization, 1.0)
		for _, s := range a.Hours {
			require.LessOrEqual(t, s.Recorded, s.Disks+eps)
		}
	})
}
