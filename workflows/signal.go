package workflows

import (
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// maxPressure bounds the pressure signals kept: one per generation counts, the
// newest.
const maxPressure = 4

// signals is what has been asked of a running operation.
type signals struct {
	paused    bool
	cancelled bool
	rehome    *contract.RehomeInput
	pressure  []contract.Pressure
	rate      int64 // MiB/s; 0: unlimited
	// throttle: rate or paused changed and the node does not know.
	throttle bool

	// One per signal: says whether one is there, receives one without waiting.
	waiting, take []func() bool
}

// listen receives signals for as long as the workflow runs, and notes Temporal's
// own cancellation of root.
func (s *signals) listen(root, ctx workflow.Context, op *operation) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		root.Done().Receive(ctx, nil)
		s.cancelled = true
		op.show(ctx)
	})
	s.take = append(s.take, func() bool {
		news := root.Err() != nil && !s.cancelled
		s.cancelled = s.cancelled || news
		return news
	})
	on(ctx, s, contract.SignalPause, func(struct{}) { s.paused, s.throttle = true, true })
	on(ctx, s, contract.SignalResume, func(struct{}) { s.paused, s.throttle = false, true })
	on(ctx, s, contract.SignalCancel, func(struct{}) { s.cancelled = true })
	on(ctx, s, contract.SignalThrottle, func(t contract.Throttle) { s.rate, s.throttle = max(t.MiBs, 0), true })
	on(ctx, s, contract.SignalPressure, s.press)
	on(ctx, s, contract.SignalRehome, func(in contract.RehomeInput) {
		in.Disk = op.disk
		if err := in.Validate(); err != nil {
			op.progress.Refusal = badInput(fmt.Errorf("rehome: %w", err)).WithDisk(op.disk)
			return
		}
		s.rehome = &in
	})
	s.drain()
	// It waits for signals without receiving them, so that drain, wherever it is
	// called, finds all that Temporal has delivered.
	workflow.Go(ctx, func(ctx workflow.Context) {
		for workflow.Await(ctx, s.pending) == nil {
			op.hear(ctx)
		}
	})
}

// on routes a signal to fn when it is drained.
func on[T any](ctx workflow.Context, s *signals, name string, fn func(T)) {
	ch := workflow.GetSignalChannel(ctx, name)
	s.waiting = append(s.waiting, func() bool { return ch.Len() > 0 })
	s.take = append(s.take, func() bool {
		var v T
		if !ch.ReceiveAsync(&v) {
			return false
		}
		fn(v)
		return true
	})
}

// hear receives what has arrived and shows it.
func (op *operation) hear(ctx workflow.Context) {
	if op.signals.drain() {
		op.progress.Paused = op.signals.paused
		op.show(ctx)
	}
}

// pending says whether a signal has arrived that was not received yet.
func (s *signals) pending() bool {
	for _, waiting := range s.waiting {
		if waiting() {
			return true
		}
	}
	return false
}

// drain receives what has arrived and was not received yet. It says whether
// there was anything.
func (s *signals) drain() bool {
	news := false
	for _, take := range s.take {
		for take() {
			news = true
		}
	}
	return news
}

func (s *signals) press(p contract.Pressure) {
	for i, old := range s.pressure {
		if old.Generation == p.Generation {
			s.pressure[i] = p
			return
		}
	}
	if len(s.pressure) < maxPressure {
		s.pressure = append(s.pressure, p)
	}
}

// takePressure gives the oldest pressure signal.
func (s *signals) takePressure() (contract.Pressure, bool) {
	if len(s.pressure) == 0 {
		return contract.Pressure{}, false
	}
	p := s.pressure[0]
	s.pressure = s.pressure[1:]
	return p, true
}
