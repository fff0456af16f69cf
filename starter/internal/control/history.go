package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

// Bounds of what is read of the past.
const (
	// pastTimeout bounds all of it.
	pastTimeout = 5 * time.Minute
	// readers is how many results are read at once.
	readers = 16
	// MostPast is how many ended operations are read at most, the latest ones.
	MostPast = 50_000
)

// Past is what Temporal remembers of operations.
type Past struct {
	Operations []Ended
	// Turned are proposals that nobody approved in time, or somebody rejected.
	Turned []Turned
	// Retired says when retired volumes were deleted, by volume; zero: they still
	// wait.
	Retired map[string]time.Time
	// Snapshots says when Reap deleted snapshots, by id.
	Snapshots map[string]time.Time
	// Looked is the totals of the last run of Rightsize that ended; nil when none did.
	Looked   *contract.Totals
	LookedAt time.Time
	// Retention is how long the namespace keeps what has ended.
	Retention time.Duration
	// Cut says that there was more than MostPast.
	Cut bool
	// Unread counts operations whose result could not be read.
	Unread int
}

// Ended is an operation that has ended, or still runs.
type Ended struct {
	Disk     Disk
	Workflow string
	Status   enumspb.WorkflowExecutionStatus
	Began    time.Time
	Ended    time.Time // zero: it runs
	By       string
	Reason   string // from its memo; of a failure, what failed
	FromGiB  int64
	ToGiB    int64
	Result   *contract.Result // nil when there is none
	runID    string
}

// Turned is a proposal that led to nothing.
type Turned struct {
	fleet.Proposed
	Began, Ended time.Time
}

// Past reads the operations that ended since a time, and those that run, from
// Temporal's visibility store, and the results of the ended ones from their
// histories. A result that cannot be read is counted, and is no error.
func (c *Client) Past(ctx context.Context, since time.Time) (*Past, error) {
	ctx, cancel := context.WithTimeout(ctx, pastTimeout)
	defer cancel()
	p := &Past{Retired: map[string]time.Time{}, Snapshots: map[string]time.Time{}}
	ns, err := c.temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: c.namespace})
	if err != nil {
		return nil, c.callError("describe the namespace", err)
	}
	p.Retention = ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()

	// 1. Operations.
	if err := c.operations(ctx, p, since); err != nil {
		return nil, err
	}
	c.results(ctx, p)

	// 2. Retired volumes. Older servers have no OR over these; two lists do.
	err = c.since(ctx, `WorkflowId STARTS_WITH "retire/"`, since, func(info *workflowpb.WorkflowExecutionInfo) bool {
		volume, _ := strings.CutPrefix(info.GetExecution().GetWorkflowId(), "retire/")
		var end time.Time
		if info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			end = info.GetCloseTime().AsTime()
		}
		if _, seen := p.Retired[volume]; !seen { // the latest run comes first
			p.Retired[volume] = end
		}
		return true
	})
	if err != nil {
		return nil, err
	}

	// 3. Proposals.
	err = c.since(ctx, fmt.Sprintf("WorkflowType = %q", contract.ProposeWorkflow), since, func(info *workflowpb.WorkflowExecutionInfo) bool {
		t := Turned{Began: info.GetStartTime().AsTime(), Ended: info.GetCloseTime().AsTime()}
		switch info.GetStatus() {
		case enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED:
			if !c.get(ctx, info, &t.Proposed) {
				return true
			}
		case enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: // it goes on after its answer
			m := info.GetMemo().GetFields()[fleet.MemoAnswered]
			if m == nil || c.decode.FromPayload(m, &t.Proposed) != nil || t.Answer != fleet.Rejected {
				return true
			}
		default:
			return true
		}
		if !t.At.IsZero() {
			t.Ended = t.At
		}
		if t.Outcome == nil && t.Answer != fleet.Approved && !t.Ended.Before(since) {
			p.Turned = append(p.Turned, t)
		}
		return true
	})
	if err != nil {
		return nil, err
	}

	// 4. Runs over the fleet.
	return p, c.runs(ctx, p, since)
}

// operations lists them.
func (c *Client) operations(ctx context.Context, p *Past, since time.Time) error {
	return c.since(ctx, `WorkflowId STARTS_WITH "disk/"`, since, func(info *workflowpb.WorkflowExecutionInfo) bool {
		if info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW {
			return true // the run it went on as is the operation
		}
		if len(p.Operations) == MostPast {
			p.Cut = true
			return false
		}
		r := c.running(info)
		memo := info.GetMemo().GetFields()
		e := Ended{
			Disk: r.Disk, Workflow: r.Operation, Status: info.GetStatus(), Began: r.Since, By: r.By,
			Reason: c.memo(memo, "reason"), FromGiB: c.number(memo, "fromGiB"), ToGiB: c.number(memo, "toGiB"), runID: r.RunID,
		}
		if e.Status != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
			e.Ended = info.GetCloseTime().AsTime()
		}
		p.Operations = append(p.Operations, e)
		return true
	})
}

// since lists what runs, and what ended since a time, the latest first.
func (c *Client) since(ctx context.Context, query string, since time.Time, each func(*workflowpb.WorkflowExecutionInfo) bool) error {
	for _, when := range []string{
		`ExecutionStatus = "Running"`,
		fmt.Sprintf(`ExecutionStatus != "Running" AND CloseTime >= %q`, since.UTC().Format(time.RFC3339)),
	} {
		var page []byte
		for {
			res, err := c.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
				Namespace: c.namespace, Query: query + " AND " + when, NextPageToken: page, PageSize: 1000,
			})
			if err != nil {
				return c.callError("list the operations", err)
			}
			for _, info := range res.GetExecutions() {
				if !each(info) {
					return nil
				}
			}
			if page = res.GetNextPageToken(); len(page) == 0 {
				break
			}
		}
	}
	return nil
}

// results reads what the ended operations ended with, several at once.
func (c *Client) results(ctx context.Context, p *Past) {
	next := make(chan *Ended)
	var all sync.WaitGroup
	var mu sync.Mutex
	for range readers {
		all.Go(func() {
			for e := range next {
				if !c.result(ctx, contract.WorkflowID(e.Disk.ID), e) {
					mu.Lock()
					p.Unread++
					mu.Unlock()
				}
			}
		})
	}
	for i := range p.Operations {
		if !p.Operations[i].Ended.IsZero() {
			next <- &p.Operations[i]
		}
	}
	close(next)
	all.Wait()
}

// result reads one, and says whether what came of the operation is known.
func (c *Client) result(ctx context.Context, id string, e *Ended) bool {
	if e.Status == enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED {
		e.Reason = "terminated"
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var r contract.Result
	err := c.temporal.GetWorkflow(ctx, id, e.runID).Get(ctx, &r)
	if err == nil {
		e.Result = &r
		return true
	}
	var (
		app     *temporal.ApplicationError
		ended   *temporal.WorkflowExecutionError
		timeout *temporal.TimeoutError
	)
	switch {
	case errors.As(err, &app):
		e.Reason = app.Message()
	case errors.As(err, &timeout):
		e.Reason = "timed out"
	case errors.As(err, &ended):
		e.Reason = strings.ToLower(e.Status.String())
	default:
		return false
	}
	return true
}

// runs reads what Reap deleted and what Rightsize saw last.
func (c *Client) runs(ctx context.Context, p *Past, since time.Time) error {
	err := c.since(ctx, fmt.Sprintf("WorkflowType = %q", contract.ReapWorkflow), since, func(info *workflowpb.WorkflowExecutionInfo) bool {
		var r contract.ReapResult
		if info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED && c.get(ctx, info, &r) {
			for _, f := range r.Fates {
				if f.Deleted && f.Snapshot != "" {
					p.Snapshots[f.Snapshot] = info.GetCloseTime().AsTime()
				}
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return c.since(ctx, fmt.Sprintf("WorkflowType = %q", contract.RightsizeWorkflow), since, func(info *workflowpb.WorkflowExecutionInfo) bool {
		var r contract.RightsizeResult
		if info.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED || !c.get(ctx, info, &r) || r.Refusal != nil {
			return true
		}
		p.Looked, p.LookedAt = &r.Totals, info.GetCloseTime().AsTime()
		return false
	})
}

// get reads the result of a run that has ended.
func (c *Client) get(ctx context.Context, info *workflowpb.WorkflowExecutionInfo, out any) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	e := info.GetExecution()
	return c.temporal.GetWorkflow(ctx, e.GetWorkflowId(), e.GetRunId()).Get(ctx, out) == nil
}

// number reads a whole number out of payloads, 0 when it is not there or not one.
func (c *Client) number(fields map[string]*commonpb.Payload, key string) int64 {
	var n int64
	if p, ok := fields[key]; ok && c.decode.FromPayload(p, &n) != nil {
		return 0
	}
	return n
}
