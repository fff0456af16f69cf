package control

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// proposalReaders is how many proposals are asked at a time.
const proposalReaders = 8

// Proposal is an operation that waits for an approval, or goes on after its answer.
type Proposal struct {
	fleet.Proposed
	Disk       Disk      `json:"-"`
	Since      time.Time `json:"since"`
	WorkflowID string    `json:"workflowId"`
}

// Proposals lists what waits for an approval, what is approved and waits for room, and
// what is rejected for now, by visibility, which may be a moment behind. One that does
// not answer is left out and counted in silent.
func (c *Client) Proposals(ctx context.Context) (out []Proposal, silent int, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var found []Proposal
	var page []byte
	for {
		res, err := c.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace: c.namespace, NextPageToken: page,
			Query: `WorkflowType = "` + contract.ProposeWorkflow + `" AND ExecutionStatus = "Running"`,
		})
		if err != nil {
			return nil, 0, c.callError("list the proposals", err)
		}
		for _, info := range res.GetExecutions() {
			found = append(found, Proposal{WorkflowID: info.GetExecution().GetWorkflowId(), Since: info.GetStartTime().AsTime()})
		}
		if page = res.GetNextPageToken(); len(page) == 0 {
			break
		}
	}
	if len(found) > 0 {
		if ok, err := c.HasWorker(ctx); err == nil && !ok {
			return nil, 0, errNoWorker()
		}
	}
	answered := make([]bool, len(found))
	limit := make(chan struct{}, proposalReaders)
	var all sync.WaitGroup
	for i := range found {
		all.Go(func() { // ends with ctx at the latest
			limit <- struct{}{}
			defer func() { <-limit }()
			p, err := c.askProposal(ctx, found[i].WorkflowID)
			found[i].Proposed, answered[i] = p, err == nil
		})
	}
	all.Wait()
	for i, p := range found {
		switch {
		case !answered[i]:
			silent++
		case p.Open(), p.Waiting(), p.Holds(time.Now()):
			p.Disk = Disk{ID: p.Decision.Disk, Node: p.Decision.Node}
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Proposal) int {
		if a.Decision.SavingUSDMonth != b.Decision.SavingUSDMonth {
			return map[bool]int{true: -1, false: 1}[a.Decision.SavingUSDMonth > b.Decision.SavingUSDMonth]
		}
		return a.Since.Compare(b.Since)
	})
	return out, silent, nil
}

func (c *Client) askProposal(ctx context.Context, workflowID string) (fleet.Proposed, error) {
	var p fleet.Proposed
	err := c.query(ctx, workflowID, "", contract.QueryProposal, &p)
	return p, err
}

// Proposal is what may be answered on a disk, again or for the first time;
// exit.NotFound, with a word on the last one, when nothing may.
func (c *Client) Proposal(ctx context.Context, d Disk) (Proposal, error) {
	out := Proposal{Disk: d, WorkflowID: contract.ProposeWorkflowID(d.ID)}
	none := func(format string, args ...any) error {
		return exit.New(exit.NotFound, "no proposal waits for disk %s"+format, append([]any{d}, args...)...).WithNext("ebb proposals")
	}
	p, err := c.askProposal(ctx, out.WorkflowID)
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &missing):
		return out, none("")
	case err != nil:
		if ok, werr := c.HasWorker(ctx); werr == nil && !ok {
			return out, errNoWorker()
		}
		return out, c.callError("ask for the proposal of disk "+d.String(), err)
	case p.Waiting(), p.Holds(time.Now()):
	case p.Answer != "" && p.By != "":
		return out, none("; the last one was %s by %s", p.Answer, p.By)
	case p.Answer != "":
		return out, none("; the last one %s", p.Answer)
	}
	out.Proposed = p
	return out, nil
}

// AnswerProposal approves or rejects (contract.UpdateApprove, UpdateReject), and
// returns when the proposal has taken the answer. exit.NotFound when it is over
// already, exit.Refused when it was answered before.
func (c *Client) AnswerProposal(ctx context.Context, d Disk, update string, a fleet.Answer) (fleet.Proposed, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	var p fleet.Proposed
	h, err := c.temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{
		WorkflowID: contract.ProposeWorkflowID(d.ID), UpdateName: update, Args: []any{a}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = h.Get(ctx, &p)
	}
	var missing *serviceerror.NotFound
	var refused *temporal.ApplicationError
	switch {
	case err == nil:
		return p, nil
	case errors.As(err, &missing):
		return p, exit.New(exit.NotFound, "no proposal waits for disk %s", d).WithNext("ebb proposals")
	case errors.As(err, &refused):
		return p, exit.New(exit.Refused, "%s", refused.Message()).WithNext("ebb proposals")
	}
	if ok, werr := c.HasWorker(context.WithoutCancel(ctx)); werr == nil && !ok {
		return p, errNoWorker()
	}
	return p, c.callError(update+" the proposal of disk "+d.String(), err)
}
