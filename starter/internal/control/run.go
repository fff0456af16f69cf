package control

import (
	"context"
	"errors"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// FleetRun is a run of Rightsize or Reap and what became of it.
type FleetRun struct {
	Execution
	Status string     `json:"status"`          // running, completed, failed, ...
	Ended  *time.Time `json:"ended,omitempty"` // nil: it runs
	Error  string     `json:"error,omitempty"` // of one that failed
	// One of these, of a run that completed.
	Rightsize *contract.RightsizeResult `json:"rightsize,omitempty"`
	Reap      *contract.ReapResult      `json:"reap,omitempty"`
}

// FleetRun reads a run and, when it has ended, its result.
func (c *Client) FleetRun(ctx context.Context, e Execution) (FleetRun, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out := FleetRun{Execution: e}
	d, err := c.temporal.DescribeWorkflowExecution(ctx, e.WorkflowID, e.RunID)
	if err != nil {
		return out, c.callError("read the run "+e.WorkflowID, err)
	}
	info := d.GetWorkflowExecutionInfo()
	out.Status, out.At, out.RunID = status(info.GetStatus()), info.GetStartTime().AsTime(), info.GetExecution().GetRunId()
	if info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return out, nil
	}
	end := info.GetCloseTime().AsTime()
	out.Ended = &end
	var result any
	if info.GetType().GetName() == contract.ReapWorkflow {
		out.Reap = &contract.ReapResult{}
		result = out.Reap
	} else {
		out.Rightsize = &contract.RightsizeResult{}
		result = out.Rightsize
	}
	if err := c.temporal.GetWorkflow(ctx, e.WorkflowID, out.RunID).Get(ctx, result); err != nil {
		out.Rightsize, out.Reap, out.Error = nil, nil, rootMessage(err)
		if why := c.ended(ctx, out.Execution); why != "" {
			out.Error = "ended: " + why
		}
	}
	return out, nil
}

// ended is why somebody ended a run; empty: nobody did.
func (c *Client) ended(ctx context.Context, e Execution) string {
	h := c.temporal.GetWorkflowHistory(ctx, e.WorkflowID, e.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT)
	why := ""
	for h.HasNext() {
		ev, err := h.Next()
		if err != nil {
			return ""
		}
		why = ev.GetWorkflowExecutionTerminatedEventAttributes().GetReason()
	}
	return why
}

func status(s enumspb.WorkflowExecutionStatus) string { return strings.ToLower(s.String()) }

// rootMessage is what a workflow's failure is about.
func rootMessage(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Message()
	}
	var failed *temporal.WorkflowExecutionError
	if errors.As(err, &failed) && failed.Unwrap() != nil {
		return failed.Unwrap().Error()
	}
	return err.Error()
}

// StartFleetRun starts a run besides the schedule's. Its id begins with prefix.
func (c *Client) StartFleetRun(ctx context.Context, workflow, prefix, summary string, in any) (Execution, error) {
	if err := interrupted(ctx, "no run was started"); err != nil {
		return Execution{}, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	run, err := c.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: prefix + newToken(), TaskQueue: contract.ControlQueue, WorkflowExecutionTimeout: runTimeout,
		StaticSummary: summary, Memo: map[string]any{memoBy: c.identity},
	}, workflow, in)
	if err != nil {
		return Execution{}, c.callError("start "+workflow, err)
	}
	return Execution{WorkflowID: run.GetID(), RunID: run.GetRunID(), At: time.Now()}, nil
}

// CancelRun asks a run to stop; EndRun ends it at once. Neither touches operations
// it has begun, but a cancelled Rightsize cancels those it still follows.
func (c *Client) CancelRun(ctx context.Context, e Execution) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	return c.callError("cancel the run "+e.WorkflowID, c.temporal.CancelWorkflow(ctx, e.WorkflowID, e.RunID))
}

// EndRun ends a run at once and leaves what it has begun running; exit.NotFound
// when it has ended by itself.
func (c *Client) EndRun(ctx context.Context, e Execution, why string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	err := c.temporal.TerminateWorkflow(ctx, e.WorkflowID, e.RunID, why)
	var none *serviceerror.NotFound
	switch {
	case err == nil:
		return nil
	case errors.As(err, &none):
		return exit.New(exit.NotFound, "the run %s has ended", e)
	}
	err = c.callError("end the run", err)
	return exit.New(exit.CodeOf(err), "the run %s goes on, and may start more operations", e).Because(err).
		WithNext("temporal workflow terminate --namespace %s --workflow-id %s --run-id %s", c.namespace, e.WorkflowID, e.RunID)
}

// RunState is how far a run is.
type RunState struct {
	// Phase and Facts are its own account of itself, by lines.
	Phase   string   `json:"phase,omitempty"`
	Facts   []string `json:"facts,omitempty"`
	Trouble string   `json:"trouble,omitempty"`
}

// FollowRun calls show about every interval until the run ends, and reads its
// result into out. A run that is refused returns no error: its result says it.
func (c *Client) FollowRun(ctx context.Context, e Execution, every time.Duration, show func(RunState), out any) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { // ends with ctx at the latest
		ended <- c.temporal.GetWorkflow(ctx, e.WorkflowID, e.RunID).Get(ctx, out)
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last RunState
	for {
		if s, err := c.runState(ctx, e); err == nil {
			last = s
			show(s)
		} else if ok, werr := c.HasWorker(ctx); werr == nil && !ok && ctx.Err() == nil {
			last.Trouble = errNoWorker().Message
			show(last)
		}
		select {
		case err := <-ended:
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				return c.runError(e, err)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// queryDetails is answered by every workflow: Temporal's UI asks it.
const queryDetails = "__temporal_workflow_metadata"

// runState asks a run for the details that Temporal's UI shows.
func (c *Client) runState(ctx context.Context, e Execution) (RunState, error) {
	var m sdkpb.WorkflowMetadata
	if err := c.queryOnce(ctx, shownWithin, e.WorkflowID, e.RunID, queryDetails, &m); err != nil {
		return RunState{}, err
	}
	var s RunState
	for line := range strings.Lines(m.GetCurrentDetails()) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "#"):
			s.Phase = strings.TrimSpace(strings.TrimLeft(line, "#"))
		case line != "":
			s.Facts = append(s.Facts, strings.TrimPrefix(line, "- "))
		}
	}
	return s, nil
}

// runError explains a run that ended without a result.
func (c *Client) runError(e Execution, err error) error {
	var (
		cancelled  *temporal.CanceledError
		terminated *temporal.TerminatedError
		failed     *temporal.WorkflowExecutionError
	)
	switch {
	case errors.As(err, &cancelled):
		return exit.New(exit.Cancelled, "the run %s was cancelled", e.WorkflowID)
	case errors.As(err, &terminated):
		return exit.New(exit.Cancelled, "the run %s was ended", e.WorkflowID).WithNext("see the schedule: ebb schedule list")
	case errors.As(err, &failed):
		return exit.New(exit.Failed, "the run %s failed: %s", e.WorkflowID, rootMessage(err)).
			WithNext("see the whole story: temporal workflow show --workflow-id %s --run-id %s", e.WorkflowID, e.RunID)
	}
	return c.callError("follow the run "+e.WorkflowID, err)
}
