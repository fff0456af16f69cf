package workflows

import (
	"errors"
	"fmt"
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
		r.result.Refusal = badInput(err)
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

// beyond is for what goes on by itself when the run ends, also when it is
// cancelled.
func beyond(ctx workflow.Context) workflow.Context {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	return ctx
}

// runs tells that a workflow of that id runs already.
func runs(err error) bool {
	var already *temporal.ChildWorkflowExecutionAlreadyStartedError
	return errors.As(err, &already)
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
