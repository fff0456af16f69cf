package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// Plan implements fleet.PlanDisks.
func (a *Activities) Plan(ctx context.Context, in fleet.PlanInput) (fleet.Plan, error) {
	running, err := a.Operations(ctx)
	if err != nil {
		return fleet.Plan{}, fmt.Errorf("which operations run: %w", err)
	}
	rules := in.Inventory.Rules
	for i := range rules {
		if err := locate(&rules[i]); err != nil {
			return fleet.Plan{}, err
		}
	}
	surveys := make(map[contract.DiskID]contract.DiskSurvey, len(in.Surveys))
	for _, s := range in.Surveys {
		surveys[s.Disk] = s
	}
	out := fleet.Plan{
		Decisions: make([]plan.Decision, 0, len(in.Inventory.Disks)),
		Rules:     map[string]plan.Rule{},
		Totals:    contract.Totals{Modes: map[contract.Mode]int{}, Wanted: map[string]int{}, Held: map[string]int{}},
	}
	answered := map[contract.DiskID]fleet.Proposed{}
	if slices.ContainsFunc(rules, func(r plan.Rule) bool { return r.Mode == plan.Recommend }) {
		if answered, err = a.Answered(ctx); err != nil {
			return fleet.Plan{}, fmt.Errorf("which proposals are answered: %w", err)
		}
	}
	for _, e := range in.Inventory.Disks {
		if e.Rule < 0 || e.Rule >= len(rules) {
			return fleet.Plan{}, fmt.Errorf("disk %s: no rule %d in the inventory", e.Facts.Disk, e.Rule)
		}
		r := rules[e.Rule]
		r.ExtraBytes, r.ExtraUntil = e.ExtraBytes, e.ExtraUntil
		d := a.decide(in.Now, e.Facts, surveys[e.Facts.Disk], r, running[e.Facts.Disk])
		if p, ok := answered[e.Facts.Disk]; ok {
			stand(&d, p)
		}
		out.Rules[r.Name] = rules[e.Rule]
		out.Decisions = append(out.Decisions, d)
		a.count(&out.Totals, e.Facts, surveys[e.Facts.Disk].Measurement, d)
	}
	return out, nil
}

func (a *Activities) decide(now time.Time, f plan.Facts, s contract.DiskSurvey, r plan.Rule, op Operation) plan.Decision {
	if s.Measurement == nil {
		why := s.Problem
		if why == "" {
			why = "its node did not answer"
		}
		return plan.Decision{
			Disk: f.Disk, Node: f.Node, Zone: f.Zone, Rule: r.Name, Mode: r.Mode, GiB: f.BackingGiB(), FromGiB: f.BackingGiB(),
			Enough: true, Action: plan.None, Wanted: plan.None, Why: plan.WhyFacts, Reason: "not measured: " + why,
		}
	}
	f = f.Measured(*s.Measurement)
	if op.Type != "" {
		f.Operation = op.Type
	}
	f.DayPeakBytes = s.Usage.DayPeakBytes
	return plan.Decide(now, f, s.Usage, r, a.Limits, a.Prices)
}

// stand leaves what would be proposed to the answer that stands, unless it is another
// matter than what was rejected.
func stand(d *plan.Decision, p fleet.Proposed) {
	switch {
	case d.Why != plan.WhyMode || d.Mode != plan.Recommend:
	case p.Answer == fleet.Rejected && fleet.Differs(p.Decision, *d):
		d.Replaces = true
		d.Reasons = append(d.Reasons, "asked anew: it is not what was rejected by "+p.By)
	default:
		d.Why, d.NotBefore = plan.WhyAnswered, p.Until
		d.Reasons = append(d.Reasons, p.Standing())
	}
}

func (a *Activities) count(t *contract.Totals, f plan.Facts, m *contract.Measurement, d plan.Decision) {
	t.Disks++
	t.Modes[d.Mode]++
	backing := f.BackingGiB() * contract.GiB
	t.BackingBytes += backing
	t.USDMonth += a.Prices.BackingMonth(f.Volumes)
	if m == nil {
		t.Unmeasured++
	} else {
		t.Measured++
		t.SizeBytes += m.SizeBytes
		t.UsedBytes += m.PoolUsedBytes
		t.MeasuredBytes += backing
	}
	if d.Wanted != plan.None {
		t.Wanted[string(d.Wanted)]++
		if d.Why != plan.WhyNone {
			t.Held[string(d.Why)]++
		}
		if d.Wanted == plan.Shrink || d.Wanted == plan.Retype && d.SavingUSDMonth > 0 {
			t.SavingUSDMonth += d.SavingUSDMonth
		}
	}
}

// locate gives a rule's windows their time zones back, which JSON does not carry.
func locate(r *plan.Rule) error {
	for i, w := range r.Windows {
		loc, err := time.LoadLocation(w.Zone)
		if err != nil {
			return contract.Refuse(contract.BadInput, "%s: time zone %q: %v", r, w.Zone, err).
				WithNext("install the time zones where the worker runs, or use UTC in the policy")
		}
		r.Windows[i].Location = loc
	}
	return nil
}

// visible asks Temporal's visibility for the operations that run. It may be a
// moment behind.
func visible(ctx context.Context) (map[contract.DiskID]Operation, error) {
	out := map[contract.DiskID]Operation{}
	err := running(ctx, "disk/", func(id string, w *workflowpb.WorkflowExecutionInfo) {
		op := Operation{Type: w.GetType().GetName()}
		if p := w.GetMemo().GetFields()["toGiB"]; p != nil {
			_ = converter.GetDefaultDataConverter().FromPayload(p, &op.GiB)
		}
		if p := w.GetSearchAttributes().GetIndexedFields()[contract.AttrNode]; p != nil {
			_ = converter.GetDefaultDataConverter().FromPayload(p, &op.Node) // not known, then
		}
		out[contract.DiskID(id)] = op
	})
	return out, err
}

// answered asks for the proposals that go on after their answer.
func answered(ctx context.Context) (map[contract.DiskID]fleet.Proposed, error) {
	out := map[contract.DiskID]fleet.Proposed{}
	err := running(ctx, contract.ProposeWorkflowID(""), func(id string, w *workflowpb.WorkflowExecutionInfo) {
		var p fleet.Proposed
		m := w.GetMemo().GetFields()[fleet.MemoAnswered]
		if m != nil && converter.GetDefaultDataConverter().FromPayload(m, &p) == nil && p.Answer != "" {
			out[contract.DiskID(id)] = p
		}
	})
	return out, err
}

// retiring asks for the volumes whose own Retire workflow waits for their end.
func retiring(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	err := running(ctx, contract.RetireWorkflowID(""), func(id string, _ *workflowpb.WorkflowExecutionInfo) { out[id] = true })
	return out, err
}

// running goes through the workflows that run whose ids have a prefix.
func running(ctx context.Context, prefix string, each func(rest string, w *workflowpb.WorkflowExecutionInfo)) error {
	c := activity.GetClient(ctx)
	namespace := activity.GetInfo(ctx).Namespace
	var page []byte
	for n := 0; ; {
		res, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: namespace, PageSize: 1000, NextPageToken: page,
			Query: fmt.Sprintf("WorkflowId STARTS_WITH %q AND ExecutionStatus = 'Running'", prefix),
		})
		if err != nil {
			return err
		}
		for _, w := range res.GetExecutions() {
			each(strings.TrimPrefix(w.GetExecution().GetWorkflowId(), prefix), w)
		}
		if page = res.GetNextPageToken(); len(page) == 0 {
			return nil
		}
		n += len(res.GetExecutions())
		activity.RecordHeartbeat(ctx, n)
	}
}
