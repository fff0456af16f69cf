package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// How a step stands to the room maker, which works beside it.
type sharing bool

const (
	// shared: room may be made while the step runs.
	shared sharing = false
	// alone: the step changes the backing or where it is.
	alone sharing = true
)

// step runs fn, which must be idempotent: it is run again when a rehome came
// between. Pause, cancel and rehome take effect before it.
func (op *operation) step(ctx workflow.Context, phase contract.Phase, how sharing, fn func() error) error {
	op.enter(ctx, phase)
	return op.again(ctx, how, fn)
}

// again is another step of the same phase.
func (op *operation) again(ctx workflow.Context, how sharing, fn func() error) error {
	for {
		if err := op.gate(ctx); err != nil {
			return err
		}
		err := op.locked(ctx, how, fn)
		if !errors.Is(err, errYield) && !op.overtaken(ctx, err) {
			return err
		}
	}
}

// overtaken says that a refusal is about a node which the disk is to leave: a
// dead one, to which nothing can be attached, while it is said where to go.
func (op *operation) overtaken(ctx workflow.Context, err error) bool {
	r, refused := contract.AsRefusal(err)
	if !refused || r.Code != contract.NodeUnknown {
		return false
	}
	op.hear(ctx)
	return op.signals.rehome != nil && op.stopped() == nil
}

func (op *operation) locked(ctx workflow.Context, how sharing, fn func() error) error {
	if how == alone {
		if err := op.mu.Lock(ctx); err != nil {
			return err
		}
		defer op.mu.Unlock()
	}
	return fn()
}

// besideRoom runs fn, which waits for writes to a pool that may be full. The caller
// holds mu. The room that was asked for already is made before; what is asked for
// meanwhile is made beside fn, without mu.
func (op *operation) besideRoom(ctx workflow.Context, fn func() error) error {
	for {
		p, ok := op.signals.takePressure()
		if !ok {
			break
		}
		if err := op.makeRoomFor(ctx, p); errors.Is(err, errYield) {
			return err
		}
	}
	op.mu.Unlock()
	err := fn()
	if lerr := op.mu.Lock(ctx); lerr != nil {
		return lerr
	}
	return err
}

// takeDown disassembles the disk. The caller holds mu. It is done again when room was
// made meanwhile: that brings a disk up.
func (op *operation) takeDown(ctx workflow.Context) error {
	for {
		made := op.made
		err := op.besideRoom(ctx, func() error {
			made = op.made
			_, err := node(ctx, op, contract.DisassembleDisk, contract.DisassembleDiskInput{Disk: op.disk}, brief)
			return err
		})
		if err != nil || op.made == made {
			return err
		}
	}
}

// gate is passed between steps: it carries out a rehome, holds while paused,
// and stops a cancelled operation.
func (op *operation) gate(ctx workflow.Context) error {
	for {
		op.hear(ctx) // also what came together with the end of the step before
		if err := op.serveRehome(ctx); err != nil {
			return err
		}
		if err := op.stopped(); err != nil {
			return err
		}
		if !op.signals.paused || op.undoing {
			return nil
		}
		op.wait(ctx, "paused: resume it to go on")
		err := workflow.Await(ctx, func() bool {
			return !op.signals.paused || op.interrupted() != nil
		})
		if err != nil {
			return err
		}
		op.wait(ctx, "")
	}
}

// stopped says why the operation should not go on. An undo, what follows a
// commit, and a rehome under way always go on.
func (op *operation) stopped() error {
	switch {
	case op.undoing || op.final || op.hauling:
		return nil
	case op.abandon != nil:
		return op.abandon
	case op.signals.cancelled:
		return errCancelled
	}
	return nil
}

// interrupted says why a call that may take long should not be waited for.
func (op *operation) interrupted() error {
	if op.signals.rehome != nil {
		return errYield
	}
	return op.stopped()
}

// onUndo registers a compensation, before the step it undoes.
func (op *operation) onUndo(what string, fn func(workflow.Context) error) {
	op.undos = append(op.undos, undo{what, fn})
}

// compensate runs the undos in reverse order, each once. It stops at the first
// that does not succeed: what comes after it relies on it.
func (op *operation) compensate(ctx workflow.Context) error {
	if len(op.undos) == 0 {
		return nil
	}
	op.undoing = true
	defer func() { op.undoing = false }()
	for len(op.undos) > 0 {
		last := op.undos[len(op.undos)-1]
		op.undos = op.undos[:len(op.undos)-1]
		err := op.step(ctx, contract.PhaseAbort, alone, func() error { return last.fn(ctx) })
		if errors.Is(err, errCommitted) {
			op.undos = nil
			return err
		}
		if err != nil {
			op.undos = nil
			return fmt.Errorf("%s: %w", last.what, err)
		}
	}
	return nil
}

// serveRehome carries out a rehome signal. A refused one is noted and changes
// nothing; the operation goes on where the disk is.
func (op *operation) serveRehome(ctx workflow.Context) error {
	for op.signals.rehome != nil {
		in := *op.signals.rehome
		op.signals.rehome = nil
		err := op.locked(ctx, alone, func() error { return op.bring(ctx, in) })
		r, refused := contract.AsRefusal(err)
		switch {
		case err == nil:
			op.progress.Refusal = nil
			op.rehomed = true
			op.final = op.final || op.progress.Operation == contract.RehomeWorkflow // nothing is left to cancel
		case refused:
			op.progress.Refusal = r
		case errors.Is(err, errYield): // a newer rehome replaces this one
		default:
			return err
		}
		op.show(ctx)
	}
	return nil
}

// serveLate serves signals that came too late for the operation itself, so that
// none is lost with the workflow. Failing is noted only: the disk is as it was
// and the agent asks again.
func (op *operation) serveLate(ctx workflow.Context) {
	op.closing = true
	op.undoing = true // what is done here is not cancelled
	defer func() { op.undoing = false }()
	if op.node == "" {
		return
	}
	for op.signals.drain(); op.signals.rehome != nil || len(op.signals.pressure) > 0; op.signals.drain() {
		if err := op.serveRehome(ctx); err != nil {
			workflow.GetLogger(ctx).Warn("A late rehome failed", "disk", op.disk, "error", err)
			continue
		}
		if p, ok := op.signals.takePressure(); ok {
			err := op.locked(ctx, alone, func() error { return op.makeRoom(ctx, p) })
			switch {
			case errors.Is(err, errYield):
				op.signals.pressure = append(op.signals.pressure, p)
			case err != nil:
				workflow.GetLogger(ctx).Warn("Making room failed", "disk", op.disk, "error", err)
			}
		}
	}
	// Wait for the room maker's last work.
	_ = op.locked(ctx, alone, func() error { return nil })
}
