package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// synced checks that a move has every region in sync and both legs alive. A nil
// view means the move was committed already.
func (m *Manager) synced(ctx context.Context, in contract.MoveInput) (*view, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return nil, err
	}
	defer h.mu.Unlock()
	return m.syncedLocked(ctx, in, h)
}

func (m *Manager) syncedLocked(ctx context.Context, in contract.MoveInput, h *handle) (*view, error) {
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return nil, err
	}
	v.prefer(in.Move)
	if v.active.head.Move == in.Move && v.active.head.MovePhase == format.NoMove {
		return nil, nil
	}
	if f := h.failure[in.Move]; f != nil {
		return nil, f
	}
	if v.incoming == nil && v.active.head.Move == in.Move {
		return nil, contract.Refuse(contract.MoveFailed, "the new volume is gone or its header cannot be read: move %s cannot go on", in.Move).
			WithDisk(in.Disk).WithVolume(v.active.head.Peer).WithNext("check the new volume's status in EC2; run the operation again")
	}
	if !v.moving() || v.active.head.Move != in.Move {
		return nil, contract.Refuse(contract.MoveFailed, "move %s is not running", in.Move).WithDisk(in.Disk).WithNext("start the operation again")
	}
	if err := m.dropIfFailed(ctx, in.Disk, h); err != nil {
		return nil, err
	}
	if f := h.failure[in.Move]; f != nil {
		return nil, f
	}
	st, ok, err := m.mirrorState(in.Disk)
	if err != nil {
		return nil, err
	}
	if !ok || !st.AllAlive() || st.InSync != st.Total {
		return nil, fmt.Errorf("disk %s: move %s is at %d of %d regions", in.Disk, in.Move, st.InSync, st.Total)
	}
	return v, nil
}

// CommitMove makes the incoming generation the active one, durably, and swaps
// the disk onto it. It is safe to repeat, before and after the commit.
func (m *Manager) CommitMove(ctx context.Context, in contract.MoveInput) (contract.CommitResult, error) {
	var out contract.CommitResult
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return out, err
	}
	defer h.mu.Unlock()
	v, err := m.syncedLocked(ctx, in, h)
	if err != nil {
		return out, err
	}
	if v != nil {
		if err := m.commit(ctx, in, h, v); err != nil {
			return out, err
		}
	}
	if h.view, err = m.look(ctx, in.Disk); err != nil {
		return out, err
	}
	// A crash after the header may have left the mirror: finish the swap.
	if err := m.assembleTop(ctx, in.Disk, h, h.view); err != nil {
		return out, err
	}
	m.stopCounting(in.Disk, h)
	if p := h.pauses[in.Move]; len(p) > 0 {
		out.SwapPauseMS = p[len(p)-1]
	}
	out.Generation = h.view.active.head.Generation
	out.Measurement, err = m.measure(ctx, in.Disk, h)
	return out, err
}

func (m *Manager) commit(ctx context.Context, in contract.MoveInput, h *handle, v *view) error {
	a, n := v.active, v.incoming
	// The disk's past moves with it.
	m.flushHistory(ctx, h)
	records, err := m.history(ctx, a)
	if err != nil { // the past is worth less than the move
		m.Logger.Warn("the disk's usage history is lost", "disk", in.Disk, "error", err)
	}
	if len(records) > 0 {
		if err := m.writeHistory(ctx, n.vols[0], records); err != nil {
			return err
		}
	}
	// I5: the old header says first that the truth may be elsewhere, so that the
	// old volumes alone are never taken for it.
	if err := m.save(ctx, a, func(h *format.Header) { h.MovePhase = format.Committing }); err != nil {
		return err
	}
	if err := m.step(ctx, "committing"); err != nil {
		return err
	}
	if err := m.save(ctx, n, func(h *format.Header) {
		h.Role, h.MovePhase, h.ThrottleMiBs, h.Paused = format.Active, format.NoMove, 0, false
	}); err != nil {
		return err
	}
	if err := m.step(ctx, "committed"); err != nil {
		return err
	}
	// Until the swap the old backing has everything: if the new one died in this
	// moment, it is still the truth (see lookIn).
	if st, _, err := m.mirrorState(in.Disk); err != nil || !st.AllAlive() {
		return errors.Join(err, fmt.Errorf("disk %s: a leg failed in the middle of the commit (%s): %w", in.Disk, st.Health, errLeg))
	}
	thin, err := m.DM.Info(stackName(n.head))
	if err != nil {
		return err
	}
	if err := m.swap(h, in.Move, topName(in.Disk), dm.Linear(0, n.head.SizeBytes/sector, thin.Dev, 0)); err != nil {
		return err
	}
	if err := m.step(ctx, "swapped"); err != nil {
		return err
	}
	return m.save(ctx, a, func(h *format.Header) { h.Role, h.MovePhase = format.Retired, format.NoMove })
}

// RetireBacking takes the generation that a committed move left behind down.
// Its volumes can be detached afterwards. It is safe to repeat.
func (m *Manager) RetireBacking(ctx context.Context, in contract.MoveInput) (contract.RetireBackingResult, error) {
	var out contract.RetireBackingResult
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return out, err
	}
	defer h.mu.Unlock()
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return out, err
	}
	if v.active.head.Move != in.Move || v.active.head.MovePhase != format.NoMove {
		return out, contract.Refuse(contract.MoveFailed, "move %s is not committed", in.Move).WithDisk(in.Disk).WithNext("start the operation again")
	}
	if err := m.assembleTop(ctx, in.Disk, h, v); err != nil {
		return out, err
	}
	if err := m.takeDownAll(in.Disk, v.active.head); err != nil {
		return out, err
	}
	if err := m.remove(stackName(v.active.head) + partLogB); err != nil {
		return out, err
	}
	if o := m.retiring(v); o != nil {
		if o.head.Role != format.Retired {
			if err := m.save(ctx, o, func(h *format.Header) { h.Role, h.MovePhase = format.Retired, format.NoMove }); err != nil {
				return out, err
			}
		}
		out.Volumes, out.Generation = o.vols, o.head.Generation
	}
	return out, nil
}
