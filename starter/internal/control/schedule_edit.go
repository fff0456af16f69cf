package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	schedulepb "go.temporal.io/api/schedule/v1"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

const (
	// catchUp is how late a run may begin that was missed while Temporal was away:
	// the next one sees all that it would have seen.
	catchUp = 5 * time.Minute
	// runTimeout bounds a run. Rightsize ends minutes after its feeding, Reap when
	// every disk with leftovers was looked at; a later run would be skipped.
	runTimeout = 4 * time.Hour
	// editTries is how often an edit is made anew after another one came between.
	editTries = 20
)

// Timed is what a schedule starts, and when.
type Timed[In any] struct {
	New    bool          `json:"-"`          // there is no schedule yet
	Every  time.Duration `json:"everyNanos"` // 0: other times, given by hand; they stay
	Jitter time.Duration `json:"jitterNanos"`
	Input  In            `json:"input"`
}

// EditOptions say how far an edit goes.
type EditOptions struct {
	Create bool // the schedule when there is none; false: exit.NotFound
	DryRun bool // change nothing
}

// Edited is a schedule before and after an edit.
type Edited[In any] struct {
	Before  *Timed[In] // nil: there was none
	After   Timed[In]
	Changed bool
}

// EditRightsize changes the schedule of Rightsize.
func (c *Client) EditRightsize(ctx context.Context, o EditOptions, edit func(*Timed[contract.RightsizeInput]) error) (Edited[contract.RightsizeInput], error) {
	return editSchedule(ctx, c, contract.RightsizeSchedule, o, edit)
}

// EditReap changes the schedule of Reap.
func (c *Client) EditReap(ctx context.Context, o EditOptions, edit func(*Timed[contract.ReapInput]) error) (Edited[contract.ReapInput], error) {
	return editSchedule(ctx, c, contract.ReapSchedule, o, edit)
}

// editSchedule applies edit to what a schedule starts. Whether it is paused, its
// note and whatever else it has stay. Of two edits at a time none is lost: edit is
// called again on what the other one left, until there is nothing more to change.
// So edit must lead to the same when it is applied to its own outcome.
func editSchedule[In any](ctx context.Context, c *Client, id string, o EditOptions, edit func(*Timed[In]) error) (Edited[In], error) {
	var out Edited[In]
	if err := interrupted(ctx, "the schedule %s is as it was", id); err != nil {
		return out, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*callTimeout)
	defer cancel()
	for try := range editTries {
		d, err := c.describeSchedule(ctx, id)
		switch {
		case exit.CodeOf(err) == exit.NotFound && o.Create && try == 0:
		case err != nil:
			return out, err
		}
		var was *Timed[In]
		if d != nil {
			spec := d.GetSchedule().GetSpec()
			was = &Timed[In]{Every: every(spec), Jitter: spec.GetJitter().AsDuration()}
			if err := c.decodeInput(id, d.GetSchedule().GetAction().GetStartWorkflow().GetInput(), &was.Input); err != nil {
				return out, err
			}
		}
		wanted := Timed[In]{New: was == nil}
		if was != nil {
			if err := copyJSON(&wanted, *was); err != nil {
				return out, err
			}
		}
		if err := edit(&wanted); err != nil {
			return out, err
		}
		if try == 0 {
			out.Before = was
		}
		out.After = wanted
		same := was != nil && sameJSON(*was, wanted)
		out.Changed = out.Changed || !same
		if same || o.DryRun {
			return out, nil
		}
		if err := writeSchedule(ctx, c, id, d, wanted); err != nil {
			return out, err
		}
	}
	return out, exit.New(exit.Failed, "schedule %s: others change it all the time", id).WithNext("try again")
}

// writeSchedule creates or updates. That somebody else was faster is no error.
func writeSchedule[In any](ctx context.Context, c *Client, id string, d *workflowservice.DescribeScheduleResponse, t Timed[In]) error {
	input, err := c.decode.ToPayloads(t.Input)
	if err != nil {
		return exit.New(exit.Failed, "encode the schedule's input").Because(err)
	}
	svc := c.temporal.WorkflowService()
	if d == nil {
		s := &schedulepb.Schedule{
			Spec:     &schedulepb.ScheduleSpec{},
			Action:   &schedulepb.ScheduleAction{Action: &schedulepb.ScheduleAction_StartWorkflow{StartWorkflow: c.action(id)}},
			Policies: &schedulepb.SchedulePolicies{OverlapPolicy: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: durationpb.New(catchUp)},
			State:    &schedulepb.ScheduleState{},
		}
		set(s, t.Every, t.Jitter, input)
		_, err = svc.CreateSchedule(ctx, &workflowservice.CreateScheduleRequest{
			Namespace: c.namespace, ScheduleId: id, Schedule: s, Identity: c.identity, RequestId: newToken(),
		})
		var exists *serviceerror.AlreadyExists
		var started *serviceerror.WorkflowExecutionAlreadyStarted
		if errors.As(err, &exists) || errors.As(err, &started) {
			return nil
		}
		return c.callError("create the schedule "+id, err)
	}
	s := proto.CloneOf(d.GetSchedule())
	set(s, t.Every, t.Jitter, input)
	_, err = patient(ctx, func() (*workflowservice.UpdateScheduleResponse, error) {
		return svc.UpdateSchedule(ctx, &workflowservice.UpdateScheduleRequest{
			Namespace: c.namespace, ScheduleId: id, Schedule: s, Identity: c.identity, RequestId: newToken(),
			ConflictToken: d.GetConflictToken(),
		})
	})
	var conflict *serviceerror.FailedPrecondition
	if errors.As(err, &conflict) {
		return nil
	}
	return c.callError("update the schedule "+id, err)
}

// set gives a schedule its times and its input.
func set(s *schedulepb.Schedule, every, jitter time.Duration, input *commonpb.Payloads) {
	if every > 0 {
		s.Spec.StructuredCalendar, s.Spec.Calendar, s.Spec.CronString = nil, nil, nil
		s.Spec.Interval = []*schedulepb.IntervalSpec{{Interval: durationpb.New(every)}}
	}
	s.Spec.Jitter = durationpb.New(jitter)
	s.Action.GetStartWorkflow().Input = input
}

// action is what a schedule of Ebb starts, but for the input.
func (c *Client) action(id string) *workflowpb.NewWorkflowExecutionInfo {
	_, workflow := ScheduleName(id)
	a := &workflowpb.NewWorkflowExecutionInfo{
		WorkflowId:               id,
		WorkflowType:             &commonpb.WorkflowType{Name: workflow},
		TaskQueue:                &taskqueuepb.TaskQueue{Name: contract.ControlQueue},
		WorkflowExecutionTimeout: durationpb.New(runTimeout),
	}
	summary := "Look at every disk and plan"
	if workflow == contract.ReapWorkflow {
		summary = "Look for what nothing needs any more"
	}
	if p, err := c.decode.ToPayload(summary); err == nil {
		a.UserMetadata = &sdkpb.UserMetadata{Summary: p}
	}
	return a
}

func copyJSON(to, from any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, to)
}

func sameJSON(a, b any) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}
