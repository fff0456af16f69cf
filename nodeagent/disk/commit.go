package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// verifyChunk is how much is read at once from each leg.
const verifyChunk = 4 << 20

// settle is how long a difference may last: a write that reached one leg and is
// on its way to the other.
const settle = 10 * time.Second

// VerifyMove reads every used byte from both legs, past the page cache, and
// compares. It is safe to repeat.
func (m *Manager) VerifyMove(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.VerifyResult, error) {
	var out contract.VerifyResult
	v, err := m.synced(ctx, in)
	if err != nil || v == nil {
		return out, err
	}
	v = v.still() // it is read without the lock
	old, err := m.DM.Info(stackName(v.active.head))
	if err != nil {
		return out, err
	}
	thin, err := m.DM.Info(stackName(v.incoming.head))
	if err != nil {
		return out, err
	}
	fo, err := openDevice(old, os.O_RDONLY)
	if err != nil {
		return out, err
	}
	defer fo.Close()
	fn, err := openDevice(thin, os.O_RDONLY)
	if err != nil {
		return out, err
	}
	defer fn.Close()
	type run struct{ start, length uint64 }
	var runs []run
	var total int64
	if err := m.mappedLocked(ctx, in.Disk, v.active, func(start, length uint64) error {
		length = min(length, v.active.head.SizeBytes-start)
		runs = append(runs, run{start, length})
		total += int64(length)
		return nil
	}); err != nil {
		return out, err
	}
	c, unchanged, err := m.provenBefore(ctx, in)
	if err != nil {
		return out, err
	}
	t := newTracker(contract.PhaseVerify)
	a, b := volume.AlignedBuffer(verifyChunk), volume.AlignedBuffer(verifyChunk)
	for _, r := range runs {
		for off := r.start; off < r.start+r.length; {
			n := min(verifyChunk, r.start+r.length-off)
			if c != nil {
				x := off / c.area
				n = min(n, (x+1)*c.area-off)
				if unchanged[x] && c.holds(off, n, v.incoming.head.RegionBytes) { // compared by the pre-copy
					out.VerifiedBytes += int64(n)
					off += n
					continue
				}
			}
			same, err := m.compare(ctx, in, v, fo, fn, a[:n], b[:n], int64(off))
			if err != nil {
				return out, err
			}
			out.VerifiedBytes += int64(n)
			if !same {
				out.Retried += int64(n)
			}
			off += n
			report(t.at(out.VerifiedBytes, total))
		}
	}
	_, err = m.synced(ctx, in) // still both legs, all of them
	return out, err
}

// provenBefore is what the pre-copy has compared and nobody has written since; nil
// where this agent made none.
func (m *Manager) provenBefore(ctx context.Context, in contract.MoveInput) (*carried, []bool, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return nil, nil, err
	}
	defer h.mu.Unlock()
	c := h.carried
	if c == nil || c.move != in.Move {
		return nil, nil, nil
	}
	unchanged, err := m.unchanged(ctx, in.Disk, c)
	if err != nil { // the count has gone, with the device or by a hand: everything is compared again
		m.Logger.Warn("what the pre-copy has proven is not believed any more", "disk", in.Disk, "move", in.Move, "error", err)
		m.stopCounting(in.Disk, h)
		return nil, nil, ctx.Err()
	}
	return c, unchanged, nil
}

// compare reads a chunk from both legs until they agree. first tells whether
// they did at once.
func (m *Manager) compare(ctx context.Context, in contract.MoveInput, v *view, fo, fn *os.File, a, b []byte, off int64) (first bool, err error) {
	first = true
	for deadline := time.Now().Add(settle); ; first = false {
		if err := ctx.Err(); err != nil {
			return first, err
		}
		if _, err := fo.ReadAt(a, off); err != nil {
			return first, cannotRead(in.Disk, v.active.vols[0], oldError{off, len(a), err})
		}
		if _, err := fn.ReadAt(b, off); err != nil {
			return first, contract.Refuse(contract.MoveFailed, "cannot read %d bytes at %d back: %v", len(b), off, err).WithDisk(in.Disk).WithVolume(v.incoming.vols[0]).
				WithNext("cancel the move and try again with another volume")
		}
		if bytes.Equal(a, b) {
			return first, nil
		}
		// A discard that passed a copy under way leaves old bytes in the new leg
		// where the old one has nothing any more: no file owns them.
		if same, err := m.sameWhereMapped(ctx, in.Disk, v.active, a, b, uint64(off)); err != nil || same {
			return first, err
		}
		if time.Now().After(deadline) {
			return first, contract.Refuse(contract.MoveFailed, "the copy differs from the original at byte %d", off).WithDisk(in.Disk).WithVolume(v.incoming.vols[0]).
				WithNext("cancel the move (the original is untouched) and report this")
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sameWhereMapped compares only blocks that the old backing still holds.
func (m *Manager) sameWhereMapped(ctx context.Context, d contract.DiskID, o *backing, a, b []byte, off uint64) (bool, error) {
	same := true
	err := m.mappedLocked(ctx, d, o, func(start, length uint64) error {
		lo, hi := max(start, off), min(start+length, off+uint64(len(a)))
		if lo < hi && !bytes.Equal(a[lo-off:hi-off], b[lo-off:hi-off]) {
			same = false
		}
		return nil
	})
	return same, err
}

// mappedLocked maps under the disk's lock: a pool has one metadata snapshot.
func (m *Manager) mappedLocked(ctx context.Context, d contract.DiskID, b *backing, fn func(start, length uint64) error) error {
	h, err := m.lock(ctx, d)
	if err != nil {
		return err
	}
	defer h.mu.Unlock()
	return m.mapped(b, fn)
}

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
