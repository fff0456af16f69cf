package disk

import (
	"context"
	"fmt"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// Evacuate begins the move, or goes on with it, and returns when every region is
// in sync. Ending ctx leaves the kernel copying.
func (m *Manager) Evacuate(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.EvacuateResult, error) {
	var out contract.EvacuateResult
	resumed, began, err := m.startOrResume(ctx, in, &out)
	if err != nil || !began {
		return out, err
	}
	out.ResumedFraction = resumed
	t := newTracker(contract.PhaseCopy)
	throttle := &throttle{m: m, disk: in.Disk}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := m.evacuated(ctx, in, &out, t, throttle, report)
		if done || err != nil {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-tick.C:
		}
	}
}

// startOrResume gets the mirror going. began is false when the move was
// committed already.
func (m *Manager) startOrResume(ctx context.Context, in contract.MoveInput, out *contract.EvacuateResult) (fraction float64, began bool, err error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return 0, false, err
	}
	defer h.mu.Unlock()
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return 0, false, err
	}
	v.prefer(in.Move)
	if f := h.failure[in.Move]; f != nil {
		return 0, false, f
	}
	if v.active.head.Move == in.Move && v.active.head.MovePhase == format.NoMove {
		out.CopiedBytes = int64(v.active.head.CopyRegions * v.active.head.RegionBytes)
		return 0, false, nil
	}
	if v.incoming == nil || v.incoming.head.Move != in.Move {
		return 0, false, contract.Refuse(contract.MoveFailed, "move %s is not prepared on this node", in.Move).WithDisk(in.Disk).WithNext("start the operation again")
	}
	if v.moving() {
		if err := m.assembleTop(ctx, in.Disk, h, v); err != nil {
			return 0, false, err
		}
	}
	if v.moving() {
		st, _, err := m.mirrorState(in.Disk)
		if err != nil {
			return 0, false, err
		}
		fraction := copyFraction(v.incoming.head, st)
		if f, ok := h.resumed[in.Move]; ok { // found so by the assembly; the kernel has gone on since
			fraction = f
		}
		return fraction, true, nil
	}
	m.holdBack(in.Disk, v.incoming.head) // the kernel copies from the first swap on
	return 0, true, m.begin(ctx, in.Disk, h)
}

// copyFraction is the share of a move's copy that is done.
func copyFraction(n *format.Header, st dm.MirrorStatus) float64 {
	return 1 - float64(min(st.Total-st.InSync, n.CopyRegions))/float64(max(n.CopyRegions, 1))
}

// evacuated looks once at the copy.
func (m *Manager) evacuated(ctx context.Context, in contract.MoveInput, out *contract.EvacuateResult, t *tracker, th *throttle, report func(contract.CopyProgress)) (bool, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return false, err
	}
	defer h.mu.Unlock()
	if h.view == nil || !h.view.moving() {
		if f := h.failure[in.Move]; f != nil {
			return false, f
		}
		return false, contract.Refuse(contract.MoveFailed, "move %s is no longer running on this node", in.Move).WithDisk(in.Disk).WithNext("start the operation again")
	}
	if err := m.dropIfFailed(ctx, in.Disk, h); err != nil {
		return false, err
	}
	if f := h.failure[in.Move]; f != nil {
		return false, f
	}
	st, ok, err := m.mirrorState(in.Disk)
	if err != nil {
		return false, err
	}
	if !ok {
		return false, fmt.Errorf("disk %s: the mirror of move %s is gone", in.Disk, in.Move)
	}
	n := h.view.incoming.head
	total := int64(n.CopyRegions * n.RegionBytes)
	left := int64((st.Total - st.InSync) * n.RegionBytes)
	p := t.at(max(0, total-left), total)
	report(p)
	th.control(n, p.RateMiBs)
	if st.InSync < st.Total {
		return false, nil
	}
	m.unthrottle(in.Disk)
	pool, err := m.poolState(h.view.active)
	if err != nil {
		return false, err
	}
	out.CopiedBytes = total
	out.UsedBytes = int64(pool.UsedData * h.view.active.head.BlockBytes)
	out.SwapPausesMS = h.pauses[in.Move]
	return true, nil
}

// Throttle sets a move's copy rate, in the incoming header, where it outlives
// this agent.
func (m *Manager) Throttle(ctx context.Context, in contract.ThrottleMoveInput) error {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return err
	}
	defer h.mu.Unlock()
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return err
	}
	v.prefer(in.Move)
	if v.incoming == nil || v.incoming.head.Move != in.Move {
		return nil // not begun (PrepareMove carries the rate) or over
	}
	return m.save(ctx, v.incoming, func(h *format.Header) {
		h.ThrottleMiBs, h.Paused = uint64(max(0, in.MiBs)), in.Paused
	})
}
