package contract

import (
	"context"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Activity ties an activity's name to its input and result, so that a wrong
// type on either side of the queue does not compile.
type Activity[In, Out any] string

// Start schedules the activity with the options in ctx and returns its future.
func (a Activity[In, Out]) Start(ctx workflow.Context, in In) Future[Out] {
	return Future[Out]{workflow.ExecuteActivity(ctx, string(a), in)}
}

// Execute schedules the activity with the options in ctx and waits for its
// result.
func (a Activity[In, Out]) Execute(ctx workflow.Context, in In) (Out, error) {
	return a.Start(ctx, in).Get(ctx)
}

// Register binds the activity's implementation on a worker. A Refusal anywhere in
// its error leaves as the outermost value (ActivityError): wrapped, Temporal would
// retry it.
func (a Activity[In, Out]) Register(r worker.ActivityRegistry, fn func(context.Context, In) (Out, error)) {
	r.RegisterActivityWithOptions(func(ctx context.Context, in In) (Out, error) {
		out, err := fn(ctx, in)
		if err != nil {
			var zero Out
			return zero, ActivityError(err)
		}
		return out, nil
	}, activity.RegisterOptions{Name: string(a)})
}

// Future is a workflow.Future whose result type is known.
type Future[Out any] struct{ workflow.Future }

// Get waits for the result.
func (f Future[Out]) Get(ctx workflow.Context) (Out, error) {
	var out Out
	err := f.Future.Get(ctx, &out)
	return out, err
}
