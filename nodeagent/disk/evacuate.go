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
	stage, err := m.stageOf(ctx, in, &out)
	if err != nil || stage == stageCommitted {
		return out, err
	}
	if stage == stagePrepared {
		if stage, err = m.bringOver(ctx, in, &out, report); err != nil || stage == stageCommitted {
			return out, err
		}
	}
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

// stage is how far a move is that is to be carried on.
type stage int

const (
	stagePrepared  stage = iota // no mirror yet
	stageMirrored               // the kernel copies
	stageCommitted              // it is over
)

// stageOf finds how far a move is, and gets the mirror of one that was under way
// going.
func (m *Manager) stageOf(ctx context.Context, in contract.MoveInput, out *contract.EvacuateResult) (stage, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return 0, err
	}
	defer h.mu.Unlock()
	return m.stageLocked(ctx, in, h, out)
}

func (m *Manager) stageLocked(ctx context.Context, in contract.MoveInput, h *handle, out *contract.EvacuateResult) (stage, error) {
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return 0, err
	}
	v.prefer(in.Move)
	if f := h.failure[in.Move]; f != nil {
		return 0, f
	}
	if v.active.head.Move == in.Move && v.active.head.MovePhase == format.NoMove {
		out.CopiedBytes = int64(v.active.head.CopyRegions * v.active.head.RegionBytes)
		return stageCommitted, nil
	}
	if v.incoming == nil || v.incoming.head.Move != in.Move {
		return 0, contract.Refuse(contract.MoveFailed, "move %s is not prepared on this node", in.Move).WithDisk(in.Disk).WithNext("start the operation again")
	}
	if v.moving() {
		if err := m.assembleTop(ctx, in.Disk, h, v); err != nil {
			return 0, err
		}
	}
	if !v.moving() {
		return stagePrepared, nil
	}
	st, _, err := m.mirrorState(in.Disk)
	if err != nil {
		return 0, err
	}
	out.ResumedFraction = copyFraction(v.incoming.head, st)
	if f, ok := h.resumed[in.Move]; ok { // found so by the assembly; the kernel has gone on since
		out.ResumedFraction = f
	}
	return stageMirrored, nil
}

// start begins the mirror of a prepared move.
func (m *Manager) start(ctx context.Context, in contract.MoveInput, out *contract.EvacuateResult) (stage, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return 0, err
	}
	defer h.mu.Unlock()
	s, err := m.stageLocked(ctx, in, h, out)
	if err != nil || s != stagePrepared {
		return s, err
	}
	m.holdBack(in.Disk, h.view.incoming.head) // the kernel copies from the first swap on
	return stageMirrored, m.begin(ctx, in.Disk, h)
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
	before := h.before(in.Move)
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
	out.CopiedBytes = before + total
	out.UsedBytes = int64(pool.UsedData * h.view.active.head.BlockBytes)
	out.SwapPausesMS = h.pauses[in.Move]
	return true, nil
}

// before is what was copied before there was a mirror, as far as this agent knows.
func (h *handle) before(move string) int64 {
	if c := h.carried; c != nil && c.move == move {
		return int64(c.written + c.identical)
	}
	return 0
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
