package control

import (
	"context"
	"errors"
	"time"

	"go.temporal.io/api/serviceerror"
)

const (
	// queryTimeout bounds one question to a workflow. Temporal first asks the worker
	// that had the workflow last, and after 5 s any.
	queryTimeout = 7 * time.Second
	// queryTries is how often it is put: a question may get lost on its way to a
	// worker, and changes nothing.
	queryTries = 3
	// shownWithin bounds a question for what is shown, and asked again anyway.
	shownWithin = 3 * time.Second
)

// query asks a workflow, once more when no answer comes, and decodes the answer
// into out.
func (c *Client) query(ctx context.Context, workflowID, runID, name string, out any) error {
	for try := 1; ; try++ {
		err := c.queryOnce(ctx, queryTimeout, workflowID, runID, name, out)
		var deadline *serviceerror.DeadlineExceeded
		lost := errors.As(err, &deadline) || errors.Is(err, context.DeadlineExceeded)
		if !lost || ctx.Err() != nil || try == queryTries {
			return err
		}
		if ok, e := c.HasWorker(ctx); e == nil && !ok {
			return err
		}
	}
}

// queryOnce asks a workflow.
func (c *Client) queryOnce(ctx context.Context, patience time.Duration, workflowID, runID, name string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := c.temporal.QueryWorkflow(ctx, workflowID, runID, name)
	if err != nil {
		return err
	}
	return v.Get(out)
}
