package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// keepRoom makes room for filling pools beside the steps of an operation that
// takes long. It takes turns with the steps that change the backing, steps back
// for a rehome, and ends when the operation does.
func (op *operation) keepRoom(ctx workflow.Context) {
	workflow.Go(ctx, func(ctx workflow.Context) {
		for {
			err := workflow.Await(ctx, func() bool {
				return op.closing || (len(op.signals.pressure) > 0 && op.signals.rehome == nil && op.node != "")
			})
			if err != nil || op.closing {
				return
			}
			_ = op.locked(ctx, alone, func() error {
				p, ok := op.signals.takePressure()
				if !ok || op.closing {
					return nil
				}
				_ = op.makeRoomFor(ctx, p)
				return nil
			})
		}
	})
}

// makeRoomFor makes room once, and deals with how that ends. The caller holds mu.
func (op *operation) makeRoomFor(ctx workflow.Context, p contract.Pressure) error {
	op.made++
	err := op.makeRoom(ctx, p)
	op.noteRoom(ctx, p, err)
	return err
}

// noteRoom deals with the end of one attempt to make room.
func (op *operation) noteRoom(ctx workflow.Context, p contract.Pressure, err error) {
	r, refused := contract.AsRefusal(err)
	switch {
	case err == nil:
	case errors.Is(err, errYield):
		op.signals.press(p)
	case refused:
		op.progress.Refusal = r
		op.show(ctx)
	default:
		workflow.GetLogger(ctx).Warn("Making room failed; the agent asks again while the pool fills", "disk", op.disk, "error", err)
	}
}

// makeRoom grows the backing that a pressure signal names. A signal measured
// before the last growth grows nothing again. The caller holds mu.
func (op *operation) makeRoom(ctx workflow.Context, p contract.Pressure) error {
	m, err := op.measure(ctx)
	if err != nil {
		return err
	}
	if m.Move != nil && p.Generation == m.Move.Generation && p.Generation != m.Generation {
		if op.undoing {
			return nil // it goes
		}
		return op.growIncoming(ctx, m, p)
	}
	u := op.usage(ctx, m)
	forced := m.Full
	if p.Generation == m.Generation || p.Generation == 0 {
		u.FillRate = max(u.FillRate, p.FillRate)
		forced = forced || m.BackingBytes <= p.BackingBytes || p.BackingBytes == 0
	}
	how, patience := op.asked(p)
	d, err := plan.GrowTarget(u, how, forced)
	if err != nil || d.Enough {
		return err
	}
	op.patience = patience
	_, err = op.extend(ctx, m, d)
	return err
}

// asked is how a growth that an agent asked for is planned, and how long it may wait
// for EBS: as the signal says, in whatever operation it is heard.
func (op *operation) asked(p contract.Pressure) (plan.Policy, time.Duration) {
	if p.Settings == (contract.Settings{}) || p.Settings.Validate() != nil {
		return op.plan, op.set.ModifyPatience
	}
	return plan.PolicyOf(p.Settings), p.Settings.WithDefaults().ModifyPatience
}

// measure asks the node, after finishing an append that was interrupted.
func (op *operation) measure(ctx workflow.Context) (contract.Measurement, error) {
	m, err := node(ctx, op, contract.MeasureDisk, contract.MeasureDiskInput{Disk: op.disk}, brief)
	if err == nil && op.appending != nil {
		m, err = op.append(ctx, m)
	}
	return m, err
}

func usageOf(m contract.Measurement) plan.Usage {
	return plan.Usage{
		SizeBytes: m.SizeBytes, BackingBytes: m.BackingBytes, OverheadBytes: m.OverheadBytes,
		UsedBytes: m.PoolUsedBytes, FillRate: m.FillRate,
	}
}

// usage is usageOf with what the disk has had of its day's modifications.
func (op *operation) usage(ctx workflow.Context, m contract.Measurement) plan.Usage {
	return usageOf(m).WithModified(workflow.Now(ctx), op.modified)
}

// extend brings the active backing to the decided size: by the last member when
// EBS modifies it in time, else by another volume.
func (op *operation) extend(ctx workflow.Context, m contract.Measurement, d plan.Decision) (contract.Measurement, error) {
	// Earlier modifications that the pool does not use yet cost nothing.
	for _, b := range m.Members {
		if b.DeviceBytes < b.Bytes+contract.GiB {
			continue
		}
		op.doing(ctx, contract.PhaseExtend)
		grown, err := op.growBacking(ctx, b.Volume, b.DeviceBytes)
		if err != nil || plan.CeilGiB(grown.BackingBytes) >= d.GiB {
			return grown, err
		}
		m = grown
	}
	if len(m.Members) == 0 {
		return m, contract.Refuse(contract.DiskIncomplete, "the node names no member of the backing").WithDisk(op.disk).
			WithNext("attach the disk's active volumes to the node, and look at its agent's log")
	}
	last := m.Members[len(m.Members)-1]
	missing := d.GiB - plan.CeilGiB(m.BackingBytes)
	v, err := op.modify(ctx, last.Volume, plan.CeilGiB(last.Bytes)+missing)
	if err == nil {
		op.modified = append(op.modified, workflow.Now(ctx))
		op.doing(ctx, contract.PhaseExtend)
		return op.growBacking(ctx, last.Volume, v.SizeGiB*contract.GiB)
	}
	if !modifyRefused(err) {
		return m, err
	}
	if err := op.addVolume(ctx, m, last.Volume, missing); err != nil {
		return m, err
	}
	return op.append(ctx, m)
}

func (op *operation) growBacking(ctx workflow.Context, volume string, bytes int64) (contract.Measurement, error) {
	in := contract.GrowBackingInput{Disk: op.disk, Volume: volume, Bytes: bytes}
	return node(ctx, op, contract.GrowBacking, in, brief)
}

// errSlow: EBS did not modify the volume within ModifyPatience.
var errSlow = errors.New("EBS takes too long to modify the volume")

func modifyRefused(err error) bool {
	r, ok := contract.AsRefusal(err)
	return errors.Is(err, errSlow) || (ok && (r.Code == contract.ModificationLimit || r.Code == contract.SizeLimit))
}

// modify asks EBS for a larger volume and gives up waiting after
// the growth's patience; what comes late is found by the next growth.
func (op *operation) modify(ctx workflow.Context, volume string, gib int64) (contract.VolumeFacts, error) {
	op.doing(ctx, contract.PhaseModify)
	timer, stop := workflow.WithCancel(ctx)
	defer stop()
	late := workflow.NewTimer(timer, op.patience)
	call, cancel := workflow.WithCancel(ctx)
	defer cancel()

	var v contract.VolumeFacts
	err := errSlow
	done := false
	workflow.Go(call, func(ctx workflow.Context) {
		in := contract.ModifyVolumeInput{Disk: op.disk, Volume: volume, SizeGiB: gib}
		got, callErr := control(ctx, op, contract.ModifyVolume, in, brief)
		if errors.Is(err, errSlow) {
			v, err = got, callErr
		}
		done = true
	})
	if werr := workflow.Await(ctx, func() bool { return done || late.IsReady() }); werr != nil {
		return v, werr
	}
	return v, err
}

// addVolume makes a volume for the active backing and remembers it until it is
// part of it.
func (op *operation) addVolume(ctx workflow.Context, m contract.Measurement, like string, gib int64) error {
	facts, err := control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
	if err != nil {
		return err
	}
	index := 0
	for _, b := range m.Members {
		index = max(index, b.Index+1)
	}
	in := contract.CreateVolumeInput{
		Disk: op.disk, Name: facts.Name, Move: op.run + "-a", Generation: m.Generation, Index: index,
		Role: contract.RoleIncoming,
	}
	for _, v := range facts.Volumes {
		if v.ID == like {
			in.Zone, in.Like = v.Zone, &v
		}
	}
	if in.Like == nil {
		return contract.Refuse(contract.DiskIncomplete, "EC2 does not name a member of the backing as the disk's").WithDisk(op.disk).WithVolume(like).
			WithNext("look at the volume's ebb:disk and ebb:role tags: the header on it says what they should be")
	}
	in.SizeGiB = max(gib, plan.LeastGiB(in.Like, contract.VolumeSpec{}))
	op.doing(ctx, contract.PhaseCreate)
	v, err := control(ctx, op, contract.CreateVolume, in, brief)
	if err != nil {
		return err
	}
	op.appending = &v
	op.modified = append(op.modified, workflow.Now(ctx))
	return nil
}

// append attaches the remembered volume and makes it part of the backing. When
// that is refused the volume is deleted again, but only when the node says that it
// is no member: a refusal may come after the header has it. It is safe to repeat.
func (op *operation) append(ctx workflow.Context, m contract.Measurement) (contract.Measurement, error) {
	v := *op.appending
	if !member(m.Members, v.ID) {
		grown, err := op.appendNew(ctx, v)
		if err != nil {
			if _, refused := contract.AsRefusal(err); !refused {
				return m, err
			}
			now, merr := node(ctx, op, contract.MeasureDisk, contract.MeasureDiskInput{Disk: op.disk}, brief)
			if merr != nil || member(now.Members, v.ID) {
				return m, err
			}
			op.appending = nil
			return m, errors.Join(err, op.scrap(ctx, v))
		}
		m = grown
	}
	_, err := control(ctx, op, contract.TagVolume, contract.TagVolumeInput{
		Disk: op.disk, Volume: v.ID, Role: contract.RoleActive, Generation: m.Generation,
	}, brief)
	if err == nil {
		op.appending = nil
	}
	return m, err
}

func (op *operation) appendNew(ctx workflow.Context, v contract.VolumeFacts) (contract.Measurement, error) {
	op.doing(ctx, contract.PhaseAttach)
	if err := op.attach(ctx, v.ID, op.node, true); err != nil {
		return contract.Measurement{}, err
	}
	op.doing(ctx, contract.PhaseExtend)
	return node(ctx, op, contract.AppendVolume, contract.AppendVolumeInput{Disk: op.disk, Volume: v.ID}, brief)
}

// settleAppend deals with a volume whose append was left in the middle: it is
// tagged when it became part of the backing, deleted when not. What it cannot
// settle is settled by the next operation: the volume's tags say whose it is.
func (op *operation) settleAppend(ctx workflow.Context) {
	if op.appending == nil {
		return
	}
	op.undoing = true
	defer func() { op.undoing = false }()
	err := op.locked(ctx, alone, func() error {
		m, err := node(ctx, op, contract.MeasureDisk, contract.MeasureDiskInput{Disk: op.disk}, brief)
		switch {
		case err != nil:
		case member(m.Members, op.appending.ID):
			_, err = op.append(ctx, m)
		default:
			err = op.scrap(ctx, *op.appending)
		}
		return err
	})
	if err != nil {
		workflow.GetLogger(ctx).Warn("A volume made for growth is left to the next operation", "disk", op.disk, "volume", op.appending.ID, "error", err)
	}
}

// scrap detaches and deletes a volume that holds nothing of the disk.
func (op *operation) scrap(ctx workflow.Context, v contract.VolumeFacts) error {
	if err := op.detach(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: op.node, Fresh: true}); err != nil {
		return err
	}
	_, err := control(ctx, op, contract.DeleteVolume, contract.DeleteVolumeInput{
		Disk: op.disk, Volume: v.ID, Roles: []contract.Role{contract.RoleIncoming},
	}, brief)
	return err
}

func member(ms []contract.Member, volume string) bool {
	for _, m := range ms {
		if m.Volume == volume {
			return true
		}
	}
	return false
}

// growIncoming grows the new backing of a running move. When EBS refuses, the
// move is given up: the old backing is complete.
func (op *operation) growIncoming(ctx workflow.Context, m contract.Measurement, p contract.Pressure) error {
	mv := m.Move
	var backing int64
	for _, b := range mv.Members {
		backing += b.Bytes
	}
	if len(mv.Members) == 0 || (backing > p.BackingBytes && p.BackingBytes != 0 && !mv.Full) {
		return nil
	}
	u := plan.Usage{
		SizeBytes: m.SizeBytes, BackingBytes: backing, OverheadBytes: backing - mv.PoolBytes,
		UsedBytes: mv.PoolUsedBytes, FillRate: p.FillRate,
	}
	how, patience := op.asked(p)
	op.patience = patience
	d, err := plan.GrowTarget(u, how, true)
	if err == nil {
		last := mv.Members[len(mv.Members)-1]
		var v contract.VolumeFacts
		if last.DeviceBytes >= last.Bytes+contract.GiB {
			v.SizeGiB = last.DeviceBytes / contract.GiB
		} else {
			v, err = op.modify(ctx, last.Volume, plan.CeilGiB(last.Bytes)+d.GiB-plan.CeilGiB(backing))
		}
		if err == nil {
			_, err = op.growBacking(ctx, last.Volume, v.SizeGiB*contract.GiB)
			return err
		}
	}
	if _, refused := contract.AsRefusal(err); !refused && !errors.Is(err, errSlow) {
		return err
	}
	return op.giveUpMove(ctx, m, err)
}

// giveUpMove makes the operation that owns the move abort it. A move that no
// running operation owns is aborted here.
func (op *operation) giveUpMove(ctx workflow.Context, m contract.Measurement, why error) error {
	r := contract.Refuse(contract.MoveFailed, "the new backing filled and could not be enlarged: %v", why).
		WithDisk(op.disk).WithNext("shrink again later, or to a larger size")
	if op.progress.Operation == contract.ShrinkWorkflow && !op.undoing {
		op.abandon = r
		return r
	}
	if err := op.dropMove(ctx, *m.Move); err != nil {
		return fmt.Errorf("give up move %s: %w", m.Move.Move, err)
	}
	return nil
}

// dropMove aborts a move and deletes its volumes. The volumes go only after the
// node has confirmed the abort.
func (op *operation) dropMove(ctx workflow.Context, mv contract.MoveState) error {
	m, err := node(ctx, op, contract.AbortMove, contract.MoveInput{Disk: op.disk, Move: mv.Move}, brief)
	if err != nil {
		return err
	}
	facts, err := control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
	if err != nil {
		return err
	}
	for _, v := range facts.Volumes {
		if v.Role == contract.RoleIncoming && v.Generation == mv.Generation && !member(m.Members, v.ID) {
			if err := op.scrap(ctx, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// graceLeft is how much of a grace period is left for a volume.
func graceLeft(ctx workflow.Context, v contract.VolumeFacts, grace time.Duration) time.Duration {
	if v.RetiredAt.IsZero() {
		return grace
	}
	return max(grace-workflow.Now(ctx).Sub(v.RetiredAt), 0)
}
