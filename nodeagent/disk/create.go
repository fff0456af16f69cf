package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// createMove stands as the move id in generation 1 while it is being made.
const createMove = "create"

// Format makes a disk on blank volumes: headers, pool, filesystem, mount. It is
// safe to repeat: a half-made disk is made anew (nobody has used it), a finished
// one is left alone.
func (m *Manager) Format(ctx context.Context, in contract.FormatDiskInput) (contract.Measurement, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return contract.Measurement{}, err
	}
	defer h.mu.Unlock()
	var none contract.Measurement
	if err := m.attached(ctx, in.Volumes); err != nil {
		return none, err
	}
	v, err := m.look(ctx, in.Disk)
	var r *contract.Refusal
	switch {
	case err == nil && v.active != nil:
		return m.assemble(ctx, in.Disk, h, in.MountPath)
	case err == nil && v.incoming.head.Move == createMove:
		if err := m.takeDownTop(in.Disk); err != nil {
			return none, err
		}
		if err := m.takeDown(v.incoming.head); err != nil {
			return none, err
		}
	case errors.As(err, &r) && r.Code == contract.DiskUnknown:
	case err != nil:
		return none, err
	}
	head := newHeader(in.Disk, 1, uint64(in.SizeBytes), blockSize(uint64(in.SizeBytes)))
	head.Name, head.Filesystem, head.MountPath, head.Move = in.Name, string(in.Filesystem), in.MountPath, createMove
	b, err := m.initialise(ctx, head, in.Volumes)
	if err != nil {
		return none, err
	}
	if err := m.step(ctx, "format-headers"); err != nil {
		return none, err
	}
	thin, err := m.build(ctx, b, zeroSuperblock, nil)
	if err != nil {
		return none, err
	}
	top, err := m.ensure(topName(in.Disk), dm.Linear(0, b.head.SizeBytes/sector, thin.Dev, 0))
	if err != nil {
		return none, err
	}
	if err := mkfs(ctx, in.Filesystem, dm.DevPath(top)); err != nil {
		return none, err
	}
	if err := m.step(ctx, "format-mkfs"); err != nil {
		return none, err
	}
	if err := m.save(ctx, b, func(h *format.Header) { h.Role, h.Move = format.Active, "" }); err != nil {
		return none, err
	}
	return m.assemble(ctx, in.Disk, h, in.MountPath)
}

// attached waits until the volumes show up as devices, which is a little after
// EC2 says attached.
func (m *Manager) attached(ctx context.Context, vols []string) error {
	for _, id := range vols {
		err := wait(ctx, devicePatience, "wait for the device of volume "+id, func() (bool, error) {
			dev, err := m.Locator.Open(ctx, id)
			if errors.Is(err, volume.ErrNotAttached) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			return true, dev.Close()
		})
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			return headerRefusal(id, volume.ErrNotAttached)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// initialise writes the headers of a new backing over volumes that are blank,
// or that an earlier try for the same disk, generation and move wrote.
func (m *Manager) initialise(ctx context.Context, head *format.Header, vols []string) (*backing, error) {
	if len(vols) == 0 || len(vols) > format.MaxMembers {
		return nil, contract.Refuse(contract.BadInput, "%d volumes", len(vols)).WithDisk(contract.DiskID(head.Disk)).
			WithNext("give 1 to %d volumes", format.MaxMembers)
	}
	for _, id := range vols {
		if err := m.claimable(ctx, id, head); err != nil {
			return nil, err
		}
	}
	b := &backing{head: head, vols: vols}
	for i, id := range vols {
		head.Members = append(head.Members, format.Member{Volume: id})
		n, err := m.volumeBytes(ctx, id)
		if err != nil {
			return nil, err
		}
		if err := head.Extend(i, uint64(n)); err != nil {
			return nil, contract.Refuse(contract.BadInput, "%v", err).WithDisk(contract.DiskID(head.Disk)).WithVolume(id).WithNext("use a larger volume")
		}
	}
	for _, id := range vols {
		if err := m.writeGuard(ctx, id); err != nil {
			return nil, err
		}
	}
	return b, m.save(ctx, b, func(*format.Header) {})
}

// claimable refuses a volume that has anything on it but an earlier try of the
// same work. head.Sequence is raised above what the volume has.
func (m *Manager) claimable(ctx context.Context, id string, head *format.Header) error {
	disk := contract.DiskID(head.Disk)
	dev, err := m.Locator.Open(ctx, id)
	if err != nil {
		return headerRefusal(id, err).WithDisk(disk)
	}
	defer dev.Close()
	old, err := readHeader(dev)
	if err == nil {
		if old.Disk == head.Disk && old.Role == format.Incoming && old.Move == head.Move && old.Generation == head.Generation && old.Members[old.Index].Volume == id {
			head.Sequence = max(head.Sequence, old.Sequence)
			return nil
		}
		return contract.Refuse(contract.VolumeForeign, "it belongs to disk %s (generation %d, %s)", old.Disk, old.Generation, old.Role).
			WithDisk(disk).WithVolume(id).WithNext("give ebb a new volume")
	}
	if !errors.Is(err, format.ErrBlank) {
		return headerRefusal(id, err).WithDisk(disk)
	}
	none, err := blank(dev)
	if err != nil {
		return err
	}
	if !none {
		return headerRefusal(id, format.ErrForeign).WithDisk(disk)
	}
	return nil
}

// blank tells that nothing is on a volume that has no header. A header that was
// never written leaves at most the guard behind; any other byte where filesystems
// and partition tables keep theirs is somebody's data.
func blank(dev *volume.Device) (bool, error) {
	n, err := dev.Bytes()
	if err != nil {
		return false, err
	}
	for _, off := range []int64{0, 1 << 20, 2 << 20, 3 << 20, n - 1<<20} {
		buf := volume.AlignedBuffer(1 << 20)
		if _, err := dev.ReadAt(buf, off); err != nil {
			return false, fmt.Errorf("read volume %s: %w", dev.ID(), err)
		}
		if off == 0 && string(buf[:sector]) == string(format.Guard(uint64(n))) {
			clear(buf[:sector])
		}
		for _, c := range buf {
			if c != 0 {
				return false, nil
			}
		}
	}
	return true, nil
}

func (m *Manager) volumeBytes(ctx context.Context, id string) (int64, error) {
	dev, err := m.Locator.Open(ctx, id)
	if err != nil {
		return 0, headerRefusal(id, err)
	}
	defer dev.Close()
	return dev.Bytes()
}

// writeGuard writes the first sector, which keeps other tools away.
func (m *Manager) writeGuard(ctx context.Context, id string) error {
	dev, err := m.Locator.Open(ctx, id)
	if err != nil {
		return headerRefusal(id, err)
	}
	defer dev.Close()
	n, err := dev.Bytes()
	if err != nil {
		return err
	}
	buf := volume.AlignedBuffer(4096)
	copy(buf, format.Guard(uint64(n)))
	return writeDurably(dev, buf, format.GuardOffset)
}
