package stubnode

import (
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
)

const regions = 100

func (n *Nodes) prepare(node string, in contract.PrepareMoveInput) (contract.Measurement, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return contract.Measurement{}, err
	}
	if d.Move != nil && d.Move.Move != in.Move {
		return contract.Measurement{}, contract.Refuse(contract.DiskBusy, "move %s is running", d.Move.Move).WithDisk(in.Disk)
	}
	if d.Generation == in.Generation {
		return n.measure(node, in.Disk) // committed already
	}
	if in.Generation != d.Generation+1 {
		return contract.Measurement{}, contract.Refuse(contract.DuplicateGeneration, "generation %d after %d", in.Generation, d.Generation)
	}
	if d.Move == nil {
		mv := &contract.MoveState{Move: in.Move, Generation: in.Generation, Phase: contract.PhasePrepare, Regions: regions, ThrottleMiBs: in.ThrottleMiBs}
		have := n.ec2.AttachedGiB(node)
		for i, v := range in.Volumes {
			if have[v] == 0 {
				return contract.Measurement{}, contract.Refuse(contract.DiskIncomplete, "not attached").WithVolume(v)
			}
			mv.Members = append(mv.Members, contract.Member{Volume: v, Index: i, Bytes: have[v] * contract.GiB})
		}
		d.Move = mv
	}
	return n.measure(node, in.Disk)
}

// moving finds a disk and its running move; committed says the move is over.
func (n *Nodes) moving(node string, in contract.MoveInput) (d *Disk, committed bool, err error) {
	d, err = n.on(node, in.Disk)
	switch {
	case err != nil:
		return nil, false, err
	case d.Move == nil || d.Move.Move != in.Move:
		return d, false, contract.Refuse(contract.MoveFailed, "no move %s", in.Move).WithDisk(in.Disk)
	}
	return d, d.Move.Phase == contract.PhaseCommit, nil
}

func (n *Nodes) evacuate(node string, in contract.MoveInput) (contract.EvacuateResult, error) {
	d, committed, err := n.moving(node, in)
	if err != nil {
		return contract.EvacuateResult{}, err
	}
	d.Copies++
	if !committed {
		if err := n.complete(node, d.Move.Members); err != nil {
			return contract.EvacuateResult{}, err
		}
		d.Move.InSync, d.Move.Phase = regions, contract.PhaseVerify
	}
	return contract.EvacuateResult{CopiedBytes: d.UsedBytes, UsedBytes: d.UsedBytes, SwapPausesMS: []float64{1, 2}}, nil
}

func (n *Nodes) verify(node string, in contract.MoveInput) (contract.VerifyResult, error) {
	d, committed, err := n.moving(node, in)
	if err != nil {
		return contract.VerifyResult{}, err
	}
	if !committed && d.Move.InSync != regions {
		return contract.VerifyResult{}, fmt.Errorf("BROKEN: verify before everything is copied")
	}
	return contract.VerifyResult{VerifiedBytes: d.UsedBytes}, nil
}

func (n *Nodes) commit(node string, in contract.MoveInput) (contract.CommitResult, error) {
	d, committed, err := n.moving(node, in)
	if err != nil {
		return contract.CommitResult{}, err
	}
	if !committed {
		if d.Move.InSync != regions {
			return contract.CommitResult{}, fmt.Errorf("BROKEN: commit before everything is copied")
		}
		for _, m := range d.Members {
			d.Retired[d.Generation] = append(d.Retired[d.Generation], m.Volume)
		}
		d.Members, d.Generation, d.Move.Phase = d.Move.Members, d.Move.Generation, contract.PhaseCommit
	}
	m, err := n.measure(node, in.Disk)
	return contract.CommitResult{Generation: d.Generation, SwapPauseMS: 3, Measurement: m}, err
}

func (n *Nodes) retire(node string, in contract.MoveInput) (contract.RetireBackingResult, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return contract.RetireBackingResult{}, err
	}
	if d.Move != nil {
		if d.Move.Phase != contract.PhaseCommit {
			return contract.RetireBackingResult{}, fmt.Errorf("BROKEN: retire before the commit")
		}
		d.Move = nil
	}
	return contract.RetireBackingResult{Volumes: d.Retired[d.Generation-1], Generation: d.Generation - 1}, nil
}

func (n *Nodes) abort(node string, in contract.MoveInput) (contract.Measurement, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return contract.Measurement{}, err
	}
	if d.Move != nil && d.Move.Move == in.Move {
		if d.Move.Phase == contract.PhaseCommit {
			return contract.Measurement{}, contract.Refuse(contract.MoveFailed, "move %s is committed", in.Move).WithDisk(in.Disk)
		}
		d.Move = nil
	}
	return n.measure(node, in.Disk)
}

func (n *Nodes) throttle(node string, in contract.ThrottleMoveInput) (struct{}, error) {
	d, err := n.on(node, in.Disk)
	if err != nil {
		return struct{}{}, err
	}
	d.Throttle = in
	return struct{}{}, nil
}

// Verify says what is wrong with a disk that should be in its usual state: up
// on node, no move, all members attached. Empty is fine.
func (n *Nodes) Verify(id contract.DiskID, node string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	d, err := n.on(node, id)
	if err != nil {
		return err
	}
	if d.Move != nil {
		return fmt.Errorf("move %s is left in phase %s", d.Move.Move, d.Move.Phase)
	}
	return nil
}
