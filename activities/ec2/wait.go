package ec2

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"go.temporal.io/sdk/activity"

	"github.com/ebb-storage/ebb/internal/contract"
)

// passing tells errors that say nothing of what was asked: throttling, a server's
// error, the network.
var passing = retry.IsErrorRetryables(retry.DefaultRetryables)

// throttled says that EC2 refused to hear a call now.
func throttled(err error) bool {
	_, is := retry.DefaultThrottleErrorCodes[code(err)]
	return is
}

// poll calls look until it is done or fails, with growing, jittered pauses. An
// error that may pass fails it only when there was no other answer for Outage,
// so look must bear to be called again after one. What it waits for stands in
// the heartbeat.
func (o Options) poll(ctx context.Context, what string, look func(context.Context) (bool, error)) error {
	pause := o.PollMin
	var failing time.Time // since when there are only errors
	for {
		done, err := look(ctx)
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			failing = time.Time{}
		case ctx.Err() != nil || passing.IsErrorRetryable(err) != aws.TrueTernary:
			return err
		case failing.IsZero():
			failing = time.Now()
			level := slog.LevelWarn
			if throttled(err) {
				level = slog.LevelDebug // every long list meets it
			}
			o.Log.Log(ctx, level, "EC2 did not answer; trying again", "waiting", what, "error", err)
		case time.Since(failing) > o.Outage:
			return err
		}
		for left := pause/2 + rand.N(pause/2+1); left > 0; left -= beatEvery {
			beat(ctx, what)
			if err := sleep(ctx, min(left, beatEvery)); err != nil {
				return fmt.Errorf("waiting until %s: %w", what, err)
			}
		}
		pause = min(pause*3/2, o.PollMax)
	}
}

// beatEvery is how often a long pause is a heartbeat: a step that does not beat for
// 10 s may be taken for dead (settings).
const beatEvery = 4 * time.Second

// beat records a heartbeat.
func beat(ctx context.Context, what string) {
	if activity.IsActivity(ctx) {
		activity.RecordHeartbeat(ctx, what)
	}
}

// settled calls look until it is content, or until EC2's describes had Settle to
// catch up; then what look said last is the truth. Only a refusal is doubted:
// other errors are returned at once.
func (a *Activities) settled(ctx context.Context, what string, look func(context.Context) error) error {
	until := time.Now().Add(a.Settle)
	var last error
	err := a.poll(ctx, what, func(ctx context.Context) (bool, error) {
		asked := time.Now() // what is seen is no newer than the question
		last = look(ctx)
		if last != nil && passing.IsErrorRetryable(last) == aws.TrueTernary {
			return false, last
		}
		_, doubtful := contract.AsRefusal(last)
		return !doubtful || asked.After(until), nil
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
