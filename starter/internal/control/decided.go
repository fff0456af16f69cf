package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// WhatIfPrefix begins the workflow ids of runs that only answer a question; they
// are nobody's last run.
const WhatIfPrefix = "whatif/"

const (
	// decidedTimeout bounds reading a run's histories: some tens of MiB for 10,000 disks.
	decidedTimeout = 3 * time.Minute
	// decidedReaders is how many histories are read at a time.
	decidedReaders = 4
)

// Decided is what a run of Rightsize decided, as its histories have it.
type Decided struct {
	Run       FleetRun
	Decisions []plan.Decision
	Disks     map[contract.DiskID]Disk // names and nodes as the run knew them
	Facts     []plan.Facts             // of the same disks, before they were measured
	// Missing counts the parts of the fleet whose decisions are not there: they are
	// still looked at, or could not be.
	Missing int
}

// LastRightsize finds the newest run of Rightsize, running or not; exit.NotFound
// when there is none.
func (c *Client) LastRightsize(ctx context.Context) (Execution, error) {
	all, err := c.rightsizes(ctx)
	if err == nil && len(all) == 0 {
		err = exit.New(exit.NotFound, "there was no run of Rightsize yet").
			WithNext("ebb schedule run --watch; without a schedule: ebb schedule apply")
	}
	if err != nil {
		return Execution{}, err
	}
	return all[0], nil
}

// rightsizes are the last runs of Rightsize, the newest first, but for those that
// only answered a question.
func (c *Client) rightsizes(ctx context.Context) ([]Execution, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// The schedule knows its runs at once, visibility those of others, too.
	s, err := c.DescribeSchedule(ctx, contract.RightsizeSchedule)
	if err != nil && exit.CodeOf(err) != exit.NotFound {
		return nil, err
	}
	all := s.Recent
	res, err := c.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		Namespace: c.namespace, PageSize: 50, Query: `WorkflowType = "` + contract.RightsizeWorkflow + `"`,
	})
	if err != nil {
		return nil, c.callError("list the runs of Rightsize", err)
	}
	for _, info := range res.GetExecutions() {
		all = append(all, Execution{info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId(), info.GetStartTime().AsTime()})
	}
	seen := map[string]bool{}
	all = slices.DeleteFunc(all, func(e Execution) bool {
		again := seen[e.RunID]
		seen[e.RunID] = true
		return again || strings.HasPrefix(e.WorkflowID, WhatIfPrefix)
	})
	slices.SortStableFunc(all, func(x, y Execution) int { return y.At.Compare(x.At) })
	return all, nil
}

// Decided reads what a run decided.
func (c *Client) Decided(ctx context.Context, e Execution) (Decided, error) {
	ctx, cancel := context.WithTimeout(ctx, decidedTimeout)
	defer cancel()
	run, err := c.FleetRun(ctx, e)
	if err != nil {
		return Decided{}, err
	}
	out := Decided{Run: run, Disks: map[contract.DiskID]Disk{}}
	shards, err := c.shards(ctx, run.Execution)
	if err != nil {
		return out, err
	}
	parts := make([]shard, len(shards))
	errs := make([]error, len(shards))
	limit := make(chan struct{}, decidedReaders)
	var all sync.WaitGroup
	for i, s := range shards {
		all.Go(func() { // ends with ctx at the latest
			limit <- struct{}{}
			defer func() { <-limit }()
			parts[i], errs[i] = c.shard(ctx, s)
		})
	}
	all.Wait()
	for i, p := range parts {
		if errs[i] != nil {
			return out, errs[i]
		}
		for _, x := range p.inventory.Disks {
			out.Disks[x.Facts.Disk] = Disk{ID: x.Facts.Disk, Name: x.Facts.Name, Node: x.Facts.Node}
			out.Facts = append(out.Facts, x.Facts)
		}
		if p.planned {
			out.Decisions = append(out.Decisions, p.plan.Decisions...)
		} else {
			out.Missing++
		}
	}
	return out, nil
}

// shards are the parts of a run that have begun.
func (c *Client) shards(ctx context.Context, e Execution) ([]Execution, error) {
	var out []Execution
	h := c.temporal.GetWorkflowHistory(ctx, e.WorkflowID, e.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for h.HasNext() {
		ev, err := h.Next()
		if err != nil {
			return nil, c.historyError(e, err)
		}
		a := ev.GetChildWorkflowExecutionStartedEventAttributes()
		if a.GetWorkflowType().GetName() == contract.RightsizeShardWorkflow {
			w := a.GetWorkflowExecution()
			out = append(out, Execution{WorkflowID: w.GetWorkflowId(), RunID: w.GetRunId()})
		}
	}
	return out, nil
}

type shard struct {
	inventory fleet.Inventory
	plan      fleet.Plan
	planned   bool
}

// shard reads what a part found and decided.
func (c *Client) shard(ctx context.Context, e Execution) (shard, error) {
	var out shard
	into := map[int64]any{}
	h := c.temporal.GetWorkflowHistory(ctx, e.WorkflowID, e.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for h.HasNext() {
		ev, err := h.Next()
		if err != nil {
			return out, c.historyError(e, err)
		}
		switch name := ev.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName(); name {
		case string(fleet.TakeInventory):
			into[ev.GetEventId()] = &out.inventory
		case string(fleet.PlanDisks):
			into[ev.GetEventId()] = &out.plan
		}
		done := ev.GetActivityTaskCompletedEventAttributes()
		to := into[done.GetScheduledEventId()]
		if done == nil || to == nil {
			continue
		}
		if err := c.payload(done.GetResult(), to); err != nil {
			return out, exit.New(exit.Failed, "the run %s is of another version of Ebb", e.WorkflowID).Because(err)
		}
		out.planned = out.planned || to == any(&out.plan)
	}
	return out, nil
}

func (c *Client) payload(p *commonpb.Payloads, to any) error { return c.decode.FromPayloads(p, to) }

func (c *Client) historyError(e Execution, err error) error {
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return exit.New(exit.NotFound, "Temporal does not keep the run %s any more", e.WorkflowID).WithNext("ebb schedule run --watch")
	}
	return c.callError("read the history of "+e.WorkflowID, err)
}

// Find finds the disk that ref names among those of the run.
func (l Decided) Find(ref string) (Disk, error) {
	if d, ok := l.Disks[contract.DiskID(ref)]; ok {
		return d, nil
	}
	known := make([]Disk, 0, len(l.Disks))
	for _, d := range l.Disks {
		known = append(known, d)
	}
	d, ok, err := match(ref, known)
	if err == nil && !ok {
		err = exit.New(exit.NotFound, "the run %s did not look at a disk %q", l.Run.WorkflowID, ref).
			WithNext("ebb disk list; detached disks are not looked at, new ones by the next run")
	}
	return d, err
}

// Of is the decision about a disk; nil when there is none.
func (l Decided) Of(d contract.DiskID) *plan.Decision {
	if i := slices.IndexFunc(l.Decisions, func(x plan.Decision) bool { return x.Disk == d }); i >= 0 {
		return &l.Decisions[i]
	}
	return nil
}
