package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// Memo keys of an operation.
const (
	memoDisk    = "disk"
	memoName    = "name"
	memoBy      = "by"
	memoRequest = "request" // tells the run we started from one that ran already
)

// Operation is a workflow to start on a disk.
type Operation struct {
	Workflow string // a workflow type of internal/contract
	Disk     Disk
	Node     string // where it will work, when known
	Summary  string // one line for Temporal's UI
	Input    any
}

// Verb is what a person calls a workflow type: the command that starts it.
func Verb(workflow string) string {
	switch workflow {
	case contract.CreateDiskWorkflow:
		return "create"
	case contract.DeleteDiskWorkflow:
		return "delete"
	case contract.RehomeWorkflow:
		return "move"
	}
	return strings.ToLower(workflow)
}

// Run is a workflow run that can be followed.
type Run struct {
	Disk      Disk
	Operation string // workflow type
	run       client.WorkflowRun
}

// WorkflowID is the run's workflow id.
func (r *Run) WorkflowID() string { return r.run.GetID() }

// RunID is the run's id.
func (r *Run) RunID() string { return r.run.GetRunID() }

// interrupted says that Ctrl-C came before a call that is seen through once it is
// made, so that nobody is left in doubt about it.
func interrupted(ctx context.Context, left string, args ...any) error {
	if ctx.Err() == nil {
		return nil
	}
	return exit.New(exit.Detached, "interrupted; "+left, args...)
}

// Start starts an operation, or says which one runs already (exit.Busy). It
// finishes even when ctx is cancelled meanwhile, so that nobody is left in
// doubt whether it was started.
func (c *Client) Start(ctx context.Context, op Operation) (*Run, error) {
	if err := interrupted(ctx, "nothing was started"); err != nil {
		return nil, err
	}
	opts := c.options(op, newToken())
	opts.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL
	opts.WorkflowExecutionErrorWhenAlreadyStarted = true

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	run, err := c.temporal.ExecuteWorkflow(ctx, opts, op.Workflow, op.Input)
	if err != nil {
		return nil, c.startError(ctx, op, err)
	}
	return &Run{Disk: op.Disk, Operation: op.Workflow, run: run}, nil
}

// Move brings a disk to another node: by a workflow of its own, or by a signal
// to the operation that runs on the disk, in one atomic call. joined says that
// it was the latter.
func (c *Client) Move(ctx context.Context, op Operation) (run *Run, joined bool, err error) {
	if err := interrupted(ctx, "the move was not asked for"); err != nil {
		return nil, false, err
	}
	token := newToken()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	wr, err := c.temporal.SignalWithStartWorkflow(ctx, contract.WorkflowID(op.Disk.ID), contract.SignalRehome, op.Input,
		c.options(op, token), op.Workflow, op.Input)
	if err != nil {
		return nil, false, c.startError(ctx, op, err)
	}
	run = &Run{Disk: op.Disk, Operation: op.Workflow, run: wr}
	d, err := c.temporal.DescribeWorkflowExecution(ctx, wr.GetID(), wr.GetRunID())
	if err != nil {
		err = c.callError("look at it", err)
		return run, false, exit.New(exit.CodeOf(err), "the move of disk %s was asked for, but not seen", op.Disk).Because(err).
			WithNext("ebb watch %s", op.Disk.Ref())
	}
	info := d.GetWorkflowExecutionInfo()
	run.Operation = info.GetType().GetName()
	return run, c.memo(info.GetMemo().GetFields(), memoRequest) != token, nil
}

func (c *Client) options(op Operation, token string) client.StartWorkflowOptions {
	attrs := []temporal.SearchAttributeUpdate{
		keyword(contract.AttrDisk).ValueSet(string(op.Disk.ID)),
		keyword(contract.AttrOperation).ValueSet(op.Workflow),
		keyword(contract.AttrPhase).ValueSet(string(contract.PhaseCheck)),
	}
	memo := map[string]any{memoDisk: op.Disk.ID, memoBy: c.identity, memoRequest: token}
	if op.Disk.Name != "" {
		attrs = append(attrs, keyword(contract.AttrClaim).ValueSet(op.Disk.Name))
		memo[memoName] = op.Disk.Name
	}
	if op.Node != "" {
		attrs = append(attrs, keyword(contract.AttrNode).ValueSet(op.Node))
	}
	return client.StartWorkflowOptions{
		ID:                    contract.WorkflowID(op.Disk.ID),
		TaskQueue:             contract.ControlQueue,
		Memo:                  memo,
		TypedSearchAttributes: temporal.NewSearchAttributes(attrs...),
		StaticSummary:         op.Summary,
	}
}

// startError explains why an operation was not started.
func (c *Client) startError(ctx context.Context, op Operation, err error) error {
	var started *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &started) {
		return c.busyError(ctx, op.Disk)
	}
	var invalid *serviceerror.InvalidArgument
	if errors.As(err, &invalid) && strings.Contains(strings.ToLower(invalid.Message), "search attribute") {
		return exit.New(exit.Failed, "the namespace %s is not set up for Ebb", c.namespace).Because(err).
			WithNext("ebb setup")
	}
	return c.callError("start "+op.Workflow, err)
}

// busyError names the operation that holds the disk.
func (c *Client) busyError(ctx context.Context, d Disk) error {
	running, err := c.Running(ctx, d)
	if err != nil {
		// It ended, or cannot be asked; either way the answer is the same.
		return exit.New(exit.Busy, "another operation runs on disk %s", d).WithNext("ebb watch %s", d.Ref())
	}
	return exit.New(exit.Busy, "%s", running).
		WithNext("watch it with: ebb watch %s; stop it with: ebb cancel %s", d.Ref(), d.Ref())
}

func keyword(name string) temporal.SearchAttributeKeyKeyword {
	return temporal.NewSearchAttributeKeyKeyword(name)
}

// newToken is 17 hexadecimal digits of chance, as AWS ids have.
func newToken() string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])[:17]
}

// NewDiskID makes up a disk id.
func NewDiskID() contract.DiskID { return contract.DiskID("d-" + newToken()) }
