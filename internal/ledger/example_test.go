package ledger

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/simulate"
	"github.com/ebb-storage/ebb/internal/trace"
)

// example is a fleet as Ebb's disks and Temporal would remember it: usage of the
// simulation's generator, played to the planner, written down hour by hour. The
// same figures give the same fleet.
func example(t *testing.T, disks, days int) Input {
	t.Helper()
	f, err := trace.NewFleet(trace.Fleet{Shape: "ai-platform", Disks: disks, Days: days, Seed: 7})
	require.NoError(t, err)
	p, err := policy.Load(simulate.FleetPolicy())
	require.NoError(t, err)
	ops := map[string][]report.Operation{}
	res, err := simulate.Run(t.Context(), simulate.Options{
		Source: f.Play, Prices: prices(), Seed: 7, Workers: 2,
		Rule: func(f plan.Facts) (plan.Rule, bool) {
			r, _ := p.For(f)
			r.Mode = plan.Enforce
			return r, true
		},
		Operation: func(o report.Operation) error {
			ops[o.Disk] = append(ops[o.Disk], o)
			return nil
		},
	})
	require.NoError(t, err)
	in := Input{
		Title: "What Ebb did", From: res.Report.From, To: res.Report.To, Prices: prices(), BuiltIn: true,
		Retired: map[string]time.Time{}, Retention: 90 * 24 * time.Hour,
	}
	var mu sync.Mutex
	require.NoError(t, f.Play(context.Background(), 2, func(d *trace.Disk) error {
		entry, done := in.remember(d, ops[d.ID])
		mu.Lock()
		defer mu.Unlock()
		in.Disks = append(in.Disks, entry)
		in.Operations = append(in.Operations, done...)
		for _, o := range done {
			if o.Result == nil || o.Workflow != contract.ShrinkWorkflow || o.Outcome != report.OutcomeDone {
				continue
			}
			in.Retired[o.Result.Retired[0]] = o.Ended.Add(time.Hour) // as its policy says; nor does it take snapshots
		}
		return nil
	}))
	return in
}

// remember is what is left of one disk and what was done to it.
func (in *Input) remember(d *trace.Disk, ops []report.Operation) (Disk, []Operation) {
	h := fnv.New64a()
	h.Write([]byte(d.ID))
	id := contract.DiskID(fmt.Sprintf("d-%017x", h.Sum64()>>4))
	size := d.Samples[0].Capacity
	backing := plan.CeilGiB(size)
	type change struct {
		at  int64
		gib int64
	}
	var changes []change
	var out []Operation
	for i, o := range ops {
		ended := o.At.Add(o.Took)
		op := Operation{
			Disk: id, Name: d.Namespace + "/" + d.Claim, Began: o.At, Ended: ended, Outcome: report.OutcomeDone, By: "Rightsize", Reason: o.Why,
			FromGiB: o.FromGiB, ToGiB: o.ToGiB, Workflow: contract.ShrinkWorkflow,
			Result: &contract.Result{Outcome: contract.Done, BeforeGiB: o.FromGiB, AfterGiB: o.ToGiB, UsedBytes: o.UsedBytes},
		}
		switch o.What {
		case "grow", "append":
			op.Workflow = contract.GrowWorkflow
			if o.Urgent {
				op.By = ""
			}
		case "abort":
			op.Outcome, op.Result = report.OutcomeCancelled, &contract.Result{Outcome: contract.Cancelled}
		default:
			op.Result.CopiedBytes, op.Result.SwapPausesMS = o.UsedBytes, []float64{1 + float64(h.Sum64()%7)/2, 2 + float64(i%5)/2}
			op.Result.Retired = []string{fmt.Sprintf("vol-%s-%d", id, i)}
		}
		if op.Outcome == report.OutcomeDone {
			changes = append(changes, change{ended.Unix(), o.ToGiB})
		}
		out = append(out, op)
	}
	if h.Sum64()%41 == 0 { // now and then the answer is no
		out = append(out, Operation{
			Disk: id, Name: d.Namespace + "/" + d.Claim, Workflow: contract.ShrinkWorkflow, Outcome: report.OutcomeRefused, By: "Rightsize",
			Began: in.From.Add(200 * time.Hour), Ended: in.From.Add(202 * time.Hour),
			Result: &contract.Result{Outcome: contract.Refused, Refusal: contract.Refuse(contract.BackupRunning, "a backup of the disk did not end within 2h0m0s")},
		})
	}
	slices.SortFunc(changes, func(a, b change) int { return int(a.at - b.at) })
	entry := Disk{Class: d.Class}
	i := 0
	for at := d.Samples[0].At; at < d.Samples[len(d.Samples)-1].At; at += 3600 {
		for len(changes) > 0 && changes[0].at <= at {
			backing, changes = changes[0].gib, changes[1:]
		}
		least, most := d.Samples[i].Used, d.Samples[i].Used
		for i+1 < len(d.Samples) && d.Samples[i+1].At <= at+3600 {
			i++
			least, most = min(least, d.Samples[i].Used), max(most, d.Samples[i].Used)
		}
		most = min(most, backing*contract.GiB)
		entry.Hours = append(entry.Hours, contract.HistoryHour{
			Hour: time.Unix(at, 0).UTC(), UsedMinBytes: min(least, most), UsedMaxBytes: most, BackingBytes: backing * contract.GiB,
		})
	}
	entry.Facts = plan.Facts{
		Disk: id, Name: d.Namespace + "/" + d.Claim, Namespace: d.Namespace, Claim: d.Claim, Node: d.Node, SizeBytes: size,
		UsedBytes: entry.Hours[len(entry.Hours)-1].UsedMaxBytes, Volumes: []plan.Volume{{ID: "vol-now", GiB: backing, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}},
	}
	return entry, out
}

// TestExample adds up a believable fleet. With EBB_EXAMPLE (a file to write) it
// writes its page, of which docs/report.md has the picture.
func TestExample(t *testing.T) {
	a := Sum(example(t, 200, 30))
	a.About = "A generated example: usage of the simulation's generator, played to the planner. Nothing of this has happened."
	require.Equal(t, 200, a.Totals.Known)
	require.Greater(t, a.Totals.Shrinks, 100)
	require.Greater(t, a.Totals.Grows, 100)
	require.Greater(t, a.Totals.MeanUtilization, a.Totals.FullUtilization)
	require.Positive(t, a.Money.Net)
	require.Positive(t, a.Money.Payback)
	require.Greater(t, len(a.Classes), 3)
	require.Greater(t, len(a.Namespaces), 3)
	require.Zero(t, a.Totals.Unrecorded, "every change of a backing has its operation: %v", a.Operations[:min(len(a.Operations), 3)])
	var b bytes.Buffer
	require.NoError(t, a.HTML(&b))
	if name := os.Getenv("EBB_EXAMPLE"); name != "" {
		require.NoError(t, os.WriteFile(name, b.Bytes(), 0o600))
	}
}
