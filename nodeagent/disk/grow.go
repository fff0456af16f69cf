package disk

import (
	"context"
	"errors"
	"slices"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// open gives a disk's view, read anew, with its devices known to be up. It does not
// bring them up: the disk may have been taken down while the caller waited for the
// lock, and may be on its way to another node.
func (m *Manager) open(ctx context.Context, d contract.DiskID, h *handle) (*view, error) {
	v, err := m.look(ctx, d)
	if err != nil {
		return nil, err
	}
	if v.active == nil {
		return nil, contract.Refuse(contract.VolumeUnformatted, "formatting it was not finished").WithDisk(d).WithVolume(v.incoming.vols[0]).WithNext(finishFormat)
	}
	if err := m.standing(d); err != nil {
		return nil, err
	}
	h.view = v
	return v, nil
}

// standing refuses a disk whose top device is not there.
func (m *Manager) standing(d contract.DiskID) error {
	_, err := m.DM.Info(topName(d))
	if errors.Is(err, dm.ErrNotFound) {
		return contract.Refuse(contract.DiskIncomplete, "the disk is attached but not assembled").WithDisk(d).WithNext("run ebb disk move to this node, or restart the agent")
	}
	return err
}

// openLive is open, while the lock is lent too: then the view is that of the
// operation which lent it, and stays so.
func (m *Manager) openLive(ctx context.Context, d contract.DiskID, h *handle) (*view, error) {
	if h.lent() && h.view != nil {
		return h.view, nil
	}
	if err := h.swapped(ctx, d); err != nil { // the first assembly
		return nil, err
	}
	return m.open(ctx, d, h)
}

// GrowBacking waits until a member volume has at least in.Bytes, then lets the
// pool use all of it, online. The header is written first: a pool never uses
// space that no header accounts for.
func (m *Manager) GrowBacking(ctx context.Context, in contract.GrowBackingInput) (contract.Measurement, error) {
	var none contract.Measurement
	var now int64
	err := wait(ctx, devicePatience, "wait for the new size of volume "+in.Volume, func() (ok bool, err error) {
		now, err = m.volumeBytes(ctx, in.Volume)
		return now >= in.Bytes, err
	})
	if err != nil {
		return none, err
	}
	h, err := m.lockToGrow(ctx, in.Disk)
	if err != nil {
		return none, err
	}
	defer h.mu.Unlock()
	v, err := m.openLive(ctx, in.Disk, h)
	if err != nil {
		return none, err
	}
	b := v.active
	i := slices.Index(b.vols, in.Volume)
	if i < 0 && v.incoming != nil {
		b = v.incoming
		i = slices.Index(b.vols, in.Volume)
	}
	if i < 0 {
		return none, contract.Refuse(contract.VolumeForeign, "it is not part of the disk's backing").WithDisk(in.Disk).WithVolume(in.Volume).WithNext("run ebb disk show %s", in.Disk)
	}
	if err := m.proveBacking(ctx, b); err != nil {
		return none, err
	}
	if err := m.extend(ctx, in.Disk, b, i, uint64(now)); err != nil {
		return none, err
	}
	return m.measure(ctx, in.Disk, h)
}

// extend gives member i's new bytes to the pool.
func (m *Manager) extend(ctx context.Context, d contract.DiskID, b *backing, i int, bytes uint64) error {
	grown := b.head.Clone()
	if err := grown.Extend(i, bytes); err != nil {
		return contract.Refuse(contract.SizeLimit, "%v", err).WithDisk(d).WithVolume(b.vols[i]).WithNext("run ebb shrink, which folds the backing into one volume")
	}
	if err := m.save(ctx, b, func(h *format.Header) { h.Members, h.Segments = grown.Members, grown.Segments }); err != nil {
		return err
	}
	if err := m.step(ctx, "grow-header"); err != nil {
		return err
	}
	return m.buildPool(ctx, b)
}

// Append adds a blank volume to the active backing, online: for when EBS
// refuses to modify the present one.
func (m *Manager) Append(ctx context.Context, in contract.AppendVolumeInput) (contract.Measurement, error) {
	var none contract.Measurement
	if err := m.attached(ctx, []string{in.Volume}); err != nil {
		return none, err
	}
	h, err := m.lockToGrow(ctx, in.Disk)
	if err != nil {
		return none, err
	}
	defer h.mu.Unlock()
	v, err := m.openLive(ctx, in.Disk, h)
	if err != nil {
		return none, err
	}
	b := v.active
	if err := m.proveActive(ctx, v); err != nil {
		return none, err
	}
	i := slices.Index(b.vols, in.Volume)
	if i < 0 {
		if len(b.vols) == format.MaxMembers {
			return none, contract.Refuse(contract.SizeLimit, "the backing has %d volumes already", len(b.vols)).WithDisk(in.Disk).WithNext("run ebb shrink, which folds them into one")
		}
		// The new volume's own header first (it names itself as a member that
		// member 0 does not list yet, which assembly ignores), then member 0's.
		claim := b.head.Clone()
		claim.Move, claim.Role = "append", format.Incoming
		if err := m.claimAppend(ctx, in.Volume, claim); err != nil {
			return none, err
		}
		if err := m.writeGuard(ctx, in.Volume); err != nil {
			return none, err
		}
		if err := m.step(ctx, "append-claimed"); err != nil {
			return none, err
		}
		i = len(b.vols)
		n, err := m.volumeBytes(ctx, in.Volume)
		if err != nil {
			return none, err
		}
		grown := b.head.Clone()
		grown.Members = append(grown.Members, format.Member{Volume: in.Volume})
		if err := grown.Extend(i, uint64(n)); err != nil {
			return none, contract.Refuse(contract.SizeLimit, "%v", err).WithDisk(in.Disk).WithVolume(in.Volume).WithNext("run ebb shrink, which folds the backing into one volume")
		}
		larger := &backing{head: b.head, vols: append(slices.Clone(b.vols), in.Volume)}
		if err := m.save(ctx, larger, func(h *format.Header) { h.Members, h.Segments = grown.Members, grown.Segments }); err != nil {
			return none, err
		}
		*b = *larger
	}
	if err := m.buildPool(ctx, b); err != nil {
		return none, err
	}
	return m.measure(ctx, in.Disk, h)
}

// claimAppend checks that a volume is blank or was claimed for this backing by
// an earlier try.
func (m *Manager) claimAppend(ctx context.Context, id string, h *format.Header) error {
	old, err := m.readHeader(ctx, id)
	if err == nil && old.Disk == h.Disk && old.Born == h.Born && old.Members[old.Index].Volume == id && old.Index > 0 {
		return nil // written by an earlier try that did not reach member 0
	}
	return m.claimable(ctx, id, h)
}

// Expand raises the disk's own size and its mounted filesystem. A move must not
// be running: both legs have the disk's size.
func (m *Manager) Expand(ctx context.Context, in contract.ExpandDiskInput) (contract.Measurement, error) {
	var none contract.Measurement
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return none, err
	}
	defer h.mu.Unlock()
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return none, err
	}
	a := v.active
	if err := m.proveActive(ctx, v); err != nil {
		return none, err
	}
	switch {
	case uint64(in.SizeBytes) < a.head.SizeBytes:
		return none, contract.Refuse(contract.BadInput, "a disk of %d bytes cannot become smaller (%d); its backing can", a.head.SizeBytes, in.SizeBytes).
			WithDisk(in.Disk).WithNext("run ebb shrink")
	case v.moving():
		return none, contract.Refuse(contract.DiskBusy, "a move is running").WithDisk(in.Disk).WithNext("wait for it (ebb watch %s) or cancel it", in.Disk)
	case uint64(in.SizeBytes) > a.head.SizeBytes:
		if err := m.save(ctx, a, func(h *format.Header) { h.SizeBytes = uint64(in.SizeBytes) }); err != nil {
			return none, err
		}
	}
	if err := m.step(ctx, "expand-header"); err != nil {
		return none, err
	}
	thin, err := m.build(ctx, a, nil, nil)
	if err != nil {
		return none, err
	}
	if err := m.ensureTop(h, in.Disk, dm.Linear(0, a.head.SizeBytes/sector, thin.Dev, 0)); err != nil {
		return none, err
	}
	top, err := m.DM.Info(topName(in.Disk))
	if err != nil {
		return none, err
	}
	if mnt, ok, err := mountOf(top.Dev); err != nil {
		return none, err
	} else if ok {
		if err := h.aside(func() error { return mnt.grow(ctx, dm.DevPath(top)) }); err != nil {
			return none, err
		}
	}
	return m.measure(ctx, in.Disk, h)
}
