package disk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// proveLegs compares the devices under a disk's running backings with the volumes
// that were found. A volume that was detached in use and came back is another
// device, and may have been written elsewhere meanwhile: what the kernel holds in
// memory of a pool and of the filesystem, and a move's log, then need not belong to
// what is on it. Nothing is changed. Devices that are not there yet prove themselves
// when they are made.
func (m *Manager) proveLegs(ctx context.Context, v *view) error {
	if err := m.proveActive(ctx, v); err != nil || !v.moving() {
		return err
	}
	return m.proveBacking(ctx, v.incoming)
}

// proveActive is proveLegs for the active backing. Where the disk is in use it runs
// here: only a commit on this node puts another one under a disk in use, and that
// one runs before. Else the disk was moved on another node.
func (m *Manager) proveActive(ctx context.Context, v *view) error {
	a := v.active
	d := contract.DiskID(a.head.Disk)
	used, err := m.runs(topName(d))
	if err != nil {
		return err
	}
	if running, err := m.runs(stackName(a.head)); err != nil {
		return err
	} else if used && !running {
		return contract.Refuse(contract.VolumeFailing, "the disk is in use here, but not over generation %d: its volumes were detached while it was in use, and it was moved elsewhere", a.head.Generation).
			WithDisk(d).WithVolume(a.vols[0]).WithNext(straysNext, d)
	}
	return m.proveBacking(ctx, a)
}

// straysNext is what to do when the kernel holds in memory what belongs to other
// devices.
const straysNext = "stop the program that uses the disk, then restart the node, or take the disk to another one (ebb disk move %s --node INSTANCE): it comes up again from its volumes"

// runs tells that a device is there and has a table.
func (m *Manager) runs(name string) (bool, error) {
	i, err := m.DM.Info(name)
	if errors.Is(err, dm.ErrNotFound) {
		return false, nil
	}
	return i.ActivePresent, err
}

// proveBacking is proveLegs for one backing.
func (m *Manager) proveBacking(ctx context.Context, b *backing) error {
	for _, kind := range []format.Kind{format.Data, format.Meta} {
		want, err := m.linears(ctx, b, kind)
		if err != nil {
			return err
		}
		if err := m.proveSlices(b, kind, want); err != nil {
			return err
		}
	}
	return nil
}

// partOf is where a pool has a kind of its segments.
func partOf(k format.Kind) string {
	if k == format.Meta {
		return partMeta
	}
	return partData
}

// ensureSlices makes, or grows, the device with a kind of a backing's segments. Under a
// running pool it never changes which volume they are on.
func (m *Manager) ensureSlices(b *backing, k format.Kind, want []dm.Target) (dm.Info, error) {
	if err := m.proveSlices(b, k, want); err != nil {
		return dm.Info{}, err
	}
	return m.ensure(stackName(b.head)+partOf(k), want...)
}

// proveSlices refuses when a running pool's device is not where it should be. It may
// have fewer segments than the header, or a shorter last one: it then grows.
func (m *Manager) proveSlices(b *backing, k format.Kind, want []dm.Target) error {
	if running, err := m.runs(stackName(b.head) + partPool); err != nil || !running {
		return err // nothing is in memory
	}
	_, table, err := m.DM.Table(stackName(b.head) + partOf(k))
	if err != nil {
		return err
	}
	for i, t := range table {
		if i >= len(want) || t.Type != "linear" || t.Start != want[i].Start {
			break // another layout is not another volume: ensure sees to it
		}
		if t.Params != want[i].Params {
			return m.strayLeg(b, t, want[i], k, i)
		}
	}
	return nil
}

// strayLeg says which volume the i-th part of a backing's device should be on, and
// on what it is.
func (m *Manager) strayLeg(b *backing, is, want dm.Target, k format.Kind, i int) error {
	on, _, _ := strings.Cut(is.Params, " ")
	should, _, _ := strings.Cut(want.Params, " ")
	vol := b.vols[0]
	for _, s := range b.head.Segments {
		if s.Kind != k {
			continue
		}
		if i == 0 {
			vol = b.vols[s.Member]
			break
		}
		i--
	}
	d := contract.DiskID(b.head.Disk)
	next := fmt.Sprintf(straysNext, d)
	if b.head.Role == format.Incoming {
		next = "cancel the move (the original is untouched)"
	}
	return contract.Refuse(contract.VolumeFailing, "generation %d runs over device %s, and the volume is device %s now: it was detached while it was in use", b.head.Generation, on, should).
		WithDisk(d).WithVolume(vol).WithNext("%s", next)
}
