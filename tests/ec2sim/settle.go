package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Every transition is a pair of a state and the time it ends (Due), both on
// disk. settleVolume moves a volume through all that has fallen due and arms a
// timer for the rest, so a restarted server needs nothing but its state.

// settleVolume advances the volume as far as time and plug allow. Lock held.
func (s *Server) settleVolume(id string) {
	for {
		v, ok := s.st.Volumes[id]
		if !ok {
			s.disarm(id)
			return
		}
		next, moved := s.stepVolume(v)
		if !moved {
			s.arm(id, next, func() { s.settleVolume(id) })
			return
		}
		if _, ok := s.st.Volumes[id]; ok {
			s.touchVolume(v)
		}
	}
}

// stepVolume does one transition that is due, or tells when the next will be
// (zero: none is waiting for time).
func (s *Server) stepVolume(v *Volume) (next time.Time, moved bool) {
	if v.Copying {
		return time.Time{}, false
	}
	now := s.clk.Now()
	later := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	switch v.State {
	case StateCreating:
		if v.Due.After(now) {
			later(v.Due)
			break
		}
		s.endCreate(v)
		return next, true
	case StateDeleting:
		if v.Due.After(now) {
			later(v.Due)
			break
		}
		s.removeFile(s.VolumePath(v.ID))
		s.forgetVolume(v.ID)
		return next, true
	}
	if a := v.Attachment; a != nil && a.State != StateAttached && !a.stuck() && !s.plugging[v.ID] {
		if a.Due.After(now) {
			later(a.Due)
		} else if s.stepAttachment(v, a) {
			return next, true
		}
	}
	if m := v.modification(); m.running() {
		if m.Due.After(now) {
			later(m.Due)
		} else if s.stepModification(v, m) {
			return next, true
		}
	}
	return next, false
}

func (s *Server) endCreate(v *Volume) {
	switch v.AsyncFailure {
	case "":
		v.State = StateAvailable
		v.Due = time.Time{}
	case StateError:
		v.State = StateError
		v.Due = time.Time{}
	default:
		s.removeFile(s.VolumePath(v.ID))
		s.forgetVolume(v.ID)
	}
}

// stuck attachments wait for a detach, not for time.
func (a *Attachment) stuck() bool { return a.State == StateAttaching && a.Hung }

// stepAttachment goes on with an attach or detach that is due; false when it
// now waits for the plug.
func (s *Server) stepAttachment(v *Volume, a *Attachment) bool {
	if s.plug != nil {
		s.startPlug(v, a.State)
		return false
	}
	if a.State == StateAttaching {
		a.State = StateAttached
	} else {
		s.endDetach(v)
	}
	return true
}

func (s *Server) endDetach(v *Volume) {
	gone := v.Attachment.DeleteAfterDetach
	v.Attachment = nil
	if v.State == StateInUse {
		v.State = StateAvailable
	}
	if gone {
		v.State = StateDeleting
		v.Due = s.clk.Now().Add(s.lag.Delete.draw(s.rng))
	}
}

// stepModification goes on with a modification that is due; false when it now
// waits for the plug.
func (s *Server) stepModification(v *Volume, m *Modification) bool {
	if m.State == StateOptimizing {
		m.State, m.End, m.Since = StateCompleted, m.Due, m.Due
		return true
	}
	if s.plugging[v.ID] {
		return false
	}
	if m.Failure != "" {
		m.State, m.StatusMessage, m.End = StateFailed, m.Failure, m.Due
		return true
	}
	if err := growFile(s.VolumePath(v.ID), s.fileBytes(m.To.SizeGiB)); err != nil {
		m.State, m.StatusMessage, m.End = StateFailed, err.Error(), s.clk.Now()
		return true
	}
	attached := v.Attachment != nil && v.Attachment.State == StateAttached
	if s.plug != nil && attached && m.To.SizeGiB != m.From.SizeGiB {
		s.startPlug(v, StateModifying)
		return false
	}
	s.endModify(v, m)
	return true
}

// resizeTries is how often a node is told of a volume's new size before the
// modification goes on without it.
const resizeTries = 5

func (s *Server) endModify(v *Volume, m *Modification) {
	m.State, m.Since = StateOptimizing, m.Due
	m.Due = m.Due.Add(s.lag.Optimize.draw(s.rng))
	v.Shape = m.To
}

// startPlug calls the plug for the transition the volume is in, in its own
// goroutine, and settles the volume afterwards.
func (s *Server) startPlug(v *Volume, transition string) {
	if s.closed {
		return
	}
	id, inst, device := v.ID, v.Attachment.InstanceID, v.Attachment.Device
	size := v.SizeGiB
	if transition == StateModifying {
		size = v.modification().To.SizeGiB
	}
	path, bytes, plug := s.VolumePath(id), s.Bytes(size), s.plug
	s.plugging[id] = true
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		ctx, cancel := context.WithTimeout(s.ctx, s.opt.PlugTimeout)
		defer cancel()
		var err error
		switch transition {
		case StateAttaching:
			err = plug.Attach(ctx, inst, id, device, path, bytes)
		case StateModifying:
			err = plug.Resize(ctx, inst, id, bytes)
		default:
			err = plug.Detach(ctx, inst, id)
		}
		s.endPlug(id, inst, transition, err)
	}()
}

func (s *Server) endPlug(id, inst, transition string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.plugging, id)
	if s.closed {
		return // the next server repeats the call
	}
	if err != nil {
		s.opt.Logger.Warn("plug", "volume", id, "instance", inst, "transition", transition, "err", err)
	}
	v, ok := s.st.Volumes[id]
	if !ok {
		return
	}
	a, m := v.Attachment, v.modification()
	same := a != nil && a.InstanceID == inst
	switch {
	case transition == StateModifying && m.running() && m.State == StateModifying:
		m.Tries++
		if err != nil && m.Tries < resizeTries {
			m.Due = s.clk.Now().Add(s.opt.BusyRetry)
		} else {
			s.endModify(v, m) // EBS does not ask the instance
		}
	case transition == StateAttaching && same && a.State == StateAttaching:
		if err != nil {
			a.Hung, a.Reason = true, err.Error()
		} else {
			a.State = StateAttached
		}
	case same && (a.State == StateDetaching || a.State == StateBusy) && transition != StateAttaching && transition != StateModifying:
		if err != nil && !a.Force {
			a.State, a.Reason = StateBusy, err.Error()
			a.Due = s.clk.Now().Add(s.opt.BusyRetry)
		} else {
			s.endDetach(v)
		}
	}
	s.touchVolume(v)
	s.settleVolume(id)
	if cerr := s.commit(); cerr != nil {
		s.opt.Logger.Error("commit", "err", cerr)
	}
}

// settleSnapshot completes a snapshot that is due. Lock held.
func (s *Server) settleSnapshot(id string) {
	sn, ok := s.st.Snapshots[id]
	if !ok || sn.State != StatePending || sn.Copying {
		s.disarm(id)
		return
	}
	if sn.Due.After(s.clk.Now()) {
		s.arm(id, sn.Due, func() { s.settleSnapshot(id) })
		return
	}
	s.disarm(id)
	sn.State, sn.Completed = StateCompleted, sn.Due
	if sn.Fails {
		sn.State, sn.Completed = StateError, time.Time{}
	}
	s.touchSnapshot(sn)
}

// arm replaces the timer of id; a zero time only removes it.
func (s *Server) arm(id string, at time.Time, f func()) {
	s.disarm(id)
	if at.IsZero() || s.closed {
		return
	}
	s.timers[id] = s.clk.AfterFunc(at.Sub(s.clk.Now()), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return
		}
		f()
		if err := s.commit(); err != nil {
			s.opt.Logger.Error("commit", "err", err)
		}
	})
}

func (s *Server) disarm(id string) {
	if stop, ok := s.timers[id]; ok {
		stop()
		delete(s.timers, id)
	}
}

func (s *Server) removeFile(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opt.Logger.Error("remove", "err", fmt.Errorf("contents: %w", err))
	}
}
