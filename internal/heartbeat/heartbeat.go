// Package heartbeat makes every activity of a worker heartbeat by itself, so
// that a process or node that dies is noticed within the heartbeat timeout
// whatever it was doing, and so that a cancellation reaches every activity. It
// decides nothing about progress: details an activity records are repeated
// unchanged.
package heartbeat

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
)

// Interceptor is a worker interceptor (worker.Options.Interceptors) that
// heartbeats every Every while an activity runs. Activities without a heartbeat
// timeout, and local ones, are left alone.
type Interceptor struct {
	interceptor.WorkerInterceptorBase
	Every time.Duration // more than 0, at most a third of the heartbeat timeout
}

// InterceptActivity implements interceptor.WorkerInterceptor.
func (i *Interceptor) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	in := &inbound{every: i.Every}
	in.Next = next
	return in
}

// inbound is made anew for every activity task.
type inbound struct {
	interceptor.ActivityInboundInterceptorBase
	every time.Duration
	out   *outbound
}

// Init implements interceptor.ActivityInboundInterceptor.
func (i *inbound) Init(out interceptor.ActivityOutboundInterceptor) error {
	i.out = &outbound{}
	i.out.Next = out
	return i.Next.Init(i.out)
}

// ExecuteActivity implements interceptor.ActivityInboundInterceptor. The beating
// goroutine ends before it returns.
func (i *inbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	if info.IsLocalActivity || info.HeartbeatTimeout == 0 {
		return i.Next.ExecuteActivity(ctx, in)
	}
	if activity.HasHeartbeatDetails(ctx) {
		i.out.inherit(ctx)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		tick := time.NewTicker(i.every)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ctx.Done():
				return
			case <-tick.C:
				i.out.repeat(ctx)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	return i.Next.ExecuteActivity(ctx, in)
}

// outbound remembers what the activity recorded last.
type outbound struct {
	interceptor.ActivityOutboundInterceptorBase
	mu      sync.Mutex
	details []any
}

// RecordHeartbeat implements interceptor.ActivityOutboundInterceptor.
func (o *outbound) RecordHeartbeat(ctx context.Context, details ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.details = details
	o.Next.RecordHeartbeat(ctx, details...)
}

func (o *outbound) repeat(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Next.RecordHeartbeat(ctx, o.details...)
}

// inherit keeps what an earlier attempt recorded until this one records more.
func (o *outbound) inherit(ctx context.Context) {
	var raw any
	if err := activity.GetHeartbeatDetails(ctx, &raw); err == nil && raw != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.details = []any{raw}
	}
}
