package workflows

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

const (
	// shardsAtOnce bounds how many parts of a fleet are looked at together.
	shardsAtOnce = 8
	// shardMost is how many decisions to take a part of the fleet reports; what is
	// left is the next run's.
	shardMost = 200
	// shardPatience bounds one part: its nodes are asked at the same time.
	shardPatience = 10 * time.Minute
	// most of the lists of a result.
	mostHeld = 100
	// childrenMost is how many operations and proposals one run begins at most,
	// whatever its input says: a workflow with 2000 children that run gets no further.
	childrenMost = 1900
	// budgetsShared is the version since which runs ask Budgets for room.
	budgetsShared = "budgets-shared"
	// childrenTogether are begun in one answer to Temporal, which holds 4 MiB.
	childrenTogether = 200
)

// rightsize is one run of Rightsize.
type rightsize struct {
	in     contract.RightsizeInput
	census fleet.Census
	rules  map[string]plan.Rule
	do     []plan.Decision
	ask    []plan.Decision
	result contract.RightsizeResult

	shards, looked int
	running        plan.Running    // the census' or Budgets', and what this run has under way
	freed          int             // moves of this run that have ended
	past           []plan.Decision // those of them that Budgets was not told of
	ended          bool            // the feeding: what ends later is not counted
}

// Rightsize looks at every disk of the fleet, decides what should become of each,
// and by its mode leaves it at that, asks for approval, or starts operations, as
// many as the budgets allow. Operations go on when it ends; what is left is for the
// next run, which looks anew.
func Rightsize(ctx workflow.Context, in contract.RightsizeInput) (contract.RightsizeResult, error) {
	r := &rightsize{in: in, rules: map[string]plan.Rule{}}
	if err := in.Validate(); err != nil {
		r.result.Refusal = contract.Refuse(contract.BadInput, "%v", err)
		return r.result, nil
	}
	if r.in.Feed == 0 {
		r.in.Feed = contract.DefaultFeed
	}
	if r.in.MaxStarts == 0 {
		r.in.MaxStarts = contract.DefaultStarts
	}

	// 1. Who there is.
	var err error
	r.census, err = fleet.TakeCensus.Execute(fleetControl(ctx), fleet.CensusInput{Policy: in.Policy})
	if refusal, ok := contract.AsRefusal(err); ok {
		r.result.Refusal = refusal
		return r.publish(ctx)
	}
	if err != nil {
		return r.result, err
	}

	// 2. Look and plan, part by part.
	if err := r.look(ctx); err != nil {
		return r.result, err
	}

	// 3. Ask and start.
	if !in.DryRun {
		r.propose(ctx)
		r.feed(ctx)
	}
	return r.publish(ctx)
}

// fleetControl is for activities that walk over all of EC2: throttled, they take
// their time.
func fleetControl(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              contract.ControlQueue,
		ScheduleToCloseTimeout: 15 * time.Minute,
		StartToCloseTimeout:    5 * time.Minute,
		HeartbeatTimeout:       contract.NodeHeartbeat,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 2 * time.Second, MaximumInterval: 30 * time.Second},
	})
}

// publish shows the totals in the worker's metrics and ends the run.
func (r *rightsize) publish(ctx workflow.Context) (contract.RightsizeResult, error) {
	r.show(ctx, "done")
	if r.in.DryRun {
		return r.result, ctx.Err() // what if: not what is
	}
	ctx = workflow.WithScheduleToCloseTimeout(fleetControl(ctx), time.Minute)
	if _, err := fleet.PublishRun.Execute(ctx, r.result); err != nil && !temporal.IsCanceledError(err) {
		workflow.GetLogger(ctx).Warn("The run's totals were not published", "error", err)
	}
	return r.result, ctx.Err()
}

// split makes parts of nodes that one look can take.
func split(nodes []fleet.Node) [][]string {
	var out [][]string
	var part []string
	disks := 0
	for _, n := range nodes {
		if len(part) > 0 && (disks+n.Disks > fleet.ShardDisks || len(part) == fleet.ShardNodes) {
			out, part, disks = append(out, part), nil, 0
		}
		part, disks = append(part, n.Node), disks+n.Disks
	}
	if len(part) > 0 {
		out = append(out, part)
	}
	return out
}

// look runs the parts. One that fails is a problem of the run, not its end.
func (r *rightsize) look(ctx workflow.Context) error {
	parts := split(r.census.Nodes)
	r.shards = len(parts)
	r.result.Totals.Disks += len(r.census.Detached)
	r.result.Totals.Unmeasured += len(r.census.Detached)
	r.show(ctx, "looking")
	now := workflow.Now(ctx)
	id := workflow.GetInfo(ctx).WorkflowExecution.ID
	results := make([]fleet.ShardResult, len(parts))
	each(ctx, shardsAtOnce, len(parts), func(ctx workflow.Context, i int) {
		nodes := parts[i]
		child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID:               fmt.Sprintf("%s/shard-%03d", id, i+1),
			TaskQueue:                contract.ControlQueue,
			WorkflowExecutionTimeout: 3 * shardPatience,
			WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			StaticSummary:            fmt.Sprintf("Look at the disks of %d nodes", len(nodes)),
		})
		err := workflow.ExecuteChildWorkflow(child, contract.RightsizeShardWorkflow, fleet.Shard{
			Most: shardMost, DryRun: r.in.DryRun,
			Inventory: fleet.InventoryInput{
				Nodes: nodes, Policy: r.in.Policy, Switches: r.in.Switches, Extras: r.in.Extras, Settings: r.in.Settings, Now: now,
			},
		}).Get(ctx, &results[i])
		if err != nil && ctx.Err() == nil {
			results[i].Problems = []string{fmt.Sprintf("the disks of %d nodes (%s, ...) were not looked at: %v", len(nodes), nodes[0], err)}
		}
		r.looked++
		r.show(ctx, "looking")
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, s := range results {
		r.result.Totals.Add(s.Totals)
		r.do = append(r.do, s.Do...)
		r.ask = append(r.ask, s.Propose...)
		for _, p := range s.Problems {
			r.problem("%s", p)
		}
		for _, name := range workflow.DeterministicKeys(s.Rules) {
			r.rules[name] = s.Rules[name]
		}
	}
	return nil
}

func (r *rightsize) problem(format string, args ...any) {
	if len(r.result.Problems) < mostHeld {
		r.result.Problems = append(r.result.Problems, fmt.Sprintf(format, args...))
	}
}

func (r *rightsize) held(d plan.Decision, why string) {
	if len(r.result.Held) < mostHeld {
		b := begun(d)
		b.Outcome = why
		r.result.Held = append(r.result.Held, b)
	}
}

func begun(d plan.Decision) contract.Begun {
	return contract.Begun{
		Disk: d.Disk, Operation: string(d.Wanted), FromGiB: d.FromGiB, ToGiB: d.GiB, SavingUSDMonth: d.SavingUSDMonth, Reason: d.Reason,
	}
}

// propose asks for approvals. One that is asked for already stands as it is, with
// the figures of its day.
func (r *rightsize) propose(ctx workflow.Context) {
	slices.SortStableFunc(r.ask, func(a, b plan.Decision) int {
		return strings.Compare(order(a), order(b))
	})
	expiry := r.in.ProposalExpiry
	if expiry == 0 {
		expiry = contract.DefaultExpiry
	}
	most := asksAtMost(r.in.MaxStarts, len(r.do))
	ask := r.ask[:min(len(r.ask), most)]
	for _, d := range r.ask[len(ask):] {
		r.held(d, fmt.Sprintf("this run asks for %d approvals at most", most))
	}
	for part := range slices.Chunk(ask, childrenTogether) {
		r.proposeThese(beyond(ctx), part, expiry)
	}
}

// asksAtMost is how many approvals a run asks for beside the operations it may
// begin: those go first where there is no room for both.
func asksAtMost(maxStarts, operations int) int {
	return min(maxStarts, childrenMost-min(operations, maxStarts, childrenMost))
}

// beyond is for what goes on by itself when the run ends, also when it is
// cancelled.
func beyond(ctx workflow.Context) workflow.Context {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	return ctx
}

func (r *rightsize) proposeThese(ctx workflow.Context, ask []plan.Decision, expiry time.Duration) {
	children, inputs := make([]workflow.ChildWorkflowFuture, len(ask)), make([]fleet.Proposal, len(ask))
	for i, d := range ask {
		name, input, why := fleet.Operation(d, r.rules[d.Rule], r.in.Settings)
		if why != "" {
			r.held(d, why)
			continue
		}
		in := fleet.Proposal{Decision: d, Workflow: name, Expiry: expiry, Budgets: r.census.Budgets}
		if d.Wanted == plan.Shrink {
			in.Windows = r.rules[d.Rule].Windows
		}
		switch input := input.(type) {
		case contract.GrowInput:
			in.Grow = &input
		case contract.ShrinkInput:
			in.Shrink = &input
		}
		child := workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
			WorkflowID: contract.ProposeWorkflowID(d.Disk), TaskQueue: contract.ControlQueue,
			ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_ABANDON,
			WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
			StaticSummary:         "Approve? " + d.Reason,
			TypedSearchAttributes: temporal.NewSearchAttributes(attrDisk.ValueSet(string(d.Disk)), attrOperation.ValueSet(name)),
			Memo:                  map[string]any{"fromGiB": d.FromGiB, "toGiB": d.GiB, "reason": d.Reason, "savingUsdMonth": d.SavingUSDMonth},
		})
		children[i] = workflow.ExecuteChildWorkflow(child, contract.ProposeWorkflow, in)
		inputs[i] = in
	}
	for i, d := range ask {
		if children[i] == nil {
			continue
		}
		err := children[i].GetChildWorkflowExecution().Get(ctx, nil)
		if err != nil && !runs(err) {
			r.problem("disk %s: its proposal was not begun: %v", d.Disk, err)
			continue
		}
		if err != nil && d.Replaces {
			err = workflow.SignalExternalWorkflow(ctx, contract.ProposeWorkflowID(d.Disk), "", contract.SignalReplace, inputs[i]).Get(ctx, nil)
			if err != nil {
				r.held(d, fmt.Sprintf("what was rejected ends just now: %v", err))
				continue
			}
		}
		r.result.Proposed = append(r.result.Proposed, begun(d))
	}
}

// order puts proposals with the greatest saving first, growth before all.
func order(d plan.Decision) string {
	if d.Wanted != plan.Shrink {
		return "0" + string(d.Disk)
	}
	return fmt.Sprintf("1%015.2f%s", 1e11-d.SavingUSDMonth, d.Disk)
}

// runs tells that a workflow of that id runs already.
func runs(err error) bool {
	var already *temporal.ChildWorkflowExecutionAlreadyStartedError
	return errors.As(err, &already)
}

// feed starts what the budgets allow, and more as operations end, for a while.
func (r *rightsize) feed(ctx workflow.Context) {
	r.running = r.census.Running
	r.running.MovesByNode, r.running.MovesByZone = counts(r.running.MovesByNode), counts(r.running.MovesByZone)
	until := workflow.Now(ctx).Add(r.in.Feed)
	left := r.do
	shared := len(left) > 0 && r.census.Budgets != (plan.Budgets{}) && workflow.GetVersion(ctx, budgetsShared, workflow.DefaultVersion, 1) > workflow.DefaultVersion
	for len(left) > 0 && ctx.Err() == nil {
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

// show writes the details the Temporal UI shows beside the run.
func (r *rightsize) show(ctx workflow.Context, what string) {
	t := r.result.Totals
	var b strings.Builder
	fmt.Fprintf(&b, "### Rightsize: %s\n\n", what)
	fmt.Fprintf(&b, "- looked at %d of %d parts of the fleet\n", r.looked, r.shards)
	if t.Disks > 0 {
		fmt.Fprintf(&b, "- %d disks, %d not measured; %s used of %s\n", t.Disks, t.Unmeasured, plan.Bytes(t.UsedBytes), plan.Bytes(t.MeasuredBytes))
		fmt.Fprintf(&b, "- shrinks wanted would save $%.2f a month\n", t.SavingUSDMonth)
		fmt.Fprintf(&b, "- %d operations begun, %d proposed, %d or more held back\n", len(r.result.Started), len(r.result.Proposed), len(r.result.Held))
	}
	for _, p := range r.result.Problems[:min(len(r.result.Problems), 5)] {
		fmt.Fprintf(&b, "- problem: %s\n", p)
	}
	workflow.SetCurrentDetails(ctx, b.String())
}
