// Package fleet gathers what a whole fleet looks like, for the commands that show
// it: its disks with what their nodes measure and remember, and the operations
// Temporal knows. It asks through internal control alone, so many at once and no
// more, and a node that does not answer costs its own disks only.
package fleet

import (
	"context"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/ledger"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/starter/internal/control"
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

// asks is how many questions are asked at once.
const asks = 32

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
	in.Disks, err = newGather(src, sel, since, now, len(all), step).disks(ctx, all)
	if err != nil {
		return in, err
	}
	in.Retired, in.Snapshots, in.Retention, in.Unread = past.Retired, past.Snapshots, past.Retention, past.Unread
	if past.Cut {
		in.Cut = control.MostPast
	}
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
	switch d.Wanted {
	case plan.Shrink:
		o.Workflow = contract.ShrinkWorkflow
	case plan.Retype:
		o.Workflow = contract.RetypeWorkflow
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
		o.Outcome, o.Reason = report.OutcomeUnread, "it ended; its result could not be read"
	}
	return o
}
