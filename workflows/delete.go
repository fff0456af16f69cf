package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// DeleteDisk takes a disk down and deletes its volumes, after a last snapshot.
// A cancel before the first volume is deleted puts the disk back.
func DeleteDisk(ctx workflow.Context, in contract.DeleteDiskInput) (contract.Result, error) {
	return operate(ctx, header{
		name: contract.DeleteDiskWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(),
		phases: []contract.Phase{contract.PhaseCheck, contract.PhaseAbort, contract.PhaseSnapshot, contract.PhaseRetire},
	}, func(ctx workflow.Context, op *operation) error { return deleteDisk(ctx, op, in) })
}

func deleteDisk(ctx workflow.Context, op *operation, in contract.DeleteDiskInput) error {
	// 1. Check.
	var facts contract.DiskFacts
	up := false
	err := op.step(ctx, contract.PhaseCheck, alone, func() (err error) {
		if facts, err = op.located(ctx); err != nil || op.node == "" {
			return err
		}
		n, err := control(ctx, op, contract.DescribeNode, contract.DescribeNodeInput{Node: op.node}, brief)
		if r, ok := contract.AsRefusal(err); ok && r.Code == contract.NodeUnknown {
			return nil
		}
		up = n.State == stateRunning || n.State == "pending"
		return err
	})
	if err != nil {
		return err
	}
	for _, v := range facts.Volumes {
		op.result.BeforeGiB += v.SizeGiB
	}
	if in.DryRun {
		op.result.Steps = deleteWords(op, facts, in, up)
		return nil
	}
	// 2. Take it down.
	if up {
		op.onUndo("assemble the disk again", func(ctx workflow.Context) error { return op.putBack(ctx, facts) })
		op.keepRoom(ctx)
		err := op.step(ctx, contract.PhaseAbort, alone, func() error { return op.takeDown(ctx) })
		if err != nil {
			return err
		}
	}
	// 3. A last snapshot.
	if last := lastOf(facts); !in.SkipSnapshot && len(last) > 0 {
		err := op.step(ctx, contract.PhaseSnapshot, alone, func() error {
			op.wait(ctx, "the disk's last snapshot to be complete")
			defer op.wait(ctx, "")
			in := contract.SnapshotDiskInput{
				Disk: op.disk, Volumes: ids(last), Move: op.run, Reason: "before the disk's deletion", Complete: true,
			}
			if op.node != "" && len(attachedTo(facts, op.node)) == len(last) {
				in.Node = op.node
			}
			out, err := controlFor(ctx, op, contract.SnapshotDisk, in, long, lastSnapshotPatience)
			op.result.Snapshot = strings.Join(out.Snapshots, ",")
			return err
		})
		if err != nil {
			return err
		}
	}
	// 4. Detach and delete every volume. From here it only goes forward.
	if err := op.gate(ctx); err != nil {
		return err
	}
	op.undos, op.final = nil, true
	return op.step(ctx, contract.PhaseRetire, alone, func() error { return op.deleteVolumes(ctx) })
}

// lastSnapshotPatience bounds the wait until a disk's last snapshot is complete: a
// large volume's takes hours.
const lastSnapshotPatience = 48 * time.Hour

// lastOf is the volumes of which a disk's last snapshot is made: all but the
// retired. Where an operation died, the tags may not say yet which one is active.
func lastOf(f contract.DiskFacts) []contract.VolumeFacts {
	return slices.DeleteFunc(slices.Clone(f.Volumes), func(v contract.VolumeFacts) bool { return v.Role == contract.RoleRetired })
}

func (op *operation) deleteVolumes(ctx workflow.Context) error {
	facts, err := control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
	if err != nil {
		return err
	}
	op.node = "" // nothing can be done for the disk on a node any more
	for _, v := range facts.Volumes {
		if v.Node == "" {
			continue
		}
		if err := op.detach(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: v.Node}); err != nil {
			return err
		}
	}
	for _, v := range facts.Volumes {
		_, err := control(ctx, op, contract.DeleteVolume, contract.DeleteVolumeInput{
			Disk: op.disk, Volume: v.ID, Roles: []contract.Role{contract.RoleActive, contract.RoleIncoming, contract.RoleRetired},
		}, brief)
		if err != nil {
			return err
		}
	}
	return nil
}

// putBack assembles a disk whose volumes are still attached.
func (op *operation) putBack(ctx workflow.Context, facts contract.DiskFacts) error {
	_, err := node(ctx, op, contract.AssembleDisk, contract.AssembleDiskInput{Disk: op.disk, Volumes: attachedTo(facts, op.node)}, brief)
	return err
}

func deleteWords(op *operation, facts contract.DiskFacts, in contract.DeleteDiskInput, up bool) []string {
	var w []string
	if up {
		w = append(w, fmt.Sprintf("unmount the disk on %s and take it down", op.node))
	}
	if !in.SkipSnapshot {
		w = append(w, fmt.Sprintf("snapshot %s", strings.Join(ids(lastOf(facts)), ", ")))
	}
	for _, v := range facts.Volumes {
		w = append(w, fmt.Sprintf("delete volume %s (%d GiB, %s)", v.ID, v.SizeGiB, v.Role))
	}
	return w
}
