package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// giveUp is how long Temporal may be away while an operation is followed.
const giveUp = 10 * time.Minute

// errNotRunning says that a snapshot came too late.
var errNotRunning = errors.New("the operation is not running any more")

// Snapshot is a running operation at a moment: its own account of itself and
// the heartbeat of the activity under way.
type Snapshot struct {
	contract.Progress
	// Copy is the heartbeat of a copy or verification under way.
	Copy *contract.CopyProgress `json:"copy,omitempty"`
	// Trouble is what holds the operation up, in words.
	Trouble string `json:"trouble,omitempty"`
}

// Follow calls show about every interval until the operation ends, and returns
// its result. A refused or cancelled operation returns its result and an error.
// With until, it also returns, without a result, as soon as until says so.
func (c *Client) Follow(ctx context.Context, run *Run, every time.Duration, show func(Snapshot), until func(contract.Progress) bool) (*contract.Result, error) {
	type ending struct {
		result contract.Result
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan ending, 1)
	go func() { // ends with ctx at the latest
		var e ending
		e.err = c.await(ctx, run, &e.result)
		ended <- e
	}()

	tick := time.NewTicker(every)
	defer tick.Stop()
	last := Snapshot{Progress: contract.Progress{Disk: run.Disk.ID, Operation: run.Operation}}
	for {
		s, err := c.snapshot(ctx, run)
		switch {
		case ctx.Err() != nil || errors.Is(err, errNotRunning): // the end is under way
		case err != nil:
			last.still()
			last.Trouble = "Temporal does not answer; the operation goes on all the same"
			show(last)
		default:
			s.keep(last)
			show(s)
			last = s
			if until != nil && until(s.Progress) {
				return nil, nil
			}
		}
		select {
		case e := <-ended:
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if e.err != nil {
				return nil, c.endError(run, e.err)
			}
			return &e.result, resultError(run, e.result)
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// await waits for a run's result. Temporal may be away meanwhile: the
// operation does not mind, so neither does who follows it, for giveUp.
func (c *Client) await(ctx context.Context, run *Run, out *contract.Result) error {
	var away time.Time
	for {
		err := run.run.Get(ctx, out)
		if err == nil || ctx.Err() != nil || !transient(err) {
			return err
		}
		if away.IsZero() {
			away = time.Now()
		} else if time.Since(away) > giveUp {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
		if c.alive(ctx) {
			away = time.Time{}
		}
	}
}

// alive says whether Temporal answers.
func (c *Client) alive(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := c.temporal.CheckHealth(ctx, &client.CheckHealthRequest{})
	return err == nil
}

// transient errors say nothing about the workflow.
func transient(err error) bool {
	var (
		unavailable *serviceerror.Unavailable
		deadline    *serviceerror.DeadlineExceeded
		exhausted   *serviceerror.ResourceExhausted
		cancelled   *serviceerror.Canceled
	)
	return errors.As(err, &unavailable) || errors.As(err, &deadline) || errors.As(err, &exhausted) ||
		errors.As(err, &cancelled) || errors.Is(err, context.DeadlineExceeded)
}

// resultError is nil for an operation that did, or planned, what it should.
func resultError(run *Run, r contract.Result) error {
	switch r.Outcome {
	case contract.Refused:
		if r.Refusal == nil {
			return exit.New(exit.Refused, "refused without a reason")
		}
		return exit.Refusal(r.Refusal)
	case contract.Cancelled:
		return exit.New(exit.Cancelled, "%s of disk %s was cancelled; the disk is as it was", Verb(run.Operation), run.Disk)
	}
	return nil
}

// endError explains an operation that ended without a result.
func (c *Client) endError(run *Run, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	what := Verb(run.Operation) + " of disk " + run.Disk.String()
	// A refusal among the causes does not make this one: a refused operation
	// ends with a result and has changed nothing.
	var (
		cancelled  *temporal.CanceledError
		terminated *temporal.TerminatedError
		timeout    *temporal.TimeoutError
		app        *temporal.ApplicationError
		failed     *temporal.WorkflowExecutionError
	)
	switch {
	case errors.As(err, &cancelled):
		return exit.New(exit.Cancelled, "%s was cancelled", what)
	case errors.As(err, &terminated):
		return exit.New(exit.Failed, "%s was terminated", what).
			WithNext("see what is left: ebb disk show %s", run.Disk.Ref())
	case errors.As(err, &app):
		return exit.New(exit.Failed, "%s failed: %s", what, app.Message()).
			WithNext("see the whole story: temporal workflow show --workflow-id %s --run-id %s", run.WorkflowID(), run.RunID())
	case errors.As(err, &timeout):
		return exit.New(exit.Failed, "%s timed out", what).Because(err)
	case errors.As(err, &failed):
		return exit.New(exit.Failed, "%s failed", what).Because(errors.Unwrap(failed))
	}
	return c.callError("follow "+what, err)
}

// snapshot merges the progress query with the pending activity's heartbeat.
func (c *Client) snapshot(ctx context.Context, run *Run) (Snapshot, error) {
	s := Snapshot{Progress: contract.Progress{Disk: run.Disk.ID, Operation: run.Operation}}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	desc, err := c.describe(call, run)
	if err != nil {
		return s, err
	}
	info := desc.GetWorkflowExecutionInfo()
	p, err := c.progress(ctx, info.GetExecution().GetRunId(), run.Disk.ID)
	if err == nil {
		s.Progress = p
	} else {
		// What the server knows without a worker.
		s.Phase = c.running(info).Phase
		s.Trouble = "the operation does not answer"
		if ok, err := c.HasWorker(ctx); err == nil && !ok {
			s.Trouble = errNoWorker().Message
		}
	}
	for _, a := range desc.GetPendingActivities() {
		c.addActivity(&s, a)
	}
	return s, nil
}

// keep shows how far a copy had come while its activity is between two attempts.
func (s *Snapshot) keep(last Snapshot) {
	if s.Copy == nil && last.Copy != nil && s.Phase == last.Phase {
		s.Copy = last.Copy
		s.still()
	}
}

// still forgets the speed: nobody knows whether the copy moves.
func (s *Snapshot) still() {
	if s.Copy != nil {
		c := *s.Copy
		c.RateMiBs, c.ETASeconds = 0, 0
		s.Copy = &c
	}
}

// describe finds the run, or the one it continued as; errNotRunning when that
// has ended.
func (c *Client) describe(ctx context.Context, run *Run) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	for runID := run.RunID(); ; runID = "" {
		desc, err := c.temporal.DescribeWorkflowExecution(ctx, run.WorkflowID(), runID)
		if err != nil {
			return nil, err
		}
		switch status := desc.GetWorkflowExecutionInfo().GetStatus(); {
		case status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
			return desc, nil
		case runID == "" || status != enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
			return nil, errNotRunning
		}
	}
}

// addActivity takes the heartbeat and the troubles of a pending activity.
func (c *Client) addActivity(s *Snapshot, a *workflowpb.PendingActivityInfo) {
	name := a.GetActivityType().GetName()
	if d := a.GetHeartbeatDetails(); d != nil && (name == string(contract.EvacuateDisk) || name == string(contract.VerifyMove)) {
		var cp contract.CopyProgress
		if c.decode.FromPayloads(d, &cp) == nil {
			s.Copy = &cp
		}
	}
	if s.Trouble != "" {
		return
	}
	switch failure := a.GetLastFailure(); {
	case failure != nil:
		s.Trouble = fmt.Sprintf("%s, attempt %d: %s", name, a.GetAttempt(), failure.GetMessage())
	case a.GetState() == enumspb.PENDING_ACTIVITY_STATE_SCHEDULED && time.Since(a.GetScheduledTime().AsTime()) > 5*time.Second:
		s.Trouble = name + " waits for a worker"
		if s.Node != "" {
			s.Trouble += " (node " + s.Node + "?)"
		}
	}
}
