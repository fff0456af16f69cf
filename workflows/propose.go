package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

const (
	// askedAgain is when an approved operation that found no room in the budgets asks
	// again, and how seldom at last: a week of that is 700 questions of ten events.
	askedAgain       = time.Minute
	askedAgainAtMost = 15 * time.Minute
	// approvalHolds at most as long.
	approvalHolds = 7 * 24 * time.Hour
	// rejectionsHold is the version since which a rejected proposal goes on.
	rejectionsHold = "rejections-hold"
)

// proposal is one run of Propose.
type proposal struct {
	in      fleet.Proposal
	p       fleet.Proposed
	answers int    // how many there were
	noted   string // the answer that the memo tells of
	closed  bool   // the operation begins, or the proposal is over: no answer counts any more
	// instead is what is to be asked instead of what was rejected.
	instead *fleet.Proposal
}

// Propose asks people to approve one operation and starts it when they do, as soon as
// the budgets and maintenance windows have room for it. It waits until the proposal
// expires; Rightsize makes another one then if it still holds. A rejection holds as
// long as this workflow goes on, since there is one for each disk: it may be taken
// back meanwhile, and Rightsize replaces it when it wants something else. The
// operation itself looks at the disk anew and refuses what does not fit any more.
func Propose(ctx workflow.Context, in fleet.Proposal) (fleet.Proposed, error) {
	d := in.Decision
	w := &proposal{in: in, p: fleet.Proposed{Decision: d, Expires: workflow.Now(ctx).Add(in.Expiry)}}
	if err := d.Disk.Validate(); err != nil || one(in) == nil {
		return w.p, temporal.NewNonRetryableApplicationError("a proposal wants a disk and either a grow, a shrink or a retype", string(contract.BadInput), err)
	}
	if err := w.listen(ctx); err != nil {
		return w.p, err
	}
	if in.Again { // the memo is still that of the proposal before
		w.remember(ctx, map[string]any{fleet.MemoAnswered: nil, "fromGiB": d.FromGiB, "toGiB": d.GiB, "reason": d.Reason, "savingUsdMonth": d.SavingUSDMonth})
	}
	w.show(ctx)
	answered, err := workflow.AwaitWithTimeout(ctx, in.Expiry, func() bool { return w.p.Answer != "" })
	if !answered {
		w.p.Answer, w.closed = fleet.Expired, true
	}
	for err == nil && !w.closed {
		if w.p.Answer == fleet.Approved {
			err = w.approved(ctx)
		} else {
			err = w.rejected(ctx)
		}
	}
	if err != nil {
		return w.p, err
	}
	w.show(ctx)
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return w.p, err
	}
	if w.instead != nil {
		return w.p, workflow.NewContinueAsNewError(ctx, contract.ProposeWorkflow, *w.instead)
	}
	return w.p, nil
}

// one is the input of the operation that is proposed; nil: there is none, or several.
func one(in fleet.Proposal) (input any) {
	n := 0
	if in.Grow != nil {
		input, n = in.Grow, n+1
	}
	if in.Shrink != nil {
		input, n = in.Shrink, n+1
	}
	if in.Retype != nil {
		input, n = in.Retype, n+1
	}
	if n != 1 {
		return nil
	}
	return input
}

// listen hears answers and what is to be asked instead.
func (w *proposal) listen(ctx workflow.Context) error {
	err := workflow.SetQueryHandler(ctx, contract.QueryProposal, func() (fleet.Proposed, error) { return w.p, nil })
	if err != nil {
		return err
	}
	for _, h := range [][2]string{{contract.UpdateApprove, fleet.Approved}, {contract.UpdateReject, fleet.Rejected}} {
		answer := h[1]
		err := workflow.SetUpdateHandlerWithOptions(ctx, h[0], func(ctx workflow.Context, a fleet.Answer) (fleet.Proposed, error) {
			w.answer(ctx, answer, a)
			return w.p, nil
		}, workflow.UpdateHandlerOptions{Validator: func(a fleet.Answer) error { return w.valid(answer, a) }})
		if err != nil {
			return err
		}
	}
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			var in fleet.Proposal
			if more := workflow.GetSignalChannel(ctx, contract.SignalReplace).Receive(ctx, &in); !more {
				return
			}
			if w.p.Answer == fleet.Rejected && !w.closed && fleet.Differs(w.in.Decision, in.Decision) {
				in.Again = true
				w.instead = &in
			}
		}
	})
	return nil
}

// valid refuses an answer that comes too late or says too little.
func (w *proposal) valid(answer string, a fleet.Answer) error {
	switch {
	case w.closed, answer == fleet.Approved && w.p.Answer == fleet.Approved && (w.p.Now || !a.Now):
		return fmt.Errorf("the proposal for disk %s is %s already", w.in.Decision.Disk, w.p.Answer)
	case strings.TrimSpace(a.By) == "" || len(a.By) > 128 || len(a.Note) > 1024:
		return errors.New(`want who answers, as {"by": "name"}, and a note of at most 1024 bytes`)
	case answer == fleet.Approved && a.For != 0, answer == fleet.Rejected && a.Now:
		return errors.New("a rejection may say for how long it holds, an approval that it is for now")
	case a.For < 0 || a.For > contract.MaxHold:
		return fmt.Errorf("a rejection holds for at most %d days", contract.MaxHold/(24*time.Hour))
	}
	return nil
}

func (w *proposal) answer(ctx workflow.Context, answer string, a fleet.Answer) {
	w.answers++
	w.instead = nil
	w.p.Answer, w.p.At, w.p.By, w.p.Note, w.p.Now = answer, workflow.Now(ctx), a.By, a.Note, a.Now
	w.p.Until, w.p.Waits = time.Time{}, ""
	if answer == fleet.Rejected {
		hold := a.For
		if hold == 0 {
			hold = w.in.Expiry
		}
		w.p.Until = w.p.At.Add(hold)
	}
	w.show(ctx)
}

// rejected waits until the rejection holds no longer, is taken back, or something else
// is to be asked.
func (w *proposal) rejected(ctx workflow.Context) error {
	if workflow.GetVersion(ctx, rejectionsHold, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		w.closed = true
		return nil
	}
	w.note(ctx)
	n := w.answers
	changed, err := workflow.AwaitWithTimeout(ctx, w.p.Until.Sub(workflow.Now(ctx)), func() bool { return w.answers > n || w.instead != nil })
	w.closed = !changed || w.instead != nil
	return err
}

// approved begins the operation as soon as there is room for it, unless the approval
// is taken back meanwhile.
func (w *proposal) approved(ctx workflow.Context) error {
	n, d := w.answers, w.in.Decision
	ask := fleet.Ask{Budgets: w.in.Budgets, Want: []plan.Decision{fleet.Brief(d)}}
	if !w.p.Now {
		ask.Windows = w.in.Windows
	}
	w.p.Expires = workflow.Now(ctx).Add(min(w.in.Expiry, approvalHolds))
	for pause := askedAgain; !d.Urgent && (ask.Budgets != (plan.Budgets{}) || len(ask.Windows) > 0); pause = min(2*pause, askedAgainAtMost) {
		ask.At = workflow.Now(ctx)
		room, err := fleet.TakeBudget.Execute(budgetControl(ctx), ask)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case w.answers > n:
			return nil
		}
		if err == nil && slices.Contains(room.Begin, d.Disk) {
			break
		}
		again := ask.At.Add(pause)
		if room.NotBefore.After(again) {
			again = room.NotBefore
		}
		w.p.Waits = waitsFor(room, err)
		if again.After(w.p.Expires) {
			w.p.Held, w.p.Waits, w.closed = "there was no room until it expired: it waited for "+w.p.Waits, "", true
			return nil
		}
		w.note(ctx)
		w.show(ctx)
		if _, err := workflow.AwaitWithTimeout(ctx, again.Sub(workflow.Now(ctx)), func() bool { return w.answers > n }); err != nil {
			return err
		}
		if w.answers > n {
			return nil
		}
	}
	w.p.Waits, w.closed = "", true
	if w.noted != "" {
		w.note(ctx)
	}
	w.begin(ctx)
	return nil
}

func waitsFor(room fleet.Room, err error) string {
	switch {
	case err != nil:
		return fmt.Sprintf("the budgets, which did not answer: %v", err)
	case !room.NotBefore.IsZero():
		return "a maintenance window: the next opens " + room.NotBefore.UTC().Format("2006-01-02 15:04 MST")
	case len(room.Held) > 0 && room.Held[0].Why == plan.WhyWindow:
		return "a maintenance window, and none ever opens"
	case len(room.Held) > 0:
		return "a budget: " + room.Held[0].Reason
	}
	return "a budget"
}

// begin starts the operation and waits for its end, so that the proposal tells what
// became of it.
func (w *proposal) begin(ctx workflow.Context) {
	input := one(w.in)
	f := workflow.ExecuteChildWorkflow(operationOptions(ctx, w.in.Decision, w.in.Workflow, w.p.By), w.in.Workflow, input)
	err := f.GetChildWorkflowExecution().Get(ctx, nil)
	switch {
	case runs(err):
		w.p.Held = "another operation runs on the disk; the next run of Rightsize proposes it again"
		return
	case err != nil:
		w.p.Held = err.Error()
		return
	}
	w.show(ctx)
	var out contract.Result
	if err := f.Get(ctx, &out); err != nil {
		w.p.Held = fmt.Sprintf("the operation failed: %v", err)
		return
	}
	w.p.Outcome = &out
}

// note has the memo tell of the answer that stands. What an approval waits for is
// told once.
func (w *proposal) note(ctx workflow.Context) {
	if w.noted == w.p.Answer && w.p.Answer == fleet.Approved {
		return
	}
	w.noted = w.p.Answer
	w.remember(ctx, map[string]any{fleet.MemoAnswered: w.p.Noted()})
}

func (w *proposal) remember(ctx workflow.Context, memo map[string]any) {
	if err := workflow.UpsertMemo(ctx, memo); err != nil {
		workflow.GetLogger(ctx).Warn("The memo was not set", "error", err)
	}
}

// show writes what the Temporal UI shows beside the workflow.
func (w *proposal) show(ctx workflow.Context) {
	p, d := w.p, w.p.Decision
	var b strings.Builder
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		b.WriteString(text)
	}
	line("### %s\n\n", d.Reason)
	line("Disk `%s` on node `%s`: %d GiB to **%d GiB**, saves $%.2f a month, costs $%.2f once.\n\n", d.Disk, d.Node, d.FromGiB, d.GiB, d.SavingUSDMonth, d.CostUSD)
	switch {
	case p.Answer == "":
		line("**Approve or reject** with an update (`approve`, `reject`) or `ebb approve %s`. Expires %s.\n", d.Disk, minutes(p.Expires))
	case p.Waits != "":
		line("- approved by %s, waits for %s\n- `reject` takes it back; expires %s\n", p.By, p.Waits, minutes(p.Expires))
	case p.Answer == fleet.Rejected && !w.closed:
		line("- rejected by %s; not proposed again until %s, unless it becomes another matter\n- `approve` takes it back\n", p.By, minutes(p.Until))
	case p.By != "":
		line("- %s by %s\n", p.Answer, p.By)
	default:
		line("- %s\n", p.Answer)
	}
	if p.Note != "" {
		line("- note: %s\n", p.Note)
	}
	if p.Held != "" {
		line("- not begun: %s\n", p.Held)
	}
	if p.Outcome != nil {
		line("- %s\n", p.Outcome.Outcome)
	}
	workflow.SetCurrentDetails(ctx, b.String())
}

func minutes(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }
