package disk

import (
	"context"
	"errors"
	"strings"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// proveLegs compares the devices under a move's running backings with the volumes
// that were found. A volume that was detached in use and came back is another
// device, and may have been written elsewhere meanwhile: what the kernel holds in
// memory of a backing, and the move's log, then need not belong to what is on it.
// Nothing is changed. Devices that are not there yet prove themselves when they are
// made.
func (m *Manager) proveLegs(ctx context.Context, d contract.DiskID, v *view) error {
	for _, b := range []*backing{v.active, v.incoming} {
		for kind, part := range map[format.Kind]string{format.Data: partData, format.Meta: partMeta} {
			_, table, err := m.DM.Table(stackName(b.head) + part)
			if errors.Is(err, dm.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			want, err := m.linears(ctx, b, kind)
			if err != nil {
				return err
			}
			for i, t := range table {
				if i >= len(want) || t.Type != "linear" || t.Start != want[i].Start {
					break // another layout is not another volume: ensure sees to it
				}
				if t.Params != want[i].Params {
					return m.strayLeg(d, b, t, want[i], kind, i)
				}
			}
		}
	}
	return nil
}

// strayLeg says which volume the i-th part of a backing's device should be on, and
// on what it is.
func (m *Manager) strayLeg(d contract.DiskID, b *backing, is, want dm.Target, k format.Kind, i int) error {
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
	return contract.Refuse(contract.VolumeFailing, "generation %d runs over device %s, and the volume is device %s now: it was detached while it was in use", b.head.Generation, on, should).
		WithDisk(d).WithVolume(vol).WithNext("stop the program that uses the disk and restart the node; the disk comes up again from its volumes")
}
