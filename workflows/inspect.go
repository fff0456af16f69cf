package workflows

import (
	"errors"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// inspectParallel bounds the measurements under way at once, far below the
// server's limit of pending activities.
const inspectParallel = 100

// askPatience is how long a node's agent may take to hear a question.
const askPatience = 10 * time.Second

// RegisterInspect binds the read-only workflows on a worker of ControlQueue.
func RegisterInspect(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(Inspect, workflow.RegisterOptions{Name: contract.InspectWorkflow})
	r.RegisterWorkflowWithOptions(Preflight, workflow.RegisterOptions{Name: contract.PreflightWorkflow})
}

// Inspect reads the disks EC2 knows and asks their nodes for a measurement, all
// at the same time: a node that does not answer costs ten seconds, however many
// disks it has, and its disks are reported without a measurement.
func Inspect(ctx workflow.Context, in contract.InspectInput) (contract.InspectResult, error) {
	if err := in.Validate(); err != nil {
		return contract.InspectResult{Refusal: badInput(err)}, nil
	}

	// 1. What EC2 knows.
	facts, err := inspectFacts(ctx, in)
	if r, ok := contract.AsRefusal(err); ok {
		return contract.InspectResult{Refusal: r}, nil
	}
	if err != nil {
		return contract.InspectResult{}, err
	}
	result := contract.InspectResult{Disks: make([]contract.DiskReport, len(facts))}
	for i, f := range facts {
		result.Disks[i].Facts = f
	}
	if in.FactsOnly {
		return result, nil
	}
	if len(in.Disks) > 0 {
		surveyInto(ctx, result.Disks, in)
		return result, ctx.Err()
	}

	// 2. What the nodes know.
	limit := workflow.NewSemaphore(ctx, inspectParallel)
	done := workflow.NewWaitGroup(ctx)
	for i := range result.Disks {
		done.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer done.Done()
			if err := limit.Acquire(ctx, 1); err != nil {
				result.Disks[i].Unmeasured = "cancelled"
				return
			}
			defer limit.Release(1)
			measureInto(ctx, &result.Disks[i])
		})
	}
	if in.History { // of one disk, so there is at most one report
		for i := range result.Disks {
			done.Add(1)
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer done.Done()
				historyInto(ctx, &result.Disks[i], in.Since)
			})
		}
	}
	done.Wait(ctx)
	return result, ctx.Err()
}

// inspectFacts asks for one disk, or for all. In a list user tags are left out:
// thousands of disks must fit one payload.
func inspectFacts(ctx workflow.Context, in contract.InspectInput) ([]contract.DiskFacts, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              contract.ControlQueue,
		ScheduleToCloseTimeout: 2 * time.Minute,
		StartToCloseTimeout:    time.Minute,
		HeartbeatTimeout:       contract.LeastHeartbeat, // somebody waits, and a task may be lost on its way
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 5},
	})
	if in.Disk != "" {
		f, err := contract.DescribeDisk.Execute(ctx, contract.DescribeDiskInput{Disk: in.Disk})
		if err != nil {
			return nil, err
		}
		if len(f.Volumes) == 0 {
			return nil, contract.Refuse(contract.DiskUnknown, "EC2 has no volume tagged with this disk").
				WithDisk(in.Disk).WithNext("list the disks: ebb disk list")
		}
		if in.Node != "" && f.Node() != in.Node {
			return nil, nil
		}
		return []contract.DiskFacts{f}, nil
	}
	list := contract.ListDisksInput{Node: in.Node}
	if len(in.Disks) > 0 { // then nobody looks for what is not attached, and EC2 need not list all there is
		list.Nodes = []string{in.Node}
	}
	all, err := contract.ListDisks.Execute(ctx, list)
	if err != nil {
		return nil, err
	}
	if len(in.Disks) > 0 {
		all.Disks = slices.DeleteFunc(all.Disks, func(d contract.DiskFacts) bool { return !slices.Contains(in.Disks, d.Disk) })
		return all.Disks, nil
	}
	for i := range all.Disks {
		for j := range all.Disks[i].Volumes {
			all.Disks[i].Volumes[j].Tags = nil
		}
	}
	slices.SortFunc(all.Disks, func(a, b contract.DiskFacts) int {
		return strings.Compare(string(a.Disk), string(b.Disk))
	})
	return all.Disks, nil
}

// measureInto asks the disk's node, and notes why not when that fails.
func measureInto(ctx workflow.Context, report *contract.DiskReport) {
	node := report.Facts.Node()
	if node == "" {
		report.Unmeasured = "not attached to a node"
		return
	}
	m, err := contract.MeasureDisk.Execute(askNode(ctx, node), contract.MeasureDiskInput{Disk: report.Facts.Disk})
	if err != nil {
		report.Unmeasured = nodeRefusal(node, err).Message
		return
	}
	report.Measurement = &m
}

// surveyInto asks a node for several of its disks in one call, and notes of which it
// told nothing, and why. An agent that does not know of pasts in such a call is asked
// for each.
func surveyInto(ctx workflow.Context, reports []contract.DiskReport, in contract.InspectInput) {
	if len(reports) == 0 {
		return
	}
	ask := contract.SurveyInput{Hours: in.History, Since: in.Since}
	for _, r := range reports {
		ask.Disks = append(ask.Disks, contract.SurveyDisk{Disk: r.Facts.Disk})
	}
	res, err := contract.SurveyNode.Execute(surveyNode(ctx, in.Node), ask)
	if err != nil {
		why := nodeRefusal(in.Node, err).Message
		for i := range reports {
			reports[i].Unmeasured = why
			if in.History {
				reports[i].Unread = why
			}
		}
		return
	}
	var older []int
	for i := range reports {
		r := &reports[i]
		s := contract.DiskSurvey{Problem: "the node told nothing of it"}
		if i < len(res.Disks) {
			s = res.Disks[i]
		}
		r.Measurement, r.Hours = s.Measurement, s.Hours
		if s.Measurement == nil {
			r.Unmeasured = s.Problem
		}
		switch {
		case !in.History || s.Hours != nil:
		case s.Problem != "":
			r.Unread = s.Problem
		default:
			older = append(older, i)
		}
	}
	each(ctx, inspectParallel, len(older), func(ctx workflow.Context, i int) { historyInto(ctx, &reports[older[i]], in.Since) })
}

// historyInto asks the disk's node what the disk remembers, and notes why not
// when that fails.
func historyInto(ctx workflow.Context, report *contract.DiskReport, since time.Time) {
	node := report.Facts.Node()
	if node == "" {
		report.Unread = "not attached to a node"
		return
	}
	h, err := contract.ReadHistory.Execute(askNode(ctx, node), contract.ReadHistoryInput{Disk: report.Facts.Disk, Since: since})
	if err != nil {
		report.Unread = nodeRefusal(node, err).Message
		return
	}
	report.History = &h
}

// Preflight asks a node's agent what its kernel offers.
func Preflight(ctx workflow.Context, in contract.PreflightNodeInput) (contract.PreflightNodeResult, error) {
	if err := in.Validate(); err != nil {
		return contract.PreflightNodeResult{Refusal: badInput(err)}, nil
	}
	res, err := contract.Preflight.Execute(askNode(ctx, in.Node), contract.PreflightInput{})
	if err != nil {
		if ctx.Err() != nil {
			return contract.PreflightNodeResult{}, ctx.Err()
		}
		return contract.PreflightNodeResult{Refusal: nodeRefusal(in.Node, err)}, nil
	}
	return contract.PreflightNodeResult{Preflight: &res}, nil
}

// askNode is for questions a node answers at once or not at all.
func askNode(ctx workflow.Context, node string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              contract.NodeQueue(node),
		ScheduleToStartTimeout: askPatience,
		StartToCloseTimeout:    20 * time.Second,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 2},
	})
}

// surveyNode is for a look at all disks of a node: at once heard, or not at all.
func surveyNode(ctx workflow.Context, node string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              contract.NodeQueue(node),
		ScheduleToStartTimeout: askPatience,
		StartToCloseTimeout:    2 * time.Minute,
		HeartbeatTimeout:       contract.NodeHeartbeat,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 2},
	})
}

// nodeRefusal says why a node gave no answer.
func nodeRefusal(node string, err error) *contract.Refusal {
	if r, ok := contract.AsRefusal(err); ok {
		return r
	}
	var timeout *temporal.TimeoutError
	if errors.As(err, &timeout) && timeout.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START {
		return contract.Refuse(contract.NodeUnreachable, "no agent answers on node %s", node).
			WithNext("check that the instance runs and that its node agent reaches Temporal")
	}
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		err = errors.New(app.Message())
	}
	return contract.Refuse(contract.NodeUnreachable, "node %s: %v", node, err).
		WithNext("look at the agent's log and /readyz on the node")
}
