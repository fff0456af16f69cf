package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/thinmap"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// logDevice maps one of a backing's two dirty-log areas.
func (m *Manager) logDevice(ctx context.Context, b *backing, part string) (dm.Info, error) {
	dev, err := m.member(ctx, b.vols[0], format.DataStart)
	if err != nil {
		return dm.Info{}, err
	}
	return m.ensure(stackName(b.head)+part, dm.Linear(0, format.LogBytes/sector, dev, logOffset(part)/sector))
}

func logOffset(part string) uint64 {
	if part == partLogA {
		return format.LogAOffset
	}
	return format.LogBOffset
}

// mirrorTable mirrors the disk from its old thin device, the default leg, to
// its new one.
func mirrorTable(h *format.Header, log, old, thin dm.Info) (dm.Target, error) {
	if h.RegionBytes == 0 {
		return dm.Target{}, fmt.Errorf("generation %d has no region size", h.Generation)
	}
	return dm.Mirror(h.SizeBytes/sector, log.Dev, h.RegionBytes/sector, old.Dev, thin.Dev), nil
}

func regions(h *format.Header) uint64 { return (h.SizeBytes + h.RegionBytes - 1) / h.RegionBytes }

// PrepareMove formats blank volumes as the incoming generation. Nothing of the
// disk changes. It is safe to repeat until the copy begins, and does nothing
// then.
func (m *Manager) PrepareMove(ctx context.Context, in contract.PrepareMoveInput) (contract.Measurement, error) {
	var none contract.Measurement
	if err := m.attached(ctx, in.Volumes); err != nil {
		return none, err
	}
	h := m.lock(in.Disk)
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
	if v.moving() {
		return none, contract.Refuse(contract.DiskBusy, "move %s is running", a.head.Move).WithDisk(in.Disk).WithNext("watch or cancel it (ebb watch %s)", in.Disk)
	}
	if in.Generation != a.head.Generation+1 {
		return none, contract.Refuse(contract.BadInput, "generation %d does not follow generation %d", in.Generation, a.head.Generation).WithDisk(in.Disk)
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
	// What an earlier try left: back to the old backing, a new pool on the new one.
	if err := m.ensureTop(h, d, dm.Linear(0, size, old.Dev, 0)); err != nil {
		return err
	}
	if err := m.takeDown(n.head); err != nil {
		return err
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
			m.failWhenFull(n)
			e = m.ensureTop(h, d, dm.Linear(0, size, old.Dev, 0))
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
	thin, err := m.build(ctx, n, func(meta dm.Info) error { return premap(ctx, meta, n.head, before, count) }, &old.Dev)
	if err != nil {
		return err
	}
	clean := format.NewBitmap(count)
	for r := range count {
		if !before.Get(r) { // I1: positively unmapped in the pool
			clean.Set(r)
		}
	}
	if err := m.writeLog(ctx, n, partLogA, count, clean); err != nil {
		return err
	}
	logA, err := m.logDevice(ctx, n, partLogA)
	if err != nil {
		return err
	}
	if err := m.step(ctx, "log-a"); err != nil {
		return err
	}
	table, err := mirrorTable(n.head, logA, old, thin)
	if err != nil {
		return err
	}
	if err := m.swap(h, n.head.Move, top, table); err != nil {
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
	clean, err = m.readLog(ctx, n, partLogA, count)
	if err != nil {
		return err
	}
	var copies uint64
	for r := range count {
		if after.Get(r) && !before.Get(r) {
			clean.Clear(r)
		}
		if after.Get(r) || before.Get(r) {
			copies++
		}
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
	if err := m.remove(stackName(n.head) + partLogA); err != nil {
		return err
	}
	// I6: the move is resumable once both headers say so. The old one comes
	// last: without it the new generation is scrap.
	if err := m.save(ctx, n, func(h *format.Header) { h.MovePhase, h.CopyRegions = format.Copying, copies }); err != nil {
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

var errLeg = errors.New("a leg of the mirror is not alive")

func mustDev(i dm.Info, _ error) dm.Dev { return i.Dev }

// swap loads a table and swaps it in, by one ioctl and without flushing: what a
// mirror holds back is handed to the new table, never failed (I2, I3). The pause
// is recorded for the move.
func (m *Manager) swap(h *handle, move, name string, t dm.Target) error {
	if err := m.load(name, t); err != nil {
		return err
	}
	start := time.Now()
	if err := h.swap(func() error {
		_, err := m.DM.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true})
		return err
	}); err != nil {
		_ = m.DM.Clear(name)
		return err
	}
	pause := float64(time.Since(start).Microseconds()) / 1000
	h.pauses[move] = append(h.pauses[move], pause)
	m.Logger.Info("swapped tables", "device", name, "move", move, "pause_ms", pause)
	return nil
}

// usedRegions maps which regions a backing's pool holds data for, at the moment
// of the call: the pool commits and holds its metadata still while it is read.
func (m *Manager) usedRegions(b *backing, regionBytes, count uint64) (format.Bitmap, error) {
	used := format.NewBitmap(count)
	err := m.mapped(b, func(start, length uint64) error {
		for r := start / regionBytes; r <= (start+length-1)/regionBytes && r < count; r++ {
			used.Set(r)
		}
		return nil
	})
	return used, err
}

// mapped calls fn for the runs of bytes that a backing's thin device holds.
func (m *Manager) mapped(b *backing, fn func(start, length uint64) error) (err error) {
	pool := stackName(b.head) + partPool
	if _, err := m.DM.Message(pool, 0, "reserve_metadata_snap"); err != nil {
		// A dead agent's snapshot: it shows the past, so it is thrown away.
		if _, e := m.DM.Message(pool, 0, "release_metadata_snap"); e != nil {
			return errors.Join(err, e)
		}
		if _, err := m.DM.Message(pool, 0, "reserve_metadata_snap"); err != nil {
			return err
		}
	}
	defer func() {
		if _, e := m.DM.Message(pool, 0, "release_metadata_snap"); e != nil {
			err = errors.Join(err, e)
		}
	}()
	st, err := m.poolState(b)
	if err != nil {
		return err
	}
	if !st.HasHeldRoot {
		return fmt.Errorf("pool %s holds no metadata snapshot", pool)
	}
	meta, err := m.DM.Info(stackName(b.head) + partMeta)
	if err != nil {
		return err
	}
	f, err := openDevice(meta, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	held := &chunked{r: f, size: int64(b.head.Bytes(format.Meta)), chunks: map[int64][]byte{}}
	return thinmap.Mapped(held, volume.AlignedBuffer(thinmap.BlockBytes), st.HeldRoot, b.head.ThinID, func(r thinmap.Run) error {
		return fn(r.Start*b.head.BlockBytes, r.Length*b.head.BlockBytes)
	})
}

// chunked reads a device in large pieces and keeps the last few: the metadata
// snapshot lies still while it is read, block by block, and its blocks lie
// mostly beside each other. A whole disk of 1 TiB has 66,000 of them.
type chunked struct {
	r      io.ReaderAt
	size   int64
	chunks map[int64][]byte
	order  []int64 // oldest first
}

const (
	chunkBytes = 256 << 10
	chunksKept = 16
)

// ReadAt reads within one chunk.
func (c *chunked) ReadAt(p []byte, off int64) (int, error) {
	at := off / chunkBytes * chunkBytes
	b, ok := c.chunks[at]
	if !ok {
		if len(c.order) < chunksKept {
			b = volume.AlignedBuffer(chunkBytes)
		} else {
			b = c.chunks[c.order[0]]
			delete(c.chunks, c.order[0])
			c.order = c.order[1:]
		}
		n := min(chunkBytes, c.size-at)
		if n <= 0 {
			return 0, fmt.Errorf("read at %d of a device of %d bytes", off, c.size)
		}
		if _, err := c.r.ReadAt(b[:n], at); err != nil {
			return 0, err
		}
		b = b[:n]
		c.chunks[at] = b
		c.order = append(c.order, at)
	}
	n := copy(p, b[min(off-at, int64(len(b))):])
	if n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

// writeLog writes a dirty log that the kernel will read.
func (m *Manager) writeLog(ctx context.Context, b *backing, part string, count uint64, inSync format.Bitmap) error {
	dev, err := m.Locator.Open(ctx, b.vols[0])
	if err != nil {
		return err
	}
	defer dev.Close()
	raw := format.LogHeader(count, inSync)
	buf := volume.AlignedBuffer(len(raw))
	copy(buf, raw)
	return writeDurably(dev, buf, int64(logOffset(part)))
}

// readLog reads the present state of a log that the kernel keeps.
func (m *Manager) readLog(ctx context.Context, b *backing, part string, count uint64) (format.Bitmap, error) {
	dev, err := m.Locator.Open(ctx, b.vols[0])
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	buf := volume.AlignedBuffer(len(format.LogHeader(count, format.NewBitmap(count))))
	if _, err := dev.ReadAt(buf, int64(logOffset(part))); err != nil {
		return nil, fmt.Errorf("read log of volume %s: %w", b.vols[0], err)
	}
	return format.ParseLog(buf, count)
}

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
	h := m.lock(in.Disk)
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
	return 0, true, m.begin(ctx, in.Disk, h)
}

// copyFraction is the share of a move's copy that is done.
func copyFraction(n *format.Header, st dm.MirrorStatus) float64 {
	return 1 - float64(min(st.Total-st.InSync, n.CopyRegions))/float64(max(n.CopyRegions, 1))
}

// evacuated looks once at the copy.
func (m *Manager) evacuated(ctx context.Context, in contract.MoveInput, out *contract.EvacuateResult, t *tracker, th *throttle, report func(contract.CopyProgress)) (bool, error) {
	h := m.lock(in.Disk)
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
	h := m.lock(in.Disk)
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
