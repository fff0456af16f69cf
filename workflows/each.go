package workflows

import "go.temporal.io/sdk/workflow"

// each runs fn for 0 to n-1, so many at once, and returns when all have ended. A
// cancelled context begins no more of them.
func each(ctx workflow.Context, atOnce int64, n int, fn func(ctx workflow.Context, i int)) {
	limit, done := workflow.NewSemaphore(ctx, atOnce), workflow.NewWaitGroup(ctx)
	for i := range n {
		done.Add(1)
		workflow.Go(ctx, func(ctx workflow.Context) {
			defer done.Done()
			if limit.Acquire(ctx, 1) != nil {
				return
			}
			defer limit.Release(1)
			fn(ctx, i)
		})
	}
	done.Wait(ctx)
}
