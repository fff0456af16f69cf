// Package app is what Ebb's long-running programs have in common around their
// wiring: flags and logger, exit codes, and a run that ends with a signal or by
// itself. It wires nothing and knows nothing of what runs.
package app

import (
	"context"
	"errors"
	"os"
	"time"
)

// StopTimeout is how long a stop may take: short activities are let end, others
// are told to.
const StopTimeout = 30 * time.Second

// Outcome carries what a program's run ended with. It holds one.
type Outcome chan error

// NewOutcome makes an Outcome.
func NewOutcome() Outcome { return make(Outcome, 1) }

// Hooks start and stop run in the background. When run ends by itself, shutdown
// is called. Stop cancels run's context and waits for its end, then calls close,
// which may be nil; late is said when run does not end in time.
func Hooks(run func(context.Context) error, shutdown func(), closing func() error, result Outcome, late string) (start, stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	start = func(context.Context) error {
		go func() {
			defer close(done)
			result <- run(ctx)
			shutdown()
		}()
		return nil
	}
	stop = func(stopping context.Context) error {
		cancel()
		select {
		case <-done:
		case <-stopping.Done():
			return errors.New(late)
		}
		if closing == nil {
			return nil
		}
		return closing()
	}
	return start, stop
}

// Application is a wired program; *fx.App is one.
type Application interface {
	Err() error
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	Done() <-chan os.Signal
}

// Run runs an application until ctx is done or it ends by itself, and stops it
// within StopTimeout. The error is what its wiring, its start, its run or its
// stop failed with.
func Run(ctx context.Context, a Application, result Outcome) error {
	if err := a.Err(); err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-a.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), StopTimeout)
	defer cancel()
	err := a.Stop(stopping)
	select {
	case ran := <-result:
		return errors.Join(ran, err)
	default:
		return err
	}
}
