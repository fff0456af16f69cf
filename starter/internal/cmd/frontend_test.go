package cmd

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	schedulepb "go.temporal.io/api/schedule/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/converter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

const someDisk = "d-00000000000000001"

// frontend is a Temporal that fails where a test wants it to, and knows what it was
// asked. One operation runs on every disk, and one run of every schedule.
type frontend struct {
	workflowservice.UnimplementedWorkflowServiceServer
	terminate, describe, signal codes.Code
	spec                        *schedulepb.ScheduleSpec
	updated                     []*schedulepb.Schedule
	signalled                   []*commonpb.WorkflowExecution
	moves                       int
}

func (f *frontend) serve(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	workflowservice.RegisterWorkflowServiceServer(s, f)
	go func() { _ = s.Serve(l) }() // ends with Stop
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// ebb runs the command against it.
func (f *frontend) ebb(t *testing.T, args ...string) (code exit.Code, out, talk string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(t.Context(), "", append(args, "--address", f.serve(t)), ui.Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func failed(c codes.Code) error { return status.Error(c, "a test wants it so") }

func (f *frontend) GetSystemInfo(context.Context, *workflowservice.GetSystemInfoRequest) (*workflowservice.GetSystemInfoResponse, error) {
	return &workflowservice.GetSystemInfoResponse{}, nil
}

func (f *frontend) QueryWorkflow(context.Context, *workflowservice.QueryWorkflowRequest) (*workflowservice.QueryWorkflowResponse, error) {
	return nil, failed(codes.NotFound)
}

func (f *frontend) DescribeTaskQueue(context.Context, *workflowservice.DescribeTaskQueueRequest) (*workflowservice.DescribeTaskQueueResponse, error) {
	return &workflowservice.DescribeTaskQueueResponse{}, nil
}

func (f *frontend) DescribeSchedule(_ context.Context, r *workflowservice.DescribeScheduleRequest) (*workflowservice.DescribeScheduleResponse, error) {
	input, err := converter.GetDefaultDataConverter().ToPayloads(struct{}{})
	if f.spec == nil {
		f.spec = &schedulepb.ScheduleSpec{}
	}
	s := &schedulepb.Schedule{Spec: f.spec, Action: &schedulepb.ScheduleAction{Action: &schedulepb.ScheduleAction_StartWorkflow{
		StartWorkflow: &workflowpb.NewWorkflowExecutionInfo{Input: input},
	}}}
	if n := len(f.updated); n > 0 {
		s = f.updated[n-1]
	}
	return &workflowservice.DescribeScheduleResponse{Schedule: s, Info: &schedulepb.ScheduleInfo{
		RunningWorkflows: []*commonpb.WorkflowExecution{{WorkflowId: r.GetScheduleId() + "-now", RunId: "run-7"}},
	}}, err
}

func (f *frontend) UpdateSchedule(_ context.Context, r *workflowservice.UpdateScheduleRequest) (*workflowservice.UpdateScheduleResponse, error) {
	f.updated = append(f.updated, r.GetSchedule())
	return &workflowservice.UpdateScheduleResponse{}, nil
}

func (f *frontend) TerminateWorkflowExecution(context.Context, *workflowservice.TerminateWorkflowExecutionRequest) (*workflowservice.TerminateWorkflowExecutionResponse, error) {
	if f.terminate != codes.OK {
		return nil, failed(f.terminate)
	}
	return &workflowservice.TerminateWorkflowExecutionResponse{}, nil
}

func (f *frontend) DescribeWorkflowExecution(_ context.Context, r *workflowservice.DescribeWorkflowExecutionRequest) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	if f.describe != codes.OK {
		return nil, failed(f.describe)
	}
	return &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: r.GetExecution().GetWorkflowId(), RunId: "run-1"},
		Type:      &commonpb.WorkflowType{Name: contract.ShrinkWorkflow}, StartTime: timestamppb.New(time.Now()),
		Status: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING,
	}}, nil
}

func (f *frontend) SignalWorkflowExecution(_ context.Context, r *workflowservice.SignalWorkflowExecutionRequest) (*workflowservice.SignalWorkflowExecutionResponse, error) {
	if f.signal != codes.OK {
		return nil, failed(f.signal)
	}
	f.signalled = append(f.signalled, r.GetWorkflowExecution())
	return &workflowservice.SignalWorkflowExecutionResponse{}, nil
}

func (f *frontend) SignalWithStartWorkflowExecution(context.Context, *workflowservice.SignalWithStartWorkflowExecutionRequest) (*workflowservice.SignalWithStartWorkflowExecutionResponse, error) {
	f.moves++
	return &workflowservice.SignalWithStartWorkflowExecutionResponse{RunId: "run-2"}, nil
}

func TestEmergencyStopSaysWhatGoesOn(t *testing.T) {
	code, _, talk := (&frontend{}).ebb(t, "mode", "observe")
	require.Equal(t, exit.Done, code, talk)
	require.Contains(t, talk, "the run that was under way was ended (ebb-rightsize-now)")

	// The run ended by itself.
	code, _, talk = (&frontend{terminate: codes.NotFound}).ebb(t, "mode", "observe")
	require.Equal(t, exit.Done, code, talk)
	require.NotContains(t, talk, "was ended")

	// It goes on: the switch is set, and that alone is no stop.
	var out string
	code, out, talk = (&frontend{terminate: codes.PermissionDenied}).ebb(t, "mode", "observe")
	require.Equal(t, exit.Failed, code, talk)
	require.Contains(t, out, "every disk: mode observe")
	require.Contains(t, talk, "the run ebb-rightsize-now (run run-7) goes on")
	require.Contains(t, talk, "next: temporal workflow terminate --namespace default --workflow-id ebb-rightsize-now --run-id run-7")
}

func TestSteeringReachesTheOperationThatIsReported(t *testing.T) {
	f := &frontend{}
	code, out, talk := f.ebb(t, "pause", someDisk, "-o", "json")
	require.Equal(t, exit.Done, code, talk)
	require.Contains(t, out, `"runId": "run-1"`)
	require.Equal(t, "run-1", f.signalled[0].GetRunId())

	f = &frontend{signal: codes.NotFound}
	code, _, talk = f.ebb(t, "cancel", someDisk)
	require.Equal(t, exit.NotFound, code, talk)
	require.Contains(t, talk, "the shrink of disk "+someDisk+" has ended meanwhile; it was not told to cancel")
}

func TestMoveThatCannotBeLookedAtWasAskedFor(t *testing.T) {
	f := &frontend{describe: codes.PermissionDenied}
	code, _, talk := f.ebb(t, "disk", "move", someDisk, "--node", "i-0000000000000000a")
	require.Equal(t, exit.Failed, code, talk)
	require.Equal(t, 1, f.moves)
	require.Contains(t, talk, "the move of disk "+someDisk+" was asked for")
	require.Contains(t, talk, "next: ebb watch "+someDisk)
}

func TestScheduleApplyKeepsTimesSetByHand(t *testing.T) {
	byHand := func() *frontend {
		return &frontend{spec: &schedulepb.ScheduleSpec{StructuredCalendar: []*schedulepb.StructuredCalendarSpec{{Comment: "at night"}}}}
	}
	f := byHand()
	code, out, talk := f.ebb(t, "schedule", "apply")
	require.Equal(t, exit.Done, code, talk)
	require.Empty(t, f.updated)
	require.Regexp(t, `(?m)^rightsize +unchanged +as set by hand `, out)

	f = byHand()
	code, _, talk = f.ebb(t, "schedule", "apply", "--max-starts", "7")
	require.Equal(t, exit.Done, code, talk)
	require.Len(t, f.updated, 1)
	require.Equal(t, "at night", f.updated[0].GetSpec().GetStructuredCalendar()[0].GetComment())

	// Times that are asked for take the others' place.
	f = byHand()
	code, _, talk = f.ebb(t, "schedule", "apply", "--every", "30m")
	require.Equal(t, exit.Done, code, talk)
	require.Equal(t, 30*time.Minute, f.updated[0].GetSpec().GetInterval()[0].GetInterval().AsDuration())
	require.Empty(t, f.updated[0].GetSpec().GetStructuredCalendar())
}
