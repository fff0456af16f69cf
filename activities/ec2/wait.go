package ec2

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"go.temporal.io/sdk/activity"

	"github.com/ebb-storage/ebb/internal/contract"
)

// poll calls look until it is done or fails, with growing, jittered pauses. What
// it waits for stands in the heartbeat.
func (o Options) poll(ctx context.Context, what string, look func(context.Context) (bool, error)) error {
	pause := o.PollMin
	for {
		done, err := look(ctx)
		if err != nil || done {
			return err
		}
		if activity.IsActivity(ctx) {
			activity.RecordHeartbeat(ctx, what)
		}
		if err := sleep(ctx, pause/2+rand.N(pause/2+1)); err != nil {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
		pause = min(pause*3/2, o.PollMax)
	}
}

// settled calls look until it is content, or until EC2's describes had Settle to
// catch up; then what look said last is the truth. Only a refusal is doubted:
// other errors are returned at once.
func (a *Activities) settled(ctx context.Context, what string, look func(context.Context) error) error {
	until := time.Now().Add(a.Settle)
	var last error
	err := a.poll(ctx, what, func(ctx context.Context) (bool, error) {
		last = look(ctx)
		_, doubtful := contract.AsRefusal(last)
		return !doubtful || time.Now().After(until), nil
	})
	if err != nil {
		return err
	}
	return last
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
