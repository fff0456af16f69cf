package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// PrepareMove formats blank volumes as the incoming generation. Nothing of the
// disk changes. It is safe to repeat until the copy begins, and does nothing
// then.
func (m *Manager) PrepareMove(ctx context.Context, in contract.PrepareMoveInput) (contract.Measurement, error) {
	var none contract.Measurement
	if err := m.attached(ctx, in.Volumes); err != nil {
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
	a := v.active
	if a.head.Move == in.Move || v.incoming != nil && v.incoming.head.Move == in.Move && slices.Equal(v.incoming.vols, in.Volumes) {
		return m.measure(ctx, in.Disk, h) // prepared, copying or even committed
	}
	if a.head.MovePhase != format.NoMove && !v.moving() { // what is left of one that cannot go on
		if err := m.assembleTop(ctx, in.Disk, h, v); err != nil {
			return none, err
		}
	}
	if v.moving() {
		return none, contract.Refuse(contract.DiskBusy, "move %s is running", a.head.Move).WithDisk(in.Disk).WithNext("watch or cancel it (ebb watch %s)", in.Disk)
	}
	if in.Generation != a.head.Generation+1 {
		return none, contract.Refuse(contract.BadInput, "generation %d does not follow generation %d", in.Generation, a.head.Generation).WithDisk(in.Disk).
			WithNext("start the operation again: it looks at the disk first")
	}
	head := newHeader(in.Disk, in.Generation, a.head.SizeBytes, a.head.BlockBytes)
	head.Name, head.Filesystem, head.MountPath, head.ThinID = a.head.Name, a.head.Filesystem, a.head.MountPath, a.head.ThinID
	head.Move, head.MovePhase, head.Peer, head.PeerGen = in.Move, format.Prepared, a.vols[0], a.head.Generation
	head.ThrottleMiBs = uint64(in.ThrottleMiBs)
	if head.RegionBytes, head.CopyRegions, err = m.planMove(a); err != nil {
		return none, err
	}
	b, err := m.initialise(ctx, head, in.Volumes)
	if err != nil {
		return none, err
	}
	if copies := head.CopyRegions * head.RegionBytes; b.head.Bytes(format.Data) < copies {
		return none, contract.Refuse(contract.BelowUsed, "the new backing has room for %d bytes, %d are to be copied", b.head.Bytes(format.Data), copies).
			WithDisk(in.Disk).WithVolume(in.Volumes[0]).WithNext("choose a larger size")
	}
	if err := m.step(ctx, "prepared"); err != nil {
		return none, err
	}
	if h.view, err = m.look(ctx, in.Disk); err != nil {
		return none, err
	}
	return m.measure(ctx, in.Disk, h)
}

// planMove chooses the region size of a move, and counts the regions it would
// copy now. A large region is fast, but it is copied whole. The largest size is
// taken that copies hardly more than is used; on an aged filesystem there is
// none, and the largest that copies at most a fifth more is the best bargain
// (docs/design.md has the measurement); the smallest if even that is too much.
func (m *Manager) planMove(b *backing) (regionBytes, copies uint64, err error) {
	type run struct{ start, length uint64 }
	var runs []run
	var used uint64
	if err := m.mapped(b, func(start, length uint64) error {
		runs = append(runs, run{start, length})
		used += length
		return nil
	}); err != nil {
		return 0, 0, err
	}
	type choice struct{ bytes, copies uint64 }
	var sizes []choice
	for _, regionBytes = range format.RegionSizes(b.head.SizeBytes) {
		copies = 0
		next := uint64(0) // first region not counted yet
		for _, r := range runs {
			first, last := r.start/regionBytes, (r.start+r.length-1)/regionBytes
			copies += last + 1 - min(max(first, next), last+1)
			next = last + 1
		}
		sizes = append(sizes, choice{regionBytes, copies})
	}
	for _, excess := range []uint64{used / 25, used / 5} {
		for _, c := range sizes {
			if c.bytes*c.copies <= used+excess {
				return c.bytes, c.copies, nil
			}
		}
	}
	return regionBytes, copies, nil
}

// begin puts the mirror under the live filesystem: steps 1 to 3 of the move in
// docs/design.md. Any failure before the last step leaves the disk on its old
// backing, and a repeat begins afresh.
func (m *Manager) begin(ctx context.Context, d contract.DiskID, h *handle) (err error) {
	v := h.view
	a, n := v.active, v.incoming
	old, err := m.DM.Info(stackName(a.head))
	if err != nil {
		return err
	}
	top := topName(d)
	size := a.head.SizeBytes / sector
	if n.head.SizeBytes != a.head.SizeBytes {
		return contract.Refuse(contract.DiskBusy, "the disk was expanded since the move was prepared").WithDisk(d).WithNext("start the move again")
	}
	c := h.carried
	if c != nil && c.move != n.head.Move {
		c = nil
	}
	if c == nil {
		if err := m.backToOld(ctx, d, h); err != nil {
			return err
		}
		if n.head.Precopying { // its pool is made anew
			if err := m.save(ctx, n, func(h *format.Header) { h.Precopying = false }); err != nil {
				return err
			}
		}
	}
	recorded := false // the old header may know the move
	defer func() {
		if err == nil || errors.Is(err, errStopped) {
			return
		}
		var e error
		if recorded { // header first: log B goes stale with the swap
			e = m.fallBack(ctx, d, h)
		} else {
			m.failOthersWhenFull(d, a.head)
			if e = m.ensureTop(h, d, dm.Linear(0, size, old.Dev, 0)); e == nil {
				e = m.remove(stackName(n.head) + partGate)
			}
		}
		err = errors.Join(err, e)
	}()
	// I2: while log A is in force a region may be marked in sync that is not
	// (written between the first map and the first swap). Should the old volume
	// fail to read just such a region, the kernel would ask the new leg. It is
	// given the old device as external origin, so that it has no answer of its
	// own: what it does not hold it reads from the old device, and fails as that.
	count := regions(n.head)
	before, err := m.usedRegions(a, n.head.RegionBytes, count)
	if err != nil {
		return err
	}
	fresh := func(meta dm.Info) error { return premap(ctx, meta, n.head, before, count) }
	if c != nil { // mapped when the pre-copy began; the disk may have filled since
		fresh = nil
		var blocks uint64
		for r := range count {
			if before.Get(r) || c.held.Get(r) {
				blocks += n.head.RegionBytes / n.head.BlockBytes
			}
		}
		if room := n.head.Bytes(format.Data) / n.head.BlockBytes; blocks > room {
			return noRoom(n.head, blocks, room)
		}
	}
	thin, err := m.build(ctx, n, fresh, &old.Dev)
	if err != nil {
		return err
	}
	leg := thin
	var unchanged []bool
	if c != nil {
		// What is proven is in the new backing, so the external origin does not keep
		// reads from it: while log A is in force they go to the old device altogether.
		if leg, err = m.ensure(stackName(n.head)+partGate, dm.ReadElsewhere(size, thin.Dev, old.Dev)); err != nil {
			return err
		}
		if unchanged, err = m.unchanged(ctx, d, c); err != nil {
			return err
		}
	}
	claimed := format.NewBitmap(count) // in sync, as log A has it
	copies := uint64(0)
	for r := range count {
		switch { // I1
		case !before.Get(r) && (c == nil || !c.held.Get(r)): // positively unmapped in both pools
			claimed.Set(r)
		case c != nil && c.provenRegion(r, n.head.RegionBytes, unchanged): // compared, not written since
			claimed.Set(r)
		default:
			copies++
		}
	}
	if err := m.writeLog(ctx, n, partLogA, count, claimed); err != nil {
		return err
	}
	logA, err := m.logDevice(ctx, n, partLogA)
	if err != nil {
		return err
	}
	if err := m.step(ctx, "log-a"); err != nil {
		return err
	}
	table, err := mirrorTable(n.head, logA, old, leg)
	if err != nil {
		return err
	}
	h.trims.Lock() // from the swap on they see that there is a mirror
	err = m.swap(h, n.head.Move, top, table)
	h.trims.Unlock()
	if err != nil {
		return err
	}
	if err := m.step(ctx, "swap-a"); err != nil {
		return err
	}

	// Every write goes to both legs now, except to dirty regions. What became
	// used before that is false-clean: found by a second map.
	after, err := m.usedRegions(a, n.head.RegionBytes, count)
	if err != nil {
		return err
	}
	clean, err := m.readLog(ctx, n, partLogA, count)
	if err != nil {
		return err
	}
	if c != nil { // all writes of before the swap are counted by now
		if unchanged, err = m.unchanged(ctx, d, c); err != nil {
			return err
		}
	}
	for r := range count {
		late := after.Get(r) && !before.Get(r)
		if c != nil && c.held.Get(r) {
			late = !c.provenRegion(r, n.head.RegionBytes, unchanged)
		}
		if late && claimed.Get(r) {
			clean.Clear(r)
			copies++
		}
	}
	if c != nil {
		c.disprove(n.head.RegionBytes, clean)
	}
	if err := m.writeLog(ctx, n, partLogB, count, clean); err != nil {
		return err
	}
	logB, err := m.logDevice(ctx, n, partLogB)
	if err != nil {
		return err
	}
	if st, ok, err := m.mirrorState(d); err != nil || !ok || !st.AllAlive() {
		return fmt.Errorf("a leg failed while the move began (%+v): %w", st, errors.Join(err, errLeg))
	}
	if err := m.step(ctx, "log-b"); err != nil {
		return err
	}
	if table, err = mirrorTable(n.head, logB, old, thin); err != nil {
		return err
	}
	if err := m.swap(h, n.head.Move, top, table); err != nil {
		return err
	}
	if err := m.step(ctx, "swap-b"); err != nil {
		return err
	}
	// All that is false is dirty in log B, and dirty regions are read from the
	// old leg only: the new one stands on its own from here.
	if _, err := m.ensure(stackName(n.head), dm.Thin(size, mustDev(m.DM.Info(stackName(n.head)+partPool)), n.head.ThinID, nil)); err != nil {
		return err
	}
	for _, part := range []string{partLogA, partGate} {
		if err := m.remove(stackName(n.head) + part); err != nil {
			return err
		}
	}
	// I6: the move is resumable once both headers say so. The old one comes
	// last: without it the new generation is scrap.
	if err := m.save(ctx, n, func(h *format.Header) { h.MovePhase, h.CopyRegions, h.Precopying = format.Copying, copies, false }); err != nil {
		return err
	}
	if err := m.step(ctx, "copying-new"); err != nil {
		return err
	}
	recorded = true
	if err := m.save(ctx, a, func(h *format.Header) {
		h.Move, h.MovePhase, h.Peer, h.PeerGen = n.head.Move, format.Copying, n.vols[0], n.head.Generation
	}); err != nil {
		return err
	}
	return m.step(context.WithoutCancel(ctx), "copying") // begun is begun
}

// backToOld undoes what an earlier begin has left: the disk goes back to its old
// backing, and the new one's devices away.
func (m *Manager) backToOld(ctx context.Context, d contract.DiskID, h *handle) error {
	a, n := h.view.active, h.view.incoming
	if a.head.MovePhase != format.NoMove { // header first: what it vouches for goes stale
		if err := m.save(ctx, a, endMove); err != nil {
			return err
		}
	}
	old, err := m.DM.Info(stackName(a.head))
	if err != nil {
		return err
	}
	m.failOthersWhenFull(d, a.head)
	if err := m.ensureTop(h, d, dm.Linear(0, a.head.SizeBytes/sector, old.Dev, 0)); err != nil {
		return err
	}
	return m.takeDown(n.head)
}

var errLeg = errors.New("a leg of the mirror is not alive")

func mustDev(i dm.Info, _ error) dm.Dev { return i.Dev }

// swap loads a table and swaps it in, by one ioctl and without flushing: what a
// mirror holds back is handed to the new table, never failed (I2, I3). The pause
// is recorded for the move.
func (m *Manager) swap(h *handle, move, name string, t dm.Target) error {
	if err := m.load(name, t); err != nil {
		return err
	}
	var pause float64 // of the writes alone, not of those that wait for the lock
	if err := h.swap(func() error {
		return m.hurry(func() error {
			start := time.Now()
			_, err := m.DM.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true})
			pause = float64(time.Since(start).Microseconds()) / 1000
			return err
		})
	}); err != nil {
		_ = m.DM.Clear(name)
		return err
	}
	h.pauses[move] = append(h.pauses[move], pause)
	m.Logger.Info("swapped tables", "device", name, "move", move, "pause_ms", pause)
	return nil
}
