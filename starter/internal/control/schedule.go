package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	schedulepb "go.temporal.io/api/schedule/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// Schedules are the ids of the schedules that exist, by what people call them.
var schedules = [...]struct{ name, id, workflow string }{
	{"rightsize", contract.RightsizeSchedule, contract.RightsizeWorkflow},
	{"reap", contract.ReapSchedule, contract.ReapWorkflow},
}

// ScheduleIDs lists Ebb's schedules by what people call them: rightsize, reap;
// "all" (and "") is all of them.
func ScheduleIDs(name string) ([]string, error) {
	var out []string
	for _, s := range schedules {
		if name == "all" || name == "" || name == s.name {
			out = append(out, s.id)
		}
	}
	if out == nil {
		return nil, exit.New(exit.Usage, "schedule %q: want rightsize, reap or all", name)
	}
	return out, nil
}

// ScheduleName is what people call a schedule, and the workflow it runs.
func ScheduleName(id string) (name, workflow string) {
	for _, s := range schedules {
		if s.id == id {
			return s.name, s.workflow
		}
	}
	return id, ""
}

// Execution names one run of a workflow.
type Execution struct {
	WorkflowID string    `json:"workflowId"`
	RunID      string    `json:"runId"`
	At         time.Time `json:"at"` // started
}

// Schedule is one of Ebb's schedules as Temporal has it.
type Schedule struct {
	ID       string        `json:"id"`
	Workflow string        `json:"workflow"`
	Every    time.Duration `json:"everyNanos"`  // 0: it was given other times by hand
	Jitter   time.Duration `json:"jitterNanos"` // at most so much later
	Paused   bool          `json:"paused"`
	Note     string        `json:"note,omitempty"`
	Next     []time.Time   `json:"next"`    // of the coming runs
	Running  []Execution   `json:"running"` // At is not known
	Recent   []Execution   `json:"recent"`  // at most ten, the latest last
	Skipped  int64         `json:"skipped"` // runs, since the one before was still running
	input    *commonpb.Payloads
}

// DescribeSchedule reads a schedule; exit.NotFound when there is none.
func (c *Client) DescribeSchedule(ctx context.Context, id string) (Schedule, error) {
	d, err := c.describeSchedule(ctx, id)
	if err != nil {
		return Schedule{}, err
	}
	s, info := d.GetSchedule(), d.GetInfo()
	out := Schedule{
		ID: id, Workflow: s.GetAction().GetStartWorkflow().GetWorkflowType().GetName(),
		Every: every(s.GetSpec()), Jitter: s.GetSpec().GetJitter().AsDuration(),
		Paused: s.GetState().GetPaused(), Note: s.GetState().GetNotes(), Skipped: info.GetOverlapSkipped(),
		Next: []time.Time{}, Running: []Execution{}, Recent: []Execution{}, input: s.GetAction().GetStartWorkflow().GetInput(),
	}
	for _, t := range info.GetFutureActionTimes() {
		out.Next = append(out.Next, t.AsTime())
	}
	for _, w := range info.GetRunningWorkflows() {
		out.Running = append(out.Running, Execution{WorkflowID: w.GetWorkflowId(), RunID: w.GetRunId()})
	}
	for _, a := range info.GetRecentActions() {
		if w := a.GetStartWorkflowResult(); w != nil {
			out.Recent = append(out.Recent, Execution{w.GetWorkflowId(), w.GetRunId(), a.GetActualTime().AsTime()})
		}
	}
	return out, nil
}

// every is the interval of a schedule that has nothing but one.
func every(s *schedulepb.ScheduleSpec) time.Duration {
	if len(s.GetInterval()) != 1 || len(s.GetStructuredCalendar())+len(s.GetCalendar())+len(s.GetCronString()) > 0 {
		return 0
	}
	return s.GetInterval()[0].GetInterval().AsDuration()
}

func (c *Client) describeSchedule(ctx context.Context, id string) (*workflowservice.DescribeScheduleResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d, err := patient(ctx, func() (*workflowservice.DescribeScheduleResponse, error) {
		return c.temporal.WorkflowService().DescribeSchedule(ctx, &workflowservice.DescribeScheduleRequest{Namespace: c.namespace, ScheduleId: id})
	})
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return nil, errNoSchedule(id)
	}
	return d, c.callError("read the schedule "+id, err)
}

// patient repeats a call while Temporal has too much to do, until ctx ends. The
// raw service does not do that by itself.
func patient[Out any](ctx context.Context, call func() (Out, error)) (Out, error) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		out, err := call()
		var busy *serviceerror.ResourceExhausted
		if !errors.As(err, &busy) {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, err
		case <-time.After(pause):
		}
	}
}

func errNoSchedule(id string) *exit.Error {
	return exit.New(exit.NotFound, "there is no schedule %s", id).WithNext("ebb schedule apply")
}

// RightsizeInput is what the schedule starts Rightsize with; exit.NotFound when
// there is no schedule.
func (c *Client) RightsizeInput(ctx context.Context) (contract.RightsizeInput, error) {
	var in contract.RightsizeInput
	s, err := c.DescribeSchedule(ctx, contract.RightsizeSchedule)
	if err == nil {
		err = c.decodeInput(contract.RightsizeSchedule, s.input, &in)
	}
	return in, err
}

func (c *Client) decodeInput(id string, p *commonpb.Payloads, in any) error {
	if err := c.decode.FromPayloads(p, in); err != nil {
		return exit.New(exit.Failed, "schedule %s: its input is of another version of Ebb", id).Because(err).
			WithNext("apply it anew with this version: temporal schedule delete --schedule-id %s, then ebb schedule apply", id)
	}
	return nil
}

// PauseSchedule stops a schedule from starting runs. It may be repeated.
func (c *Client) PauseSchedule(ctx context.Context, id, reason string) error {
	note := c.note("paused", reason)
	return c.scheduleCall(ctx, id, "pause", func(ctx context.Context, h client.ScheduleHandle) error {
		return h.Pause(ctx, client.SchedulePauseOptions{Note: note})
	})
}

// ResumeSchedule lets a schedule start runs again. It may be repeated.
func (c *Client) ResumeSchedule(ctx context.Context, id, reason string) error {
	note := c.note("resumed", reason)
	return c.scheduleCall(ctx, id, "resume", func(ctx context.Context, h client.ScheduleHandle) error {
		return h.Unpause(ctx, client.ScheduleUnpauseOptions{Note: note})
	})
}

func (c *Client) note(what, reason string) string {
	s := what + " by " + c.Who() + " at " + time.Now().UTC().Format("2006-01-02 15:04 MST")
	if reason != "" {
		s += ": " + reason
	}
	return s
}

func (c *Client) scheduleCall(ctx context.Context, id, doing string, call func(context.Context, client.ScheduleHandle) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := call(ctx, c.temporal.ScheduleClient().GetHandle(ctx, id))
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return errNoSchedule(id)
	}
	return c.callError(doing+" the schedule "+id, err)
}

// TriggerSchedule starts a run now, paused or not, and returns it. exit.Busy when
// one runs already: it would be skipped.
func (c *Client) TriggerSchedule(ctx context.Context, id string) (Execution, error) {
	before, err := c.DescribeSchedule(ctx, id)
	if err != nil {
		return Execution{}, err
	}
	name, _ := ScheduleName(id)
	if len(before.Running) > 0 {
		return Execution{}, exit.New(exit.Busy, "%s runs already (%s)", name, before.Running[0].WorkflowID).
			WithNext("wait for its end: ebb schedule list")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*callTimeout)
	defer cancel()
	err = c.scheduleCall(ctx, id, "start a run of", func(ctx context.Context, h client.ScheduleHandle) error {
		return h.Trigger(ctx, client.ScheduleTriggerOptions{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP})
	})
	if err != nil {
		return Execution{}, err
	}
	known := func(e Execution) bool {
		return slices.ContainsFunc(before.Recent, func(k Execution) bool { return k.RunID == e.RunID })
	}
	for {
		now, err := c.DescribeSchedule(ctx, id)
		if err != nil {
			return Execution{}, err
		}
		for _, e := range slices.Backward(now.Recent) {
			if !known(e) {
				return e, nil
			}
		}
		select {
		case <-ctx.Done():
			return Execution{}, exit.New(exit.Failed, "Temporal did not start a run of the schedule %s in time", id).WithNext("ebb schedule list")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Who is the caller, for the record.
func (c *Client) Who() string { return whoami() }

// String names the run.
func (e Execution) String() string { return fmt.Sprintf("%s (run %s)", e.WorkflowID, e.RunID) }
