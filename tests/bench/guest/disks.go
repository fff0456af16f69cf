package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/tests/node"
)

// maxDisks is what there is room for.
const maxDisks = 30

const sliceBytes = 160 * mib

// disksExperiment leaves disks behind for the agent, as many as asked for in
// all. A node of the bench has fewer slots than that, so the volumes are slices
// of one, which bear the same kind of identity; its own beginning stays blank.
func disksExperiment(ctx context.Context, r *rig) error {
	big, err := r.dm.Info("ebsvol-vol-disks0")
	if errors.Is(err, dm.ErrNotFound) {
		if _, err = r.volume((maxDisks + 1) * sliceBytes); err == nil {
			big, err = r.dm.Info("ebsvol-vol-disks0")
		}
	}
	if err != nil {
		return err
	}
	for i := range min(r.p.Disks, maxDisks) {
		id := fmt.Sprintf("vol-%017x", i+1)
		name := "ebsvol-" + id
		switch _, err := r.dm.Create(name, node.UUIDPrefix+id); {
		case errors.Is(err, dm.ErrExists):
		case err != nil:
			return err
		default:
			if _, err := r.dm.Load(name, false, dm.Linear(0, uint64(sliceBytes/512), big.Dev, uint64(int64(i+1)*sliceBytes/512))); err != nil {
				return err
			}
			if _, err := r.dm.Resume(name, dm.ResumeFlags{}); err != nil {
				return err
			}
		}
		if _, _, err := r.format(ctx, contract.Ext4, gib, id, true); err != nil {
			return err
		}
	}
	r.disks, r.vols = nil, nil // they stay
	return nil
}
