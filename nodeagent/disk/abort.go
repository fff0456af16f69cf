package disk

import (
	"context"
	"errors"
	"strings"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// AbortMove puts the disk back on its old backing, which has been complete all
// the time (I4), and takes the incoming one down. It is harmless when there is
// no such move, and refused when the move is committed.
func (m *Manager) AbortMove(ctx context.Context, in contract.MoveInput) (contract.Measurement, error) {
	var none contract.Measurement
	if err := m.endPrecopy(ctx, in.Disk); err != nil {
		return none, err
	}
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return none, err
	}
	defer h.mu.Unlock()
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return none, err
	}
	v.prefer(in.Move)
	if v.active.head.Move == in.Move && v.active.head.MovePhase == format.NoMove {
		return none, contract.Refuse(contract.MoveFailed, "move %s is committed: generation %d is the disk now", in.Move, v.active.head.Generation).
			WithDisk(in.Disk).WithNext("let the operation finish")
	}
	m.stopCounting(in.Disk, h)
	if v.incoming == nil || v.incoming.head.Move != in.Move {
		if v.active.head.Move == in.Move {
			if err := m.fallBack(ctx, in.Disk, h); err != nil {
				return none, err
			}
		}
		if err := m.takeUnseenDown(in.Disk, v); err != nil {
			return none, err
		}
		return m.measure(ctx, in.Disk, h)
	}
	if err := m.fallBack(ctx, in.Disk, h); err != nil {
		return none, err
	}
	n := h.view.incoming
	if err := m.takeDown(n.head); err != nil {
		return none, err
	}
	if err := m.save(ctx, n, func(h *format.Header) { h.Role, h.MovePhase = format.Retired, format.NoMove }); err != nil {
		// The old header does not know the move any more: what the new one says
		// does not matter.
		m.Logger.Warn("mark aborted generation as scrap", "disk", in.Disk, "volume", n.vols[0], "error", err)
	}
	if h.view, err = m.look(ctx, in.Disk); err != nil {
		return none, err
	}
	h.view.forget(in.Move)
	delete(h.failure, in.Move)
	delete(h.pauses, in.Move)
	return m.measure(ctx, in.Disk, h)
}

// takeUnseenDown takes the stack of a move down whose volume's header cannot be
// read, or not any more: the volume could not be detached with it. A running
// mirror needs what is there.
func (m *Manager) takeUnseenDown(d contract.DiskID, v *view) error {
	if v.incoming != nil {
		return nil
	}
	if _, mirrored, err := m.mirrorState(d); err != nil || mirrored {
		return err
	}
	return m.takeDownAll(d, v.active.head)
}

// fallBack returns the disk to its old backing for good. The header comes
// first: once it has forgotten the move no assembly can take the incoming
// generation's log, which is about to become stale, for a resumable one.
func (m *Manager) fallBack(ctx context.Context, d contract.DiskID, h *handle) error {
	ctx = context.WithoutCancel(ctx)
	a := h.view.active
	if err := m.save(ctx, a, endMove); err != nil {
		// One of the two must forget the move durably before the swap, else the
		// log goes stale unnoticed. Until one does, the mirror stays: it holds
		// writes, it loses none.
		n := h.view.incoming
		if n == nil {
			return err
		}
		if e := m.save(ctx, n, func(h *format.Header) { h.Role, h.MovePhase = format.Retired, format.NoMove }); e != nil {
			return errors.Join(err, e)
		}
		m.Logger.Error("the old header cannot be written, the new one is scrap now", "disk", d, "volume", a.vols[0], "error", err)
	}
	if err := m.step(ctx, "abort-header"); err != nil {
		return err
	}
	old, err := m.DM.Info(stackName(a.head))
	if err != nil {
		return err
	}
	m.failOthersWhenFull(d, a.head)
	m.unthrottle(d)
	m.stopCounting(d, h)
	return m.ensureTop(h, d, dm.Linear(0, a.head.SizeBytes/sector, old.Dev, 0))
}

// failOthersWhenFull makes the backings of a disk that are being given up, all but
// the one that stays, fail the writes for which they have no room instead of
// keeping them: a swap away from the mirror would wait for them. The mirror holds
// what such a leg failed, and the swap hands it on. When this cannot be done (the
// pool's volume is dead) there is no room to wait for either.
func (m *Manager) failOthersWhenFull(d contract.DiskID, stays *format.Header) {
	list, err := m.DM.List()
	if err != nil {
		m.Logger.Warn("let full pools fail", "disk", d, "error", err)
		return
	}
	for _, i := range list {
		stack, part := cutPart(i.Name)
		if part != partPool || !strings.HasPrefix(i.Name, topName(d)+"-g") || i.UUID != uuidOf(i.Name) || stack == stackName(stays) {
			continue
		}
		_, table, err := m.DM.Table(i.Name)
		if err != nil || len(table) != 1 || table[0].Type != "thin-pool" || strings.Contains(table[0].Params, dm.ErrorIfNoSpace) {
			continue
		}
		if _, err := m.replace(i.Name, dm.WithFeature(table[0], dm.ErrorIfNoSpace)); err != nil {
			m.Logger.Warn("let a full pool fail", "device", i.Name, "error", err)
		}
	}
}

// dropIfFailed looks at the mirror's legs. When one has failed it ends the move
// at once and puts the disk back on its old backing: the mirror holds the
// application's writes meanwhile, and the swap without flush hands them over
// (I2). What happened is kept for the operation to read.
func (m *Manager) dropIfFailed(ctx context.Context, d contract.DiskID, h *handle) error {
	st, ok, err := m.mirrorState(d)
	if err != nil || !ok || st.AllAlive() || len(st.Health) == 0 || h.view == nil {
		return err
	}
	if h.view.active.head.MovePhase == format.NoMove {
		// The headers may have been read between a commit's new one and its swap: now
		// that a leg has failed they say something else (see lookIn).
		if v, err := m.look(ctx, d); err == nil && v.active != nil {
			h.view = v
		}
	}
	a, n := h.view.active, h.view.incoming
	move, peer := a.head.Move, a.head.Peer
	if n != nil { // nil: its volume is gone altogether
		move, peer = n.head.Move, n.vols[0]
	}
	r := contract.Refuse(contract.MoveFailed, "the new volume failed (legs %s, log %c): the move was aborted and the disk is on its old volume", st.Health, st.LogHealth).
		WithDisk(d).WithVolume(peer).WithNext("check the new volume's status in EC2; run the operation again")
	if st.Health[0] != 'A' {
		r = contract.Refuse(contract.VolumeFailing, "the disk's volume returns errors (legs %s): the move was aborted", st.Health).
			WithDisk(d).WithVolume(h.view.active.vols[0]).WithNext("check the volume's status in EC2; restore from the pre-move snapshot if it is impaired")
	}
	m.Logger.Error("leg failed", "disk", d, "legs", string(st.Health), "log", string(st.LogHealth), "move", move)
	if n != nil && st.Health[0] != 'A' && a.head.MovePhase == format.Committing {
		// The old volume fails while the commit is under way. If the new header
		// is in force the new generation, identical, is the disk.
		if v, err := m.look(ctx, d); err == nil && v.active.head.Generation == n.head.Generation {
			h.view = v
			m.stopCounting(d, h)
			return m.assembleTop(ctx, d, h, v)
		}
	}
	if err := m.fallBack(ctx, d, h); err != nil {
		return err // the caller looks again soon
	}
	h.failure[move] = r
	kind := EventMoveFailed
	if r.Code == contract.VolumeFailing {
		kind = EventReadError
	}
	h.untold = append(h.untold, Event{Disk: d, Kind: kind, Message: r.Error()})
	if err := m.takeDownAll(d, a.head); err != nil {
		m.Logger.Warn("take failed leg down", "disk", d, "error", err)
	}
	return nil
}
