// Package fleet gathers what a whole fleet looks like, for the commands that show
// it: its disks with what their nodes measure and remember, and the operations
// Temporal knows. It asks through internal control alone, so many at once and no
// more, and a node that does not answer costs its own disks only.
package fleet

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/ledger"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// Source is what is asked; control.Client is one.
type Source interface {
	Lister
	Past(ctx context.Context, since time.Time) (*control.Past, error)
}

// Selection is the part of the fleet that is wanted; the zero value is all of it.
type Selection struct {
	Namespace string // of the claims
	Node      string
	// ClassTag is the volume tag that names a disk's workload class; empty: none does.
	ClassTag string
}

// asks is how many disks are asked about at once, and perNode how many of one node
// until it has answered: a dead one must not take all.
const (
	asks    = 32
	perNode = 2
)

// graceBefore is how much further back operations are read than asked for: what
// they left may cost something until later.
const graceBefore = 8 * 24 * time.Hour

// Gather reads the past of the selected disks since a time. What cannot be read is
// in the result as unknown; an error means that nothing at all could be. step is
// told how many disks have been asked of how many.
func Gather(ctx context.Context, src Source, sel Selection, since, now time.Time, step func(done, all int)) (ledger.Input, error) {
	in := ledger.Input{From: since, To: now, Scope: report.Scope{Namespace: sel.Namespace, Node: sel.Node}}
	all, _, err := list(ctx, src, contract.InspectInput{Node: sel.Node, FactsOnly: true})
	if err != nil {
		return in, err
	}
	past, err := src.Past(ctx, since.Add(-graceBefore))
	if err != nil {
		return in, err
	}
	g := gather{src: src, sel: sel, since: since, silent: map[string]string{}, alive: map[string]bool{}, slots: map[string]chan struct{}{}}
	in.Disks, err = g.disks(ctx, spread(all), step)
	if err != nil {
		return in, err
	}
	in.Retired, in.Snapshots, in.Retention = past.Retired, past.Snapshots, past.Retention
	if past.Looked != nil && sel.Namespace == "" && sel.Node == "" {
		in.Held, in.HeldAt = past.Looked.Held, past.LookedAt
	}
	mine := map[contract.DiskID]bool{}
	for _, d := range in.Disks {
		mine[d.Facts.Disk] = true
	}
	for _, e := range past.Operations {
		if mine[e.Disk.ID] || sel.covers(e) {
			in.Operations = append(in.Operations, operation(e))
		}
	}
	for _, t := range past.Turned {
		if mine[t.Decision.Disk] {
			in.Operations = append(in.Operations, turned(t))
		}
	}
	return in, nil
}

// turned is a proposal that led to nothing, as an operation that was refused.
func turned(t control.Turned) ledger.Operation {
	d := t.Decision
	o := ledger.Operation{
		Disk: d.Disk, Node: d.Node, Workflow: contract.GrowWorkflow, Outcome: report.OutcomeRefused, Began: t.Began, Ended: t.Ended,
		By: "Rightsize", FromGiB: d.FromGiB, ToGiB: d.GiB, Code: ledger.ProposalExpired, Reason: d.Reason,
	}
	if d.Wanted == plan.Shrink {
		o.Workflow = contract.ShrinkWorkflow
	}
	if t.Answer == "rejected" {
		o.Code, o.By = ledger.ProposalRejected, t.By
		if t.Note != "" {
			o.Reason += "; rejected: " + t.Note
		}
	}
	return o
}

// covers tells whether an operation on a disk that is not there any more is of the
// selection.
func (s Selection) covers(e control.Ended) bool {
	if s.Namespace == "" && s.Node == "" {
		return true
	}
	ns, _, _ := strings.Cut(e.Disk.Name, "/")
	return (s.Namespace == "" || ns == s.Namespace) && (s.Node == "" || e.Disk.Node == s.Node) && e.Workflow == contract.DeleteDiskWorkflow
}

// operation is what Temporal remembers, for the ledger.
func operation(e control.Ended) ledger.Operation {
	o := ledger.Operation{
		Disk: e.Disk.ID, Name: e.Disk.Name, Node: e.Disk.Node, Workflow: e.Workflow, Began: e.Began, Ended: e.Ended, By: e.By, Reason: e.Reason,
		FromGiB: e.FromGiB, ToGiB: e.ToGiB, Result: e.Result, Outcome: report.OutcomeFailed,
	}
	switch {
	case e.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		o.Outcome = report.OutcomeRunning
	case e.Status == enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:
		o.Outcome = report.OutcomeCancelled
	case e.Result != nil:
		o.Outcome = string(e.Result.Outcome)
	case e.Status == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:
		o.Reason = "it ended; its result could not be read"
	}
	return o
}

// spread puts disks of different nodes beside each other.
func spread(all []contract.DiskReport) []contract.DiskReport {
	byNode := map[string][]contract.DiskReport{}
	var nodes []string
	for _, r := range all {
		n := r.Facts.Node()
		if byNode[n] == nil {
			nodes = append(nodes, n)
		}
		byNode[n] = append(byNode[n], r)
	}
	slices.Sort(nodes)
	out := make([]contract.DiskReport, 0, len(all))
	for i := 0; len(out) < len(all); i++ {
		for _, n := range nodes {
			if i < len(byNode[n]) {
				out = append(out, byNode[n][i])
			}
		}
	}
	return out
}

// gather asks disk by disk.
type gather struct {
	src   Source
	sel   Selection
	since time.Time

	mu     sync.Mutex
	silent map[string]string // nodes that did not answer, with their words
	alive  map[string]bool   // those that did
	slots  map[string]chan struct{}
}

func (g *gather) disks(ctx context.Context, all []contract.DiskReport, step func(done, all int)) ([]ledger.Disk, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var (
		mu    sync.Mutex
		out   []ledger.Disk
		done  int
		group sync.WaitGroup
	)
	next := make(chan contract.DiskReport)
	for range asks {
		group.Go(func() {
			for r := range next {
				d, ok, err := g.disk(ctx, r)
				if err != nil {
					stop(err)
					return
				}
				mu.Lock()
				if ok {
					out = append(out, d)
				}
				done++
				if step != nil {
					step(done, len(all))
				}
				mu.Unlock()
			}
		})
	}
feed:
	for _, r := range all {
		select {
		case next <- r:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	group.Wait()
	return out, context.Cause(ctx)
}

// disk asks about one. ok is false when it is not of the selection. An error ends
// the whole.
func (g *gather) disk(ctx context.Context, r contract.DiskReport) (d ledger.Disk, ok bool, err error) {
	node := r.Facts.Node()
	if why := g.whySilent(node); why != "" {
		r.Unmeasured = why
		return g.known(r)
	}
	give, err := g.take(ctx, node)
	if err != nil {
		return d, false, err
	}
	defer give()
	if why := g.whySilent(node); why != "" {
		r.Unmeasured = why
		return g.known(r)
	}
	full, err := g.src.Inspect(ctx, contract.InspectInput{Disk: r.Facts.Disk, History: node != "", Since: g.since})
	switch {
	case ctx.Err() != nil:
		return d, false, ctx.Err()
	case exit.CodeOf(err) == exit.NotFound:
		return d, false, nil // deleted meanwhile
	case exit.CodeOf(err) == exit.Unreachable && err != nil:
		return d, false, err
	case err != nil:
		r.Unmeasured = err.Error()
		return g.known(r)
	case len(full) == 0:
		return d, false, nil
	}
	r = full[0]
	g.mu.Lock()
	g.alive[node] = g.alive[node] || r.Measurement != nil
	g.mu.Unlock()
	if r.Measurement == nil && r.Unmeasured != "" && node != "" && r.History == nil && strings.Contains(r.Unmeasured, "no agent answers") {
		g.mu.Lock()
		g.silent[node] = r.Unmeasured
		g.mu.Unlock()
	}
	return g.known(r)
}

// known makes a disk of a report.
func (g *gather) known(r contract.DiskReport) (ledger.Disk, bool, error) {
	d := ledger.Disk{Facts: plan.FactsOf(r)}
	if g.sel.ClassTag != "" {
		d.Class = d.Facts.Tags[g.sel.ClassTag]
	}
	switch {
	case len(r.Facts.Active()) == 0:
		d.Unknown = "EC2 has no active volume of it"
	case r.Measurement == nil:
		d.Unknown = r.Unmeasured
		if d.Unknown == "" {
			d.Unknown = "its node did not answer"
		}
	case r.History == nil:
		d.Unknown = "its past cannot be read: " + r.Unread
		if r.Unread == "" {
			d.Unknown = "its past cannot be read: the control worker's version is older"
		}
	default:
		d.Hours = r.History.Hours
	}
	if g.sel.Namespace != "" && d.Facts.Namespace != g.sel.Namespace {
		return d, false, nil
	}
	return d, true, nil
}

func (g *gather) whySilent(node string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.silent[node]
}

// take waits for one of a node's slots, unless the node is known to answer. The
// caller gives back what it is given.
func (g *gather) take(ctx context.Context, node string) (give func(), err error) {
	g.mu.Lock()
	slot, alive := g.slots[node], g.alive[node]
	if slot == nil {
		slot = make(chan struct{}, perNode)
		g.slots[node] = slot
	}
	g.mu.Unlock()
	if alive {
		return func() {}, nil
	}
	select {
	case slot <- struct{}{}:
		return func() { <-slot }, nil
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), context.Cause(ctx))
	}
}
