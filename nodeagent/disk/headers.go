package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// Header reads what is on an attached volume, whichever disk it belongs to. It
// writes nothing. What is wrong with the volume is told in the answer; an error
// says that the volume could not be looked at.
//
// A volume that an earlier try left with nothing but Ebb's guard counts as blank.
// While an operation holds the disk that the header names, the volume counts as
// in use.
func (m *Manager) Header(ctx context.Context, id string) (contract.VolumeHeader, error) {
	out := contract.VolumeHeader{Volume: id}
	dev, err := m.Locator.Open(ctx, id)
	switch {
	case errors.Is(err, volume.ErrAmbiguous):
		out.Present, out.InUse = true, true // whatever it is, nobody knows which
		return out, err
	case errors.Is(err, volume.ErrNotAttached):
		return out, nil
	case err != nil:
		return out, err
	}
	defer dev.Close()
	out.Present = true
	head, err := readHeader(dev)
	switch {
	case err == nil:
		out.Disk, out.Generation, out.Role, out.Move = contract.DiskID(head.Disk), head.Generation, contract.Role(head.Role.String()), head.Move
		if own := head.Members[head.Index].Volume; own != id {
			out.Problem = fmt.Sprintf("the header names volume %s: this one was made from its snapshot", own)
		}
	case errors.Is(err, format.ErrBlank):
		if out.Blank, err = blank(dev); err != nil {
			return out, err
		}
		if !out.Blank {
			out.Problem = headerRefusal(id, format.ErrForeign).Message
		}
	default:
		out.Problem = headerRefusal(id, err).Message
	}
	out.InUse, err = m.inUse(dev, out.Disk)
	return out, err
}

// inUse tells whether something else has a volume open for itself: a device of
// device-mapper, a mount, swap. The question is asked by claiming the volume for
// a moment, which would let a table load fail: so not while an operation holds
// the disk.
func (m *Manager) inUse(dev *volume.Device, d contract.DiskID) (bool, error) {
	if d.Validate() == nil {
		h := m.handle(d)
		if !h.mu.TryLock() {
			return true, nil
		}
		defer h.mu.Unlock()
		if h.lent() {
			return true, nil
		}
	}
	if holders, err := os.ReadDir(fmt.Sprintf("/sys/dev/block/%s/holders", dev.Dev())); err == nil && len(holders) > 0 {
		return true, nil
	}
	// The open descriptor's own name leads to the same device, whatever its node
	// is called by now.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", dev.Fd()), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return true, fmt.Errorf("claim volume %s: %w", dev.ID(), err)
	}
	return false, unix.Close(fd)
}
