package workflows

import (
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

// Answers to a proposal.
const (
	approved = "approved"
	rejected = "rejected"
	expired  = "expired"
)

// Propose asks people to approve one operation and starts it when they do. It
// waits until the proposal expires; Rightsize makes another one then if it still
// holds. The operation itself looks at the disk anew and refuses what does not fit
// any more.
func Propose(ctx workflow.Context, in fleet.Proposal) (fleet.Proposed, error) {
	d := in.Decision
	p := fleet.Proposed{Decision: d, Expires: workflow.Now(ctx).Add(in.Expiry)}
	if err := d.Disk.Validate(); err != nil || (in.Grow == nil) == (in.Shrink == nil) {
		return p, temporal.NewNonRetryableApplicationError("a proposal wants a disk and either a grow or a shrink", string(contract.BadInput), err)
	}
	err := workflow.SetQueryHandler(ctx, contract.QueryProposal, func() (fleet.Proposed, error) { return p, nil })
	if err != nil {
		return p, err
	}
	for _, h := range [][2]string{{contract.UpdateApprove, approved}, {contract.UpdateReject, rejected}} {
		name, answer := h[0], h[1]
		err := workflow.SetUpdateHandlerWithOptions(ctx, name, func(ctx workflow.Context, a fleet.Answer) (fleet.Proposed, error) {
			p.Answer, p.By, p.Note = answer, a.By, a.Note
			showProposal(ctx, p)
			return p, nil
		}, workflow.UpdateHandlerOptions{Validator: func(a fleet.Answer) error {
			switch {
			case p.Answer != "":
				return fmt.Errorf("the proposal for disk %s is %s already", d.Disk, p.Answer)
			case strings.TrimSpace(a.By) == "" || len(a.By) > 128 || len(a.Note) > 1024:
				return errors.New(`want who answers, as {"by": "name"}, and a note of at most 1024 bytes`)
			}
			return nil
		}})
		if err != nil {
			return p, err
		}
	}
	showProposal(ctx, p)
	answered, err := workflow.AwaitWithTimeout(ctx, in.Expiry, func() bool { return p.Answer != "" })
	if err != nil {
		return p, err
	}
	if !answered {
		p.Answer = expired
	}
	if p.Answer == approved {
		beginProposed(ctx, in, &p)
	}
	showProposal(ctx, p)
	err = workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) })
	return p, err
}

// beginProposed starts the operation and waits for its end, so that the proposal
// tells what became of it.
func beginProposed(ctx workflow.Context, in fleet.Proposal, p *fleet.Proposed) {
	d := in.Decision
	var input any = in.Grow
	if in.Shrink != nil {
		input = in.Shrink
	}
	f := workflow.ExecuteChildWorkflow(operationOptions(ctx, d, in.Workflow, p.By), in.Workflow, input)
	err := f.GetChildWorkflowExecution().Get(ctx, nil)
	switch {
	case runs(err):
		p.Held = "another operation runs on the disk; the next run of Rightsize proposes it again"
		return
	case err != nil:
		p.Held = err.Error()
		return
	}
	showProposal(ctx, *p)
	var out contract.Result
	if err := f.Get(ctx, &out); err != nil {
		p.Held = fmt.Sprintf("the operation failed: %v", err)
		return
	}
	p.Outcome = &out
}

// showProposal writes what the Temporal UI shows beside the workflow.
func showProposal(ctx workflow.Context, p fleet.Proposed) {
	d := p.Decision
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", d.Reason)
	fmt.Fprintf(&b, "Disk `%s` on node `%s`: %d GiB to **%d GiB**, saves $%.2f a month, costs $%.2f once.\n\n", d.Disk, d.Node, d.FromGiB, d.GiB, d.SavingUSDMonth, d.CostUSD)
	switch {
	case p.Answer == "":
		fmt.Fprintf(&b, "**Approve or reject** with an update (`approve`, `reject`) or `ebb approve %s`. Expires %s.\n", d.Disk, p.Expires.UTC().Format("2006-01-02 15:04 MST"))
	case p.By != "":
		fmt.Fprintf(&b, "- %s by %s %s\n", p.Answer, p.By, p.Note)
	default:
		fmt.Fprintf(&b, "- %s\n", p.Answer)
	}
	if p.Held != "" {
		fmt.Fprintf(&b, "- not begun: %s\n", p.Held)
	}
	if p.Outcome != nil {
		fmt.Fprintf(&b, "- %s\n", p.Outcome.Outcome)
	}
	workflow.SetCurrentDetails(ctx, b.String())
}
