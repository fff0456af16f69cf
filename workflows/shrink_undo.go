package workflows

import (
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// The undos of Shrink, run in this order. The later ones run only when the
// earlier ones succeeded: a new volume is deleted only after the node has
// confirmed that the disk is on the old one.

// undoMove puts the disk back on the old backing. The node refuses when the
// move was committed; then it measures generation g+1.
func (s *shrink) undoMove(ctx workflow.Context) error {
	err := s.besideRoom(ctx, func() error { // it waits for a pool that is full, as the commit does
		_, err := node(ctx, s.operation, contract.AbortMove, s.moveInput(), brief)
		return err
	})
	r, refused := contract.AsRefusal(err)
	if !refused || r.Code != contract.MoveFailed {
		return err
	}
	m, merr := node(ctx, s.operation, contract.MeasureDisk, contract.MeasureDiskInput{Disk: s.disk}, brief)
	if merr != nil {
		return merr
	}
	if m.Generation == s.m.Generation+1 && member(m.Members, s.volume) {
		s.grown(m)
		return errCommitted
	}
	return err
}

// undoAttach detaches what this move attached.
func (s *shrink) undoAttach(ctx workflow.Context) error {
	vs, err := s.incoming(ctx)
	if err != nil {
		return err
	}
	for _, v := range vs {
		if v.Node == "" {
			continue
		}
		if err := s.detach(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: v.Node, Fresh: true}); err != nil {
			return err
		}
	}
	return nil
}

// undoCreate deletes what this move created. When it is not known whether
// anything was, it looks again after EC2's describes have settled.
func (s *shrink) undoCreate(ctx workflow.Context) error {
	if s.volume == "" {
		if err := workflow.Sleep(ctx, settlePause); err != nil {
			return err
		}
	}
	vs, err := s.incoming(ctx)
	if err != nil {
		return err
	}
	for _, v := range vs {
		err := s.deleteIncoming(ctx, v.ID)
		if _, stuck := isStuck(err, contract.DetachStuck); stuck {
			// It was not detached: it was described as it was before it was attached, or
			// the disk was brought to another node meanwhile, with it.
			if err = s.detach(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: s.node, Fresh: true}); err == nil {
				err = s.deleteIncoming(ctx, v.ID)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *shrink) deleteIncoming(ctx workflow.Context, volume string) error {
	_, err := control(ctx, s.operation, contract.DeleteVolume, contract.DeleteVolumeInput{
		Disk: s.disk, Volume: volume, Roles: []contract.Role{contract.RoleIncoming},
	}, brief)
	return err
}

// incoming is the volumes of this move that EC2 has.
func (s *shrink) incoming(ctx workflow.Context) ([]contract.VolumeFacts, error) {
	facts, err := control(ctx, s.operation, contract.DescribeDisk, contract.DescribeDiskInput{Disk: s.disk}, brief)
	if err != nil {
		return nil, err
	}
	var out []contract.VolumeFacts
	known := s.volume == ""
	for _, v := range facts.Volumes {
		if v.Role == contract.RoleIncoming && (v.Move == s.move || v.ID == s.volume) {
			out = append(out, v)
			known = known || v.ID == s.volume
		}
	}
	if !known { // EC2's describe lags behind
		out = append(out, contract.VolumeFacts{ID: s.volume, Role: contract.RoleIncoming, Node: s.node})
	}
	return out, nil
}
