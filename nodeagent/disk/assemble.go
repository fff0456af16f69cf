package disk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// devicePatience is how long a device may take to show up after EC2 says
// attached.
const devicePatience = time.Minute

// Assemble makes a disk usable on this node: the highest complete active
// generation under the top device, a running move resumed, the filesystem
// mounted. It is safe to repeat.
func (m *Manager) Assemble(ctx context.Context, in contract.AssembleDiskInput) (contract.Measurement, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return contract.Measurement{}, err
	}
	defer h.mu.Unlock()
	if err := m.attached(ctx, in.Volumes); err != nil {
		return contract.Measurement{}, err
	}
	out, err := m.assemble(ctx, in.Disk, h, in.MountPath)
	if r, ok := contract.AsRefusal(err); ok && r.Code == contract.DiskUnknown {
		err = m.notThese(ctx, in, err)
	}
	return out, err
}

// finishFormat is what to do about a volume whose formatting was interrupted.
const finishFormat = "create the disk again with its id, which goes on where it was: ebb disk create NAME --id"

// notThese says of the volumes that were attached for a disk, none of which is
// its own, what they are; err when that is not known.
func (m *Manager) notThese(ctx context.Context, in contract.AssembleDiskInput, err error) error {
	next := fmt.Sprintf("find the disk's volume by its tag %s=%s in EC2; this one's tags are wrong", contract.TagDisk, in.Disk)
	for _, id := range in.Volumes {
		head, e := m.readHeader(ctx, id)
		var r *contract.Refusal
		switch {
		case e == nil && head.Disk != string(in.Disk):
			r = contract.Refuse(contract.VolumeForeign, "it belongs to disk %s", head.Disk).WithNext("%s", next)
		case errors.Is(e, format.ErrBlank), errors.Is(e, format.ErrForeign):
			r = headerRefusal(id, e).WithNext("%s", next)
		default:
			continue
		}
		return r.WithDisk(in.Disk).WithVolume(id)
	}
	return err
}

func (m *Manager) assemble(ctx context.Context, d contract.DiskID, h *handle, mountPath string) (contract.Measurement, error) {
	v, err := m.look(ctx, d)
	if err != nil {
		return contract.Measurement{}, err
	}
	return m.assembleView(ctx, d, h, v, mountPath)
}

func (m *Manager) assembleView(ctx context.Context, d contract.DiskID, h *handle, v *view, mountPath string) (contract.Measurement, error) {
	var none contract.Measurement
	if v.active == nil {
		return none, contract.Refuse(contract.VolumeUnformatted, "formatting it was not finished").WithDisk(d).WithVolume(v.incoming.vols[0]).
			WithNext(finishFormat)
	}
	// What grows during the swap must grow in this view.
	before := h.view
	h.view, h.down = v, false
	if err := m.assembleTop(ctx, d, h, v); err != nil {
		if before == nil {
			h.view = nil
		}
		return none, err
	}
	for _, o := range v.older { // a crash between the commit's two headers
		if o.head.Role == format.Active {
			if err := m.save(ctx, o, func(h *format.Header) { h.Role, h.MovePhase = format.Retired, format.NoMove }); err != nil {
				m.Logger.Warn("mark old generation retired", "disk", d, "volume", o.vols[0], "error", err)
			}
		}
	}
	if mountPath == "" {
		mountPath = v.active.head.MountPath
	}
	if mountPath != "" {
		top, err := m.DM.Info(topName(d))
		if err != nil {
			return none, err
		}
		fs := contract.Filesystem(v.active.head.Filesystem)
		if err := h.aside(func() error { return mountAt(top, fs, mountPath) }); err != nil { // it replays the journal
			return none, err
		}
		if a := h.view.active; mountPath != a.head.MountPath {
			if err := m.save(ctx, a, func(h *format.Header) { h.MountPath = mountPath }); err != nil {
				return none, err
			}
		}
	}
	return m.measure(ctx, d, h)
}

// assembleTop builds the stacks a view needs and the top device over them.
func (m *Manager) assembleTop(ctx context.Context, d contract.DiskID, h *handle, v *view) error {
	if err := m.proveLegs(ctx, v); err != nil {
		return err
	}
	if a := v.active; a.head.MovePhase == format.Committing && v.peered() {
		// The commit had not happened: the peer is still incoming.
		if err := m.save(ctx, a, func(h *format.Header) { h.MovePhase = format.Copying }); err != nil {
			return err
		}
	}
	old, err := m.build(ctx, v.active, nil, nil)
	if err != nil {
		return err
	}
	size := v.active.head.SizeBytes / sector
	table := dm.Linear(0, size, old.Dev, 0)
	if stale, err := m.unmirrored(d); err != nil {
		return err
	} else if stale && v.moving() {
		// The disk runs without its mirror: what it wrote meanwhile is not in the
		// log, which must never be believed again.
		m.Logger.Error("the disk runs beside its mirror; its copy begins anew", "disk", d, "move", v.active.head.Move)
		if err := m.save(ctx, v.active, endMove); err != nil {
			return err
		}
	}
	if v.moving() {
		n := v.incoming
		if n.head.SizeBytes != v.active.head.SizeBytes {
			return contract.Refuse(contract.VolumeDamaged, "generation %d has another size than generation %d", n.head.Generation, v.active.head.Generation).
				WithDisk(d).WithVolume(n.vols[0]).WithNext("cancel the move")
		}
		// I6: the log is on the incoming volume; the kernel reads it and goes on.
		thin, err := m.build(ctx, n, nil, nil)
		if err != nil {
			return err
		}
		log, err := m.logDevice(ctx, n, partLogB)
		if err != nil {
			return err
		}
		if table, err = mirrorTable(n.head, log, old, thin); err != nil {
			return err
		}
		m.holdBack(d, n.head)
	} else if v.active.head.Move != "" && v.active.head.MovePhase != format.NoMove {
		// The incoming generation is gone or its log was never finished. This
		// one is complete (I4); forget the move, so that a late return of the
		// other cannot be taken for resumable.
		if err := m.save(ctx, v.active, endMove); err != nil {
			return err
		}
	}
	if !v.moving() {
		m.unthrottle(d)
		m.failOthersWhenFull(d, v.active.head)
	}
	_, known := h.resumed[v.active.head.Move]
	if err = m.ensureTop(h, d, table); err != nil || known || !v.moving() {
		return err
	}
	st, ok, err := m.mirrorState(d)
	if ok {
		h.resumed[v.active.head.Move] = copyFraction(v.incoming.head, st)
	}
	return err
}

// unmirrored tells that the disk is in use on this node without a mirror.
func (m *Manager) unmirrored(d contract.DiskID) (bool, error) {
	top, err := m.DM.Info(topName(d))
	if errors.Is(err, dm.ErrNotFound) || err == nil && !top.ActivePresent {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, mirrored, err := m.mirrorState(d)
	return !mirrored, err
}

// endMove clears a move from the header of the backing that stays. When a commit
// had begun, the new generation's header may have become active without our
// knowing (a lost acknowledgement, a volume that cannot be read now): this one
// then takes a generation above it, so that the highest active generation is the
// truth in every case.
func endMove(h *format.Header) {
	if h.MovePhase == format.Committing {
		h.Generation = max(h.Generation, h.PeerGen) + 1
	}
	h.Move, h.MovePhase, h.Peer, h.PeerGen = "", format.NoMove, "", 0
}

// Disassemble unmounts a disk and takes its devices down. A move in progress
// stays in the headers and goes on after the next assembly. A disk that is in use
// stays up, and mounted where Ebb has mounted it.
func (m *Manager) Disassemble(ctx context.Context, d contract.DiskID) (err error) {
	h := m.handle(d)
	h.closing.Add(1)
	defer h.closing.Add(-1)
	h.dropBallast() // an open file keeps the filesystem mounted
	if err := m.endPrecopy(ctx, d); err != nil {
		return err
	}
	if err := m.endTrim(ctx, d, h); err != nil {
		return err
	}
	defer h.reclaiming.Unlock()
	m.flushMount(d)
	if err := m.step(ctx, "flushed"); err != nil {
		return err
	}
	if _, err := m.lockAny(ctx, d); err != nil {
		return err
	}
	h.untidy.Store(false)
	defer h.mu.Unlock()
	var from []string
	defer func() {
		if err != nil {
			m.remount(d, h, from)
		}
	}()
	if top, err := m.DM.Info(topName(d)); err == nil {
		if h.view == nil { // what grows during the unmount grows in a view
			if v, err := m.look(ctx, d); err == nil && v.active != nil {
				h.view = v
			}
		}
		if err := h.aside(func() (err error) { from, err = unmount(d, top.Dev); return err }); err != nil {
			return err
		}
	}
	m.flushHistory(ctx, h)
	if err := m.takeDownTop(d); err != nil {
		if errors.Is(err, dm.ErrBusy) {
			return contract.Refuse(contract.DiskBusy, "its device is open").WithDisk(d).WithNext("stop the program that uses /dev/mapper/%s", topName(d))
		}
		return err
	}
	if err := m.takeDownAll(d); err != nil {
		return err
	}
	h.view, h.carried, h.partial, h.rate, h.down = nil, nil, nil, rate{}, true
	m.unthrottle(d)
	m.Forget(d) // where the disk goes, others tell what is wanted of it
	return nil
}

// flushMount writes out what a disk's filesystem has in memory, so that its unmount
// has little to write. Nothing waits for it, and what fails here the unmount meets.
func (m *Manager) flushMount(d contract.DiskID) {
	top, err := m.DM.Info(topName(d))
	if err != nil {
		return
	}
	if mnt, ok, err := mountOf(top.Dev); err == nil && ok {
		_ = syncMount(mnt)
	}
}

// remount mounts a disk at its place again when it was unmounted from there and cannot
// be taken down. The caller holds the lock.
func (m *Manager) remount(d contract.DiskID, h *handle, from []string) {
	top, err := m.DM.Info(topName(d))
	if err != nil || h.view == nil || !slices.Contains(from, h.view.active.head.MountPath) {
		return
	}
	a := h.view.active.head
	if err := h.aside(func() error { return mountOver(top, contract.Filesystem(a.Filesystem), a.MountPath) }); err != nil {
		m.Logger.Error("mount a disk again that is in use", "disk", d, "error", err)
	}
}

// endTrim waits for the end of a Reclaim, which gives way, and allows no other
// until reclaiming is unlocked: its open file keeps the filesystem mounted, and it
// would bring a disk up again that was taken down before its eyes.
func (m *Manager) endTrim(ctx context.Context, d contract.DiskID, h *handle) error {
	short, cancel := context.WithTimeout(ctx, trimPatience)
	defer cancel()
	if err := h.reclaiming.lock(short); err != nil {
		if ctx.Err() != nil {
			return busy(d, err)
		}
		return contract.Refuse(contract.DiskBusy, "a trim of it does not end").WithDisk(d).WithNext("check the volume's status in EC2, and that the pool is not full (ebb disk show %s)", d)
	}
	return nil
}

// trimPatience is how long taking a disk down waits for a trim: one that waits
// itself, for a full pool say, has the filesystem open.
const trimPatience = 30 * time.Second

func (m *Manager) takeDownTop(d contract.DiskID) error { return m.remove(topName(d)) }

// takeDownAll removes every stack of a disk, whether or not its headers can be
// read.
func (m *Manager) takeDownAll(d contract.DiskID, keep ...*format.Header) error {
	list, err := m.DM.List()
	if err != nil {
		return err
	}
	kept := map[string]bool{}
	for _, k := range keep {
		kept[stackName(k)] = true
	}
	prefix := topName(d) + "-g"
	for _, part := range []string{partLogA, partLogB, partGate, "", partPool, partData, partMeta} {
		for _, i := range list {
			if !strings.HasPrefix(i.Name, prefix) || i.UUID != uuidOf(i.Name) {
				continue
			}
			stack, is := cutPart(i.Name)
			if is != part || kept[stack] {
				continue
			}
			if err := m.remove(i.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// cutPart splits a device name into its stack and its part.
func cutPart(name string) (stack, part string) {
	for _, p := range []string{partLogA, partLogB, partGate, partPool, partData, partMeta} {
		if s, ok := strings.CutSuffix(name, p); ok {
			return s, p
		}
	}
	return name, ""
}
