package workflows

import (
	"fmt"
	"maps"
	"slices"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// feed starts what the budgets allow, and more as operations end, for a while.
func (r *rightsize) feed(ctx workflow.Context) {
	r.running = r.census.Running
	r.running.MovesByNode, r.running.MovesByZone = counts(r.running.MovesByNode), counts(r.running.MovesByZone)
	until := workflow.Now(ctx).Add(r.in.Feed)
	left := r.do
	shared := len(left) > 0 && r.census.Budgets != (plan.Budgets{}) && workflow.GetVersion(ctx, budgetsShared, workflow.DefaultVersion, 1) > workflow.DefaultVersion
	for len(left) > 0 && ctx.Err() == nil {
		left = r.open(ctx, left)
		now, later := plan.Schedule(workflow.Now(ctx), left, r.census.Budgets, r.running)
		most := min(r.in.MaxStarts, childrenMost-len(r.result.Proposed))
		if room := most - len(r.result.Started); len(now) > room {
			for _, d := range now[room:] {
				r.held(d, fmt.Sprintf("one run begins %d operations at most", most))
			}
			r.heldBy(left, later)
			now, later = now[:room], nil
		}
		freed := r.freed
		if shared {
			var held []plan.Held
			now, held = r.allowed(ctx, now)
			later = append(later, held...)
			now = r.open(ctx, now) // the answer may have taken a while
		}
		r.begin(ctx, now)
		left = keep(left, later)
		if !slices.ContainsFunc(left, func(d plan.Decision) bool { return d.Action == plan.Shrink }) {
			r.heldBy(left, later) // no end of a move makes room for them
			break
		}
		r.show(ctx, fmt.Sprintf("%d wait for a budget", len(left)))
		free, err := workflow.AwaitWithTimeout(ctx, max(until.Sub(workflow.Now(ctx)), 0), func() bool { return r.freed > freed })
		if err != nil || !free {
			r.heldBy(left, later)
			break
		}
	}
	r.ended = true
}

// open leaves what may begin now: not what its maintenance window has closed for.
func (r *rightsize) open(ctx workflow.Context, ds []plan.Decision) []plan.Decision {
	return slices.DeleteFunc(slices.Clone(ds), func(d plan.Decision) bool {
		closed := !d.NotAfter.IsZero() && !workflow.Now(ctx).Before(d.NotAfter)
		if closed {
			r.held(d, "the maintenance window closed at "+d.NotAfter.UTC().Format(time.RFC3339))
		}
		return closed
	})
}

// begin starts operations, in parts that one answer to Temporal holds.
func (r *rightsize) begin(ctx workflow.Context, ds []plan.Decision) {
	for part := range slices.Chunk(ds, childrenTogether) {
		if ctx.Err() == nil {
			r.start(beyond(ctx), part)
		}
	}
}

// allowed leaves of what would begin now what Budgets allows beside the operations of
// others. What is urgent comes first and asks nobody: it begins here.
func (r *rightsize) allowed(ctx workflow.Context, now []plan.Decision) (begin []plan.Decision, held []plan.Held) {
	urgent := 0
	for urgent < len(now) && now[urgent].Urgent {
		urgent++
	}
	r.begin(ctx, now[:urgent])
	if now = now[urgent:]; len(now) == 0 {
		return nil, nil
	}
	ask := fleet.Ask{Budgets: r.census.Budgets, At: workflow.Now(ctx)}
	for _, d := range now {
		ask.Want = append(ask.Want, fleet.Brief(d))
	}
	told := r.past
	r.past = nil
	for _, d := range told {
		ask.Ended = append(ask.Ended, d.Disk)
	}
	room, err := fleet.TakeBudget.Execute(budgetControl(ctx), ask)
	if err != nil {
		r.past = append(told, r.past...)
		if ctx.Err() == nil {
			r.problem("the budgets did not answer: %v", err)
		}
		for _, d := range ask.Want {
			room.Held = append(room.Held, plan.Held{Disk: d.Disk, Why: plan.WhyBudget, Reason: "the budgets did not answer"})
		}
	} else {
		r.running = room.Running
		r.running.MovesByNode, r.running.MovesByZone = counts(r.running.MovesByNode), counts(r.running.MovesByZone)
		for _, d := range r.past { // meanwhile
			r.take(d, -1)
		}
	}
	return slices.DeleteFunc(now, func(d plan.Decision) bool { return !slices.Contains(room.Begin, d.Disk) }), room.Held
}

func (r *rightsize) heldBy(left []plan.Decision, why []plan.Held) {
	for _, h := range why {
		if i := slices.IndexFunc(left, func(d plan.Decision) bool { return d.Disk == h.Disk }); i >= 0 {
			r.held(left[i], h.Reason)
		}
	}
}

func keep(all []plan.Decision, held []plan.Held) []plan.Decision {
	waits := map[contract.DiskID]bool{}
	for _, h := range held {
		waits[h.Disk] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(d plan.Decision) bool { return !waits[d.Disk] })
}

// counts is a copy that can be written to.
func counts(m map[string]int) map[string]int {
	if m == nil {
		return map[string]int{}
	}
	return maps.Clone(m)
}

// start begins operations that go on by themselves when this run ends.
func (r *rightsize) start(ctx workflow.Context, ds []plan.Decision) {
	children := make([]workflow.ChildWorkflowFuture, len(ds))
	for i, d := range ds {
		name, input, why := fleet.Operation(d, r.rules[d.Rule], r.in.Settings)
		if why != "" {
			r.held(d, why)
			continue
		}
		children[i] = workflow.ExecuteChildWorkflow(operationOptions(ctx, d, name, "Rightsize"), name, input)
	}
	for i, d := range ds {
		if children[i] == nil {
			continue
		}
		err := children[i].GetChildWorkflowExecution().Get(ctx, nil)
		switch {
		case runs(err):
			r.held(d, "another operation runs on the disk")
			continue
		case err != nil:
			r.problem("disk %s: its operation was not begun: %v", d.Disk, err)
			continue
		}
		n := len(r.result.Started)
		r.result.Started = append(r.result.Started, begun(d))
		r.take(d, 1)
		workflow.Go(ctx, func(ctx workflow.Context) { r.follow(ctx, children[i], d, n) })
	}
}

// operationOptions are those of an operation on a disk, with the disk's lock.
func operationOptions(ctx workflow.Context, d plan.Decision, name, by string) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: contract.WorkflowID(d.Disk), TaskQueue: contract.ControlQueue,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		StaticSummary:         d.Reason,
		TypedSearchAttributes: temporal.NewSearchAttributes(
			attrDisk.ValueSet(string(d.Disk)), attrNode.ValueSet(d.Node), attrOperation.ValueSet(name), attrPhase.ValueSet(string(contract.PhaseCheck))),
		Memo: map[string]any{"fromGiB": d.FromGiB, "toGiB": d.GiB, "reason": d.Reason, "by": by},
	})
}

// follow waits for an operation's end while the run lasts.
func (r *rightsize) follow(ctx workflow.Context, f workflow.Future, d plan.Decision, n int) {
	var out contract.Result
	err := f.Get(ctx, &out)
	if r.ended {
		return
	}
	r.take(d, -1)
	if d.Action == plan.Shrink {
		r.freed++
		r.past = append(r.past, d)
	}
	b := &r.result.Started[n]
	switch {
	case err != nil:
		b.Outcome = "failed"
	case out.Refusal != nil:
		b.Outcome = string(out.Outcome) + ": " + out.Refusal.Error()
	default:
		b.Outcome = string(out.Outcome)
	}
	r.show(ctx, "operations run")
}

// take counts what is under way up or down. Modifications stay spent.
func (r *rightsize) take(d plan.Decision, n int) {
	switch {
	case d.Action == plan.Shrink:
		r.running.MovesByNode[d.Node] += n
		r.running.MovesByZone[d.Zone] += n
		r.running.Moves += n
		r.running.ExtraGiB += int64(n) * d.GiB
	case n > 0:
		r.running.Modifications++
	}
}
