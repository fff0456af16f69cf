package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// Running is an operation that runs on a disk, as Temporal shows it.
type Running struct {
	Disk      Disk           `json:"-"`
	Operation string         `json:"operation"`
	Phase     contract.Phase `json:"phase,omitempty"`
	Paused    bool           `json:"paused,omitempty"`
	Since     time.Time      `json:"since"`
	By        string         `json:"by,omitempty"`
	RunID     string         `json:"runId"`
}

// String is the sentence that names it.
func (r Running) String() string {
	s := fmt.Sprintf("%s is running on disk %s since %s", Verb(r.Operation), r.Disk, r.Since.Local().Format(time.DateTime))
	if r.Phase != "" {
		s += ", in phase " + string(r.Phase)
	}
	if r.Paused {
		s += ", paused"
	}
	return s
}

// Running finds the operation that runs on a disk; exit.NotFound when none
// does, with a word on the last one.
func (c *Client) Running(ctx context.Context, d Disk) (Running, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	desc, err := c.temporal.DescribeWorkflowExecution(ctx, contract.WorkflowID(d.ID), "")
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return Running{}, exit.New(exit.NotFound, "no operation runs on disk %s", d)
	}
	if err != nil {
		return Running{}, c.callError("describe the operation", err)
	}
	info := desc.GetWorkflowExecutionInfo()
	if info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return Running{}, exit.New(exit.NotFound, "no operation runs on disk %s; the last one, %s, ended %s (%s)",
			d, Verb(info.GetType().GetName()), info.GetCloseTime().AsTime().Local().Format(time.DateTime),
			strings.ToLower(info.GetStatus().String()))
	}
	r := c.running(info)
	if r.Disk.Name == "" {
		r.Disk.Name = d.Name
	}
	if p, err := c.progress(ctx, r.RunID, d.ID); err == nil {
		r.Phase, r.Paused = p.Phase, p.Paused
	}
	return r, nil
}

// AllRunning finds the operations that run, by disk. It reads Temporal's
// visibility store, which may be a moment behind.
func (c *Client) AllRunning(ctx context.Context) (map[contract.DiskID]Running, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out := map[contract.DiskID]Running{}
	var page []byte
	for {
		res, err := c.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Namespace:     c.namespace,
			Query:         `WorkflowId STARTS_WITH "disk/" AND ExecutionStatus = "Running"`,
			NextPageToken: page,
		})
		if err != nil {
			return nil, c.callError("list the running operations", err)
		}
		for _, info := range res.GetExecutions() {
			r := c.running(info)
			out[r.Disk.ID] = r
		}
		if page = res.GetNextPageToken(); len(page) == 0 {
			return out, nil
		}
	}
}

// running reads what Temporal keeps beside the history.
func (c *Client) running(info *workflowpb.WorkflowExecutionInfo) Running {
	memo := info.GetMemo().GetFields()
	id, _ := strings.CutPrefix(info.GetExecution().GetWorkflowId(), "disk/")
	attrs := info.GetSearchAttributes().GetIndexedFields()
	r := Running{
		Disk:      Disk{ID: contract.DiskID(id), Name: c.memo(memo, memoName), Node: c.memo(attrs, contract.AttrNode)},
		Operation: info.GetType().GetName(),
		Phase:     contract.Phase(c.memo(attrs, contract.AttrPhase)),
		Since:     info.GetStartTime().AsTime(),
		By:        c.memo(memo, memoBy),
		RunID:     info.GetExecution().GetRunId(),
	}
	if r.Disk.Name == "" {
		r.Disk.Name = c.memo(attrs, contract.AttrClaim)
	}
	return r
}

// memo reads a string out of payloads, "" when it is not there or not one.
func (c *Client) memo(fields map[string]*commonpb.Payload, key string) string {
	var s string
	if p, ok := fields[key]; ok && c.decode.FromPayload(p, &s) != nil {
		return ""
	}
	return s
}

// progress asks a run how far it is. It needs a worker, so it may take a while
// to fail.
func (c *Client) progress(ctx context.Context, runID string, d contract.DiskID) (contract.Progress, error) {
	var p contract.Progress
	err := c.queryOnce(ctx, shownWithin, contract.WorkflowID(d), runID, contract.QueryProgress, &p)
	return p, err
}

// Progress asks the operation that runs on a disk, or ran last, how far it is.
func (c *Client) Progress(ctx context.Context, d Disk) (contract.Progress, error) {
	var p contract.Progress
	err := c.query(ctx, contract.WorkflowID(d.ID), "", contract.QueryProgress, &p)
	return p, c.callError("query progress", err)
}

// Signal sends a signal to an operation, and to no later one of the disk;
// exit.NotFound when it has ended meanwhile. An operation is one run: none
// continues as new.
func (c *Client) Signal(ctx context.Context, r Running, signal string, payload any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.temporal.SignalWorkflow(ctx, contract.WorkflowID(r.Disk.ID), r.RunID, signal, payload)
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return exit.New(exit.NotFound, "the %s of disk %s has ended meanwhile; it was not told to %s", Verb(r.Operation), r.Disk, signal)
	}
	return c.callError("signal "+signal, err)
}

// Attach finds the operation that runs on a disk, to follow it.
func (c *Client) Attach(ctx context.Context, d Disk) (*Run, Running, error) {
	r, err := c.Running(ctx, d)
	if err != nil {
		return nil, r, err
	}
	return &Run{Disk: r.Disk, Operation: r.Operation, run: c.temporal.GetWorkflow(ctx, contract.WorkflowID(d.ID), r.RunID)}, r, nil
}
