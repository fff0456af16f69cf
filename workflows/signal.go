package workflows

import (
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

	take []func() bool // one per signal: receives one without waiting
}

// listen receives signals for as long as the workflow runs, and notes Temporal's
// own cancellation of root.
func (s *signals) listen(root, ctx workflow.Context, op *operation) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		root.Done().Receive(ctx, nil)
		s.cancelled = true
		op.show(ctx)
	})
	sel := workflow.NewSelector(ctx)
	on(ctx, s, sel, contract.SignalPause, func(struct{}) { s.paused, s.throttle = true, true })
	on(ctx, s, sel, contract.SignalResume, func(struct{}) { s.paused, s.throttle = false, true })
	on(ctx, s, sel, contract.SignalCancel, func(struct{}) { s.cancelled = true })
	on(ctx, s, sel, contract.SignalThrottle, func(t contract.Throttle) { s.rate, s.throttle = max(t.MiBs, 0), true })
	on(ctx, s, sel, contract.SignalPressure, s.press)
	on(ctx, s, sel, contract.SignalRehome, func(in contract.RehomeInput) {
		in.Disk = op.disk
		if err := in.Validate(); err != nil {
			op.progress.Refusal = contract.Refuse(contract.BadInput, "rehome: %v", err).WithDisk(op.disk)
			return
		}
		s.rehome = &in
	})
	s.drain()
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			sel.Select(ctx)
			op.progress.Paused = s.paused
			op.show(ctx)
		}
	})
}

// on routes a signal to fn, both for the selector and for drain.
func on[T any](ctx workflow.Context, s *signals, sel workflow.Selector, name string, fn func(T)) {
	ch := workflow.GetSignalChannel(ctx, name)
	sel.AddReceive(ch, func(c workflow.ReceiveChannel, _ bool) {
		var v T
		if c.ReceiveAsync(&v) {
			fn(v)
		}
	})
	s.take = append(s.take, func() bool {
		var v T
		if !ch.ReceiveAsync(&v) {
			return false
		}
		fn(v)
		return true
	})
}

// drain receives what has arrived and was not received yet.
func (s *signals) drain() {
	for _, take := range s.take {
		for take() {
		}
	}
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
