package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// What ends a step early. Both never leave the package.
var (
	// errCancelled: the operation was asked to stop, by signal or by Temporal.
	errCancelled = errors.New("cancelled")
	// errYield: a rehome waits; the step is run again afterwards.
	errYield = errors.New("a rehome waits")
	// errTurnBack: a cancelled rehome goes back to where it came from.
	errTurnBack = errors.New("the disk goes back")
	// errNoAnswer: a call was taken out of the queue of a node that did not take
	// it, to look anew at what to do.
	errNoAnswer = errors.New("no agent took the call")
	// errSilent: a node was waited for as long as the operation may.
	errSilent = errors.New("no agent has answered")
	// errCommitted: an undo found that the move had been committed.
	errCommitted = errors.New("the move is committed")
)

// operation is the state every disk workflow has. All of it belongs to the
// workflow's coroutines, which never run at the same time.
type operation struct {
	disk contract.DiskID
	set  contract.Settings
	plan plan.Policy
	// patience is how long the present growth waits for EBS to modify a volume.
	patience time.Duration
	// run names this operation's own volumes and snapshots in EC2's tags and is
	// the id of its move. It survives a reset of the workflow.
	run string

	node     string           // where the disk is; node calls go there
	phases   []contract.Phase // in order, for "step 3 of 10"
	progress contract.Progress
	result   contract.Result
	shown    contract.Progress // as the search attributes have it

	signals signals

	mu      workflow.Mutex // held by whoever changes the disk's backing or place
	undos   []undo
	undoing bool
	// final: past the point of no return; a cancel is ignored.
	final bool
	// abandon, when set, makes the running move give up: its pool cannot grow.
	abandon *contract.Refusal
	// appending is a volume made for the active backing that is not known to be
	// part of it yet.
	appending *contract.VolumeFacts

	modified []time.Time // when the disk's volumes were modified lately, as EC2's tags and this operation know

	lostAt   time.Time // since when the node has not answered; zero while it does
	assemble bool      // the node was lost: assemble before the next call
	hauling  bool      // the disk is between two nodes: a cancel alone does not leave it there
	home     string    // while hauling: where it can be brought back to; empty when nowhere
	turned   bool      // while hauling: a cancel was heard by whoever waits for the new node
	rehomed  bool      // a rehome signal was carried out
	closing  bool      // the room maker shall end
	made     int       // how often it has made room
}

// undo is one registered compensation.
type undo struct {
	what string
	fn   func(workflow.Context) error
}

// header is what operations differ in before they begin.
type header struct {
	name   string
	disk   contract.DiskID
	set    contract.Settings
	input  error // what Validate said
	phases []contract.Phase
}

// operate runs body as an operation. Body works on a context that Temporal's
// cancellation does not reach: a cancel is noticed at the next step, or in a
// long call, and everything is undone in order.
func operate(root workflow.Context, h header, body func(workflow.Context, *operation) error) (contract.Result, error) {
	op := &operation{
		disk: h.disk, set: h.set.WithDefaults(), plan: plan.PolicyOf(h.set), run: runID(root), phases: h.phases,
		progress: contract.Progress{Disk: h.disk, Operation: h.name, Phase: contract.PhaseCheck, Step: 1, Steps: len(h.phases)},
		result:   contract.Result{Disk: h.disk, Operation: h.name},
		mu:       workflow.NewMutex(root),
	}
	op.patience = op.set.ModifyPatience
	err := workflow.SetQueryHandler(root, contract.QueryProgress, func() (contract.Progress, error) { return op.progress, nil })
	if err != nil {
		return contract.Result{}, err
	}
	if r := badInput(h.input); r != nil {
		op.progress.Refusal, op.result.Refusal, op.result.Outcome = r, r, contract.Refused
		return op.result, nil
	}
	ctx, _ := workflow.NewDisconnectedContext(root)
	op.signals.listen(root, ctx, op)
	op.enter(ctx, contract.PhaseCheck)

	err = body(ctx, op)
	return op.finish(ctx, err)
}

func badInput(err error) *contract.Refusal {
	if err == nil {
		return nil
	}
	return contract.Refuse(contract.BadInput, "%v", err).WithNext("correct the input and start again")
}

// noActive is what to do about a disk without an active volume.
const noActive = "look at the ebb:role tags of the disk's volumes in EC2 (ebb disk show); the headers on them are the truth"

// finish undoes what a failed body left, serves signals that came late, and
// turns the end into a result.
func (op *operation) finish(ctx workflow.Context, err error) (contract.Result, error) {
	op.result.Node = op.node
	if err != nil {
		if uerr := op.compensate(ctx); uerr != nil {
			err = fmt.Errorf("%s of disk %s: %w; undoing it stopped, what is left stays for the next operation: %w", op.progress.Operation, op.disk, err, uerr)
			op.show(ctx)
			return contract.Result{}, err
		}
	}
	op.serveLate(ctx)
	op.settleAppend(ctx)
	op.result.Node = op.node
	r, refused := contract.AsRefusal(err)
	switch {
	case err == nil:
		op.result.Outcome = contract.Done
		if op.result.Steps != nil {
			op.result.Outcome = contract.Planned
		}
	case errors.Is(err, errCancelled):
		op.result.Outcome = contract.Cancelled
	case refused:
		if r.Disk == "" {
			r.Disk = op.disk
		}
		op.progress.Refusal, op.result.Refusal, op.result.Outcome = r, r, contract.Refused
	default:
		return contract.Result{}, fmt.Errorf("%s of disk %s in phase %s: %w", op.progress.Operation, op.disk, op.progress.Phase, err)
	}
	op.enter(ctx, contract.PhaseDone)
	return op.result, nil
}

// runID is the same before and after a reset.
func runID(ctx workflow.Context) string {
	info := workflow.GetInfo(ctx)
	if info.OriginalRunID != "" {
		return info.OriginalRunID
	}
	return info.WorkflowExecution.RunID
}

// located finds the disk in EC2 and the node it is attached to. What EC2 does
// not show is looked for once more: its describes lag behind what was done a
// moment ago.
func (op *operation) located(ctx workflow.Context) (contract.DiskFacts, error) {
	facts, err := control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
	if err == nil && facts.Node() == "" {
		if err = workflow.Sleep(ctx, lookAgain); err == nil {
			facts, err = control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
		}
	}
	if err != nil {
		return facts, err
	}
	if len(facts.Volumes) == 0 {
		return facts, contract.Refuse(contract.DiskUnknown, "EC2 has no volume tagged with this disk").
			WithDisk(op.disk).WithNext("list the disks: ebb disk list")
	}
	op.node = facts.Node()
	op.progress.Node = op.node
	op.modified = nil
	if active := facts.Active(); len(active) > 0 {
		op.modified = slices.Clone(active[0].Modified)
	}
	return facts, nil
}

// attachedFacts is located, refused when the disk is attached nowhere.
func (op *operation) attachedFacts(ctx workflow.Context) (contract.DiskFacts, error) {
	facts, err := op.located(ctx)
	if err == nil && op.node == "" {
		err = contract.Refuse(contract.NodeUnknown, "the disk is attached to no instance").
			WithDisk(op.disk).WithNext("bring it to a node: ebb disk move --node")
	}
	return facts, err
}
