package workflows

import (
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// How long a call may take and what may come between.
type length int

const (
	// brief calls are waited for to their end: their outcome is always known.
	brief length = iota
	// long calls are left when the operation is cancelled or rehomed: what they
	// do can be taken up again or undone at any moment.
	long
	// queued calls are brief ones to a node that does not answer: they wait in
	// its queue so that they start as soon as it is back. An interruption takes
	// them out of the queue; one that has started is waited for.
	queued
)

const (
	briefNode    = time.Hour          // a brief node call with all its retries
	longNode     = 7 * 24 * time.Hour // one attempt of a copy or verification
	longNodeAll  = 4 * longNode       // with all its retries
	maxRetryWait = 30 * time.Second   // between two attempts of an activity
	lostPause    = 5 * time.Second    // before a lost node is asked again
	maxQueued    = 10 * time.Minute   // the longest wait in a lost node's queue before EC2 is asked where the disk is
	absentTries  = 3                  // assemblies of a disk that its node does not see
	absentPause  = 5 * time.Second
	lookAgain    = 2 * time.Second  // before EC2 is believed that a disk is nowhere
	settlePause  = 20 * time.Second // EC2's describes lag behind by about this much
)

// control runs an activity next to EC2.
func control[In, Out any](ctx workflow.Context, op *operation, a contract.Activity[In, Out], in In, l length) (Out, error) {
	return controlFor(ctx, op, a, in, l, op.set.StepTimeout)
}

// controlFor is control with a time limit of its own, all retries included.
func controlFor[In, Out any](ctx workflow.Context, op *operation, a contract.Activity[In, Out], in In, l length, limit time.Duration) (Out, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue:              contract.ControlQueue,
		ScheduleToCloseTimeout: limit,
		StartToCloseTimeout:    limit,
		HeartbeatTimeout:       op.set.HeartbeatTimeout,
		Summary:                fmt.Sprintf("%s: %s", op.progress.Phase, a),
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: 200 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: maxRetryWait,
		},
	})
	return awaited(ctx, op, a, in, l, nil)
}

// awaited starts a and waits: for a long or queued call also for an
// interruption. Beside, when not nil, is called whenever something was asked of
// the running call.
func awaited[In, Out any](ctx workflow.Context, op *operation, a contract.Activity[In, Out], in In, l length, beside func(workflow.Context)) (Out, error) {
	var zero Out
	call, cancel := workflow.WithCancel(ctx)
	defer cancel()
	f := a.Start(call, in)
	for l != brief && !f.IsReady() {
		err := workflow.Await(ctx, func() bool {
			return f.IsReady() || op.interrupted() != nil || (l == queued && op.called()) || (beside != nil && op.signals.throttle)
		})
		if err != nil {
			return zero, err
		}
		if f.IsReady() {
			break
		}
		if stop := op.interrupted(); stop != nil {
			if l == long {
				return zero, stop
			}
			cancel()
			if out, err := f.Get(ctx); err == nil {
				return out, nil
			}
			return zero, stop
		}
		if l == queued && op.called() {
			cancel()
			out, err := f.Get(ctx)
			if temporal.IsCanceledError(err) {
				err = errNoAnswer
			}
			return out, err
		}
		beside(ctx)
	}
	return f.Get(ctx)
}

// node runs an activity on the node the disk is on. A node that does not answer
// is looked for in EC2: the disk may be elsewhere by now; else it is waited for.
func node[In, Out any](ctx workflow.Context, op *operation, a contract.Activity[In, Out], in In, l length) (Out, error) {
	return nodeBeside(ctx, op, a, in, l, nil)
}

func nodeBeside[In, Out any](ctx workflow.Context, op *operation, a contract.Activity[In, Out], in In, l length, beside func(workflow.Context)) (Out, error) {
	var zero Out
	absent, heard := 0, false
	for queue := op.set.NodeTimeout; ; queue = min(2*queue, max(maxQueued, op.set.NodeTimeout)) {
		how := l
		if l == brief && !op.lostAt.IsZero() {
			how = queued
		}
		if op.turned && !heard { // what EC2 says of the node is to be looked at again soon
			queue, heard = op.set.NodeTimeout, true
		}
		if how != brief || op.signals.rehome != nil {
			if err := op.interrupted(); err != nil {
				return zero, err
			}
		}
		at := op.node
		var out Out
		var err error
		if !makesRoom(string(a)) || absent > 0 {
			err = op.reassemble(ctx, string(a), queue)
		}
		if err == nil {
			out, err = awaited(op.nodeOptions(ctx, string(a), how, queue), op, a, in, how, beside)
		}
		if notThere(string(a), err) && absent < absentTries {
			absent++
			err = op.absent(ctx, at)
			if err != nil {
				return zero, err
			}
			continue
		}
		if !noAgent(err) {
			if err == nil && at == op.node {
				op.found(ctx)
			}
			return out, err
		}
		if err := op.lost(ctx, at); err != nil {
			return zero, err
		}
	}
}

// makesRoom says that an activity is one of a growth. The disk is not assembled before
// it: the assembly may wait in a mount for just that growth.
func makesRoom(name string) bool {
	switch name {
	case string(contract.MeasureDisk), string(contract.GrowBacking), string(contract.AppendVolume):
		return true
	}
	return false
}

// absent waits a moment for volumes that the node does not see, and has the disk
// assembled before the next try.
func (op *operation) absent(ctx workflow.Context, at string) error {
	op.assemble = true
	op.wait(ctx, "the volumes to appear on node "+at)
	_, err := workflow.AwaitWithTimeout(ctx, absentPause, func() bool { return op.interrupted() != nil })
	op.wait(ctx, "")
	return err
}

// notThere says that a node which EC2 says has the disk does not see it: it may
// have booted a moment ago. Assembling waits for the volumes.
func notThere(name string, err error) bool {
	r, refused := contract.AsRefusal(err)
	if !refused || (r.Code != contract.DiskUnknown && r.Code != contract.DiskIncomplete) {
		return false
	}
	switch name {
	case string(contract.AssembleDisk), string(contract.DisassembleDisk), string(contract.FormatDisk):
		return false
	}
	return true
}

func (op *operation) nodeOptions(ctx workflow.Context, name string, l length, queue time.Duration) workflow.Context {
	o := workflow.ActivityOptions{
		TaskQueue:              contract.NodeQueue(op.node),
		ScheduleToStartTimeout: queue,
		ScheduleToCloseTimeout: briefNode,
		StartToCloseTimeout:    briefNode,
		HeartbeatTimeout:       op.set.HeartbeatTimeout,
		WaitForCancellation:    l == queued,
		Summary:                fmt.Sprintf("%s: %s", op.progress.Phase, name),
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: maxRetryWait,
		},
	}
	if l == long {
		o.StartToCloseTimeout, o.ScheduleToCloseTimeout = longNode, longNodeAll
	}
	return workflow.WithActivityOptions(ctx, o)
}

// noAgent says that no agent took the task from the node's queue in time.
func noAgent(err error) bool {
	var t *temporal.TimeoutError
	return errors.Is(err, errNoAnswer) || errors.As(err, &t) && t.TimeoutType() == enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START
}

// lost is called when the agent on node at did not answer. It follows the disk
// when EC2 has it elsewhere; else the node is asked again, for longer. It ends the operation after
// NodePatience, with everything left as it is.
func (op *operation) lost(ctx workflow.Context, at string) error {
	op.assemble = true
	if op.lostAt.IsZero() {
		op.lostAt = workflow.Now(ctx)
	}
	facts, err := control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
	if err != nil {
		return err
	}
	if is := facts.Node(); is != "" && is != at {
		op.node, op.progress.Node = is, is
		op.index(ctx)
		return nil
	}
	since := workflow.Now(ctx).Sub(op.lostAt)
	if since >= op.set.NodePatience {
		return fmt.Errorf("%w on node %s for %s; nothing of disk %s is lost: bring the node back or rehome the disk, then start the operation again",
			errSilent, at, since.Round(time.Second), op.disk)
	}
	if op.turning() {
		return op.turnBack(ctx, at)
	}
	op.wait(ctx, fmt.Sprintf("no agent answers on node %s; bring it back, or rehome the disk", at))
	_, err = workflow.AwaitWithTimeout(ctx, lostPause, func() bool { return op.interrupted() != nil || op.called() })
	return err
}

func (op *operation) found(ctx workflow.Context) {
	if op.lostAt.IsZero() {
		return
	}
	op.lostAt = time.Time{}
	op.wait(ctx, "")
}

// reassemble assembles the disk after its node was lost: the node may have been
// rebooted, or be another one. The agent does it by itself too; both may.
func (op *operation) reassemble(ctx workflow.Context, next string, queue time.Duration) error {
	if !op.assemble || next == string(contract.AssembleDisk) || next == string(contract.DisassembleDisk) || next == string(contract.FormatDisk) {
		return nil
	}
	facts, err := control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
	if err != nil {
		return err
	}
	in := contract.AssembleDiskInput{Disk: op.disk, Volumes: attachedTo(facts, op.node)}
	ctx = op.nodeOptions(ctx, string(contract.AssembleDisk), queued, queue)
	if _, err := awaited(ctx, op, contract.AssembleDisk, in, queued, nil); err != nil {
		return err
	}
	op.assemble, op.hauling = false, false
	op.found(ctx)
	return nil
}

// attachedTo lists the volumes a disk may be assembled from on a node.
func attachedTo(f contract.DiskFacts, node string) []string {
	var out []string
	for _, v := range f.Volumes {
		if v.Node == node && v.Role != contract.RoleRetired {
			out = append(out, v.ID)
		}
	}
	return out
}
