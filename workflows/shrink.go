package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// backupPatience is how long a shrink waits for running backups by default.
const backupPatience = 2 * time.Hour

var shrinkPhases = []contract.Phase{
	contract.PhaseCheck, contract.PhaseBackup, contract.PhaseSnapshot, contract.PhaseCreate, contract.PhaseAttach,
	contract.PhasePrepare, contract.PhaseCopy, contract.PhaseVerify, contract.PhaseCommit, contract.PhaseRetire,
}

// shrink is one run of Shrink.
type shrink struct {
	*operation
	in    contract.ShrinkInput
	grace time.Duration

	facts     contract.DiskFacts
	m         contract.Measurement
	old       []contract.VolumeFacts // the backing the disk moves off
	like      contract.VolumeFacts   // the performance to keep
	target    plan.Decision
	move      string
	volume    string // the new backing's volume; empty until it is known
	copyBytes int64  // what a move writes, as the node counts it; 0: unknown
	seen      int    // modifications of the disk when it was located
	resumed   bool   // the move was begun by an earlier workflow
}

// Shrink moves a disk to a smaller backing while it is in use. Until the commit
// the old backing is complete: whatever goes wrong, or a cancel, puts the disk
// back on it and deletes the new volume. Afterwards it only goes forward.
func Shrink(ctx workflow.Context, in contract.ShrinkInput) (contract.Result, error) {
	return operate(ctx, header{
		name: contract.ShrinkWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(), phases: shrinkPhases,
	}, func(ctx workflow.Context, op *operation) error {
		s := &shrink{operation: op, in: in, grace: in.GracePeriod, move: op.run}
		if s.grace == 0 {
			s.grace = contract.DefaultGrace
		}
		op.signals.rate = in.ThrottleMiBs
		return s.run(ctx)
	})
}

func (s *shrink) run(ctx workflow.Context) error {
	// 1. Check: where the disk is, what it uses, what it needs.
	if err := s.step(ctx, contract.PhaseCheck, alone, func() error { return s.locate(ctx) }); err != nil {
		return err
	}
	if !s.in.DryRun {
		s.keepRoom(ctx)
		if err := s.again(ctx, shared, func() error { return s.trim(ctx) }); err != nil {
			return err
		}
	}
	if err := s.again(ctx, alone, func() error { return s.check(ctx) }); err != nil {
		return err
	}
	if s.in.ResumeOnly && !s.resumed {
		return nil
	}
	if s.in.DryRun {
		s.result.Steps = s.words()
		return nil
	}

	// 2. to 9. Everything up to the commit is undone when it fails, unless the
	// node says that the commit had happened.
	if err := s.relocate(ctx); err != nil {
		undone := s.compensate(ctx)
		if !errors.Is(undone, errCommitted) {
			return joinUndo(err, undone)
		}
	}
	s.undos, s.final = nil, true

	// 10. The old backing goes.
	return s.leave(ctx)
}

// joinUndo keeps a refusal a refusal when its undo succeeded.
func joinUndo(err, undone error) error {
	if undone == nil {
		return err
	}
	if r, ok := contract.AsRefusal(err); ok {
		err = errors.New(r.Error())
	}
	if r, ok := contract.AsRefusal(undone); ok {
		undone = errors.New(r.Error())
	}
	return fmt.Errorf("%w; undoing it stopped, the next operation on the disk takes it up: %w", err, undone)
}

func (s *shrink) locate(ctx workflow.Context) (err error) {
	s.facts, err = s.attachedFacts(ctx)
	s.rehomed, s.seen = false, len(s.modified)
	return err
}

// trim gives back what deleted files had. It writes out what waits to be written,
// so that the pool may fill meanwhile.
func (s *shrink) trim(ctx workflow.Context) error {
	t, err := node(ctx, s.operation, contract.TrimDisk, contract.TrimDiskInput{Disk: s.disk}, brief)
	s.m, s.copyBytes = t.Measurement, t.CopyBytes
	return err
}

// check is the rest of step 1. It finishes or drops what an earlier operation left.
func (s *shrink) check(ctx workflow.Context) error {
	moved := s.rehomed || len(s.modified) != s.seen // or it grew
	if moved {
		if err := s.locate(ctx); err != nil {
			return err
		}
	}
	facts, m := s.facts, s.m
	var err error
	if s.in.DryRun || moved {
		if m, err = s.measure(ctx); err != nil {
			return err
		}
	}
	if !s.in.DryRun {
		if facts, m, err = s.settle(ctx, facts, m, s.grace); err != nil {
			return err
		}
	}
	s.facts, s.m = facts, m
	s.old = facts.Active()
	if len(s.old) == 0 {
		return contract.Refuse(contract.DiskIncomplete, "EC2 has no active volume of the disk").WithDisk(s.disk).
			WithNext(noActive)
	}
	s.like = fastest(s.old)
	s.result.Generation, s.result.UsedBytes = m.Generation, m.PoolUsedBytes

	if m.Move != nil && !s.in.DryRun {
		if ok, err := s.takeUp(ctx); ok || err != nil {
			return err
		}
	}
	if s.in.ResumeOnly {
		s.grown(s.m)
		s.result.BeforeGiB = s.result.AfterGiB
		return nil
	}
	return s.decide(ctx)
}

// takeUp goes on with a move an earlier workflow began, when it leads where this
// one should; else it drops it.
func (s *shrink) takeUp(ctx workflow.Context) (bool, error) {
	mv := *s.m.Move
	var gib int64
	for _, b := range mv.Members {
		gib += plan.CeilGiB(b.Bytes)
	}
	fits := len(mv.Members) == 1 && mv.Failure == "" && mv.Phase != contract.PhaseAbort &&
		gib < plan.CeilGiB(s.m.BackingBytes) && (s.in.ToGiB == 0 || s.in.ToGiB == gib) && s.toThis(mv.Members[0].Volume)
	if !fits {
		if err := s.dropMove(ctx, mv); err != nil {
			return false, err
		}
		m, err := s.measure(ctx)
		s.m = m
		return false, err
	}
	s.move, s.volume, s.resumed = mv.Move, mv.Members[0].Volume, true
	s.signals.throttle = s.signals.throttle || mv.Paused || s.in.ThrottleMiBs != mv.ThrottleMiBs // what held the earlier one back is over
	s.target = plan.Decision{GiB: gib, Reason: "the move an earlier workflow began goes on"}
	s.planned(ctx, s.facts.Name, plan.CeilGiB(s.m.BackingBytes), gib, s.target.Reason)
	return true, nil
}

// decide chooses the new size and looks whether the node can take it.
func (s *shrink) decide(ctx workflow.Context) error {
	floor := plan.LeastGiB(&s.like, s.in.Volume)
	how := s.plan
	how.HeadroomBytes, how.HeadroomPercent = s.in.HeadroomBytes, s.in.HeadroomPercent
	d, err := plan.ShrinkTarget(usageOf(s.m), how, floor, s.copyBytes, s.in.ToGiB, !suits(s.like, s.in.Volume) || len(s.old) > 1)
	if err != nil {
		return err
	}
	if _, err := plan.KeepPerformance(&s.like, d.GiB, s.in.Volume); err != nil {
		return err
	}
	n, err := control(ctx, s.operation, contract.DescribeNode, contract.DescribeNodeInput{Node: s.node}, brief)
	if err != nil {
		return err
	}
	if n.FreeSlots < 1 {
		return contract.Refuse(contract.AttachSlotsFull, "node %s can attach no more volumes, a move needs one", s.node).
			WithDisk(s.disk).WithNext("detach a volume from the node, or bring the disk to another one")
	}
	s.target = d
	s.planned(ctx, s.facts.Name, plan.CeilGiB(s.m.BackingBytes), d.GiB, d.Reason)
	return nil
}

// relocate is steps 2 to 9.
func (s *shrink) relocate(ctx workflow.Context) error {
	if !s.resumed {
		// 2. Wait for backups.
		if err := s.step(ctx, contract.PhaseBackup, shared, func() error { return s.waitForBackups(ctx) }); err != nil {
			return err
		}
		// 3. Snapshot.
		if !s.in.SkipSnapshot {
			if err := s.step(ctx, contract.PhaseSnapshot, shared, func() error { return s.snapshot(ctx) }); err != nil {
				return err
			}
		}
	}
	s.onUndo("delete the new volume", s.undoCreate)
	// 4. Create the new volume.
	if !s.resumed {
		if err := s.step(ctx, contract.PhaseCreate, shared, func() error { return s.create(ctx) }); err != nil {
			return err
		}
	}
	// 5. Attach it.
	s.onUndo("detach the new volume", s.undoAttach)
	if !s.resumed {
		if err := s.step(ctx, contract.PhaseAttach, shared, func() error { return s.attach(ctx) }); err != nil {
			return err
		}
	}
	// 6. Make it the incoming backing.
	s.onUndo("abort the move", s.undoMove)
	if err := s.step(ctx, contract.PhasePrepare, alone, func() error { return s.prepare(ctx) }); err != nil {
		return err
	}
	// 7. Copy what is used.
	if err := s.step(ctx, contract.PhaseCopy, shared, func() error { return s.evacuate(ctx) }); err != nil {
		return err
	}
	// 8. Compare both.
	if s.in.Verify != contract.VerifyNone {
		if err := s.step(ctx, contract.PhaseVerify, shared, func() error { return s.verify(ctx) }); err != nil {
			return err
		}
	}
	// 9. The new backing becomes the disk's. The swap waits for a pool that is full.
	return s.step(ctx, contract.PhaseCommit, alone, func() error {
		return s.besideRoom(ctx, func() error { return s.commit(ctx) })
	})
}

func (s *shrink) waitForBackups(ctx workflow.Context) error {
	limit := s.in.BackupTimeout
	if limit == 0 {
		limit = backupPatience
	}
	s.wait(ctx, "running backups of the disk")
	_, err := controlFor(ctx, s.operation, contract.WaitForBackups, contract.WaitForBackupsInput{Disk: s.disk, Volumes: ids(s.old)}, long, limit)
	s.wait(ctx, "")
	var timeout *temporal.TimeoutError
	if errors.As(err, &timeout) {
		return contract.Refuse(contract.BackupRunning, "a backup of the disk did not end within %s", limit).
			WithDisk(s.disk).WithNext("start again when it has ended, or give it longer: ebb shrink --backup-timeout")
	}
	return err
}

func (s *shrink) snapshot(ctx workflow.Context) error {
	out, err := control(ctx, s.operation, contract.SnapshotDisk, contract.SnapshotDiskInput{
		Disk: s.disk, Node: s.node, Volumes: ids(s.old), Move: s.move, Reason: "before a shrink", Retention: s.in.Retention,
	}, brief)
	s.result.Snapshot = strings.Join(out.Snapshots, ",")
	return err
}

func (s *shrink) create(ctx workflow.Context) error {
	v, err := control(ctx, s.operation, contract.CreateVolume, contract.CreateVolumeInput{
		Disk: s.disk, Name: s.facts.Name, Move: s.move, Generation: s.m.Generation + 1, Index: 0,
		Role: contract.RoleIncoming, Zone: s.old[0].Zone, SizeGiB: s.target.GiB, Spec: s.in.Volume, Like: &s.like,
	}, brief)
	s.volume = v.ID
	return err
}

func (s *shrink) attach(ctx workflow.Context) error {
	return s.operation.attach(ctx, s.volume, s.node, true)
}

func (s *shrink) prepare(ctx workflow.Context) error {
	m, err := node(ctx, s.operation, contract.PrepareMove, contract.PrepareMoveInput{
		Disk: s.disk, Move: s.move, Generation: s.m.Generation + 1, Volumes: []string{s.volume}, ThrottleMiBs: s.signals.rate,
	}, brief)
	if err == nil && m.Move != nil && m.Move.CopyBytes > m.Move.PoolBytes && m.Move.PoolBytes > 0 {
		return contract.Refuse(contract.BelowUsed, "%s are to be copied, the new backing has room for %s",
			plan.Bytes(m.Move.CopyBytes), plan.Bytes(m.Move.PoolBytes)).WithDisk(s.disk).WithNext("shrink to a larger size")
	}
	return err
}

func (s *shrink) evacuate(ctx workflow.Context) error {
	out, err := nodeBeside(ctx, s.operation, contract.EvacuateDisk, s.moveInput(), long, s.throttle)
	if err == nil {
		s.result.CopiedBytes, s.result.UsedBytes = out.CopiedBytes, out.UsedBytes
		s.result.SwapPausesMS, s.result.ResumedFraction = out.SwapPausesMS, out.ResumedFraction
	}
	return err
}

func (s *shrink) verify(ctx workflow.Context) error {
	out, err := nodeBeside(ctx, s.operation, contract.VerifyMove, s.moveInput(), long, s.throttle)
	s.result.VerifiedBytes = out.VerifiedBytes
	return err
}

// throttle tells the node what was asked while its copy runs.
func (s *shrink) throttle(ctx workflow.Context) {
	s.signals.throttle = false
	_, err := node(ctx, s.operation, contract.ThrottleMove, contract.ThrottleMoveInput{
		Disk: s.disk, Move: s.move, MiBs: s.signals.rate, Paused: s.signals.paused,
	}, brief)
	switch r, refused := contract.AsRefusal(err); {
	case errors.Is(err, errYield), errors.Is(err, errCancelled):
		s.signals.throttle = true
	case refused:
		s.progress.Refusal = r
		s.show(ctx)
	case err != nil:
		workflow.GetLogger(ctx).Warn("The copy rate was not set", "disk", s.disk, "error", err)
	}
}

func (s *shrink) commit(ctx workflow.Context) error {
	out, err := node(ctx, s.operation, contract.CommitMove, s.moveInput(), brief)
	if err == nil {
		s.result.SwapPausesMS = append(s.result.SwapPausesMS, out.SwapPauseMS)
		s.grown(out.Measurement)
	}
	return err
}

func (s *shrink) moveInput() contract.MoveInput {
	return contract.MoveInput{Disk: s.disk, Move: s.move}
}

// leave is step 10: tags follow the headers, the old volumes are retired.
func (s *shrink) leave(ctx workflow.Context) error {
	generation := s.m.Generation + 1
	return s.step(ctx, contract.PhaseRetire, alone, func() error {
		_, err := control(ctx, s.operation, contract.TagVolume, contract.TagVolumeInput{
			Disk: s.disk, Volume: s.volume, Role: contract.RoleActive, Generation: generation,
		}, brief)
		if err != nil {
			return err
		}
		gone, err := node(ctx, s.operation, contract.RetireBacking, s.moveInput(), brief)
		if err != nil {
			return err
		}
		for _, id := range gone.Volumes { // one may have been appended meanwhile
			if !slices.Contains(ids(s.old), id) && id != s.volume {
				s.old = append(s.old, contract.VolumeFacts{ID: id, Role: contract.RoleActive, Generation: s.m.Generation})
			}
		}
		s.result.Retired = nil
		for _, v := range s.old {
			v.Node = s.node
			if err := s.retire(ctx, v, s.grace); err != nil {
				return err
			}
			s.result.Retired = append(s.result.Retired, v.ID)
		}
		s.result.Generation, s.result.Volumes = generation, []string{s.volume}
		if s.result.AfterGiB == 0 {
			s.result.AfterGiB = s.target.GiB
		}
		return nil
	})
}

// words is the dry run.
func (s *shrink) words() []string {
	s.result.AfterGiB = s.target.GiB
	w := []string{fmt.Sprintf("wait until no snapshot of %s is pending", strings.Join(ids(s.old), ", "))}
	if !s.in.SkipSnapshot {
		w = append(w, "snapshot the disk")
	}
	w = append(w,
		fmt.Sprintf("create a volume of %d GiB in %s, no slower than the old one (%s)", s.target.GiB, s.old[0].Zone, s.target.Reason),
		fmt.Sprintf("attach it to %s", s.node),
		fmt.Sprintf("copy the %s in use while the disk is used", plan.Bytes(s.m.PoolUsedBytes)))
	if s.in.Verify != contract.VerifyNone {
		w = append(w, "compare every used region")
	}
	return append(w,
		fmt.Sprintf("make it generation %d of the disk", s.m.Generation+1),
		fmt.Sprintf("detach %s and delete it after %s", strings.Join(ids(s.old), ", "), s.grace))
}

// fastest is the first volume with the greatest performance any member has.
func fastest(vs []contract.VolumeFacts) contract.VolumeFacts {
	v := vs[0]
	for _, o := range vs[1:] {
		v.IOPS, v.ThroughputMiBs = max(v.IOPS, o.IOPS), max(v.ThroughputMiBs, o.ThroughputMiBs)
		if v.Type == o.Type {
			v.SizeGiB = max(v.SizeGiB, o.SizeGiB)
		}
	}
	return v
}

// toThis tells whether a volume that a move was begun to is one that is asked for.
func (s *shrink) toThis(volume string) bool {
	var v contract.VolumeFacts
	for _, o := range s.facts.Volumes {
		if o.ID == volume {
			v = o
		}
	}
	return suits(v, s.in.Volume)
}

// suits tells whether a volume is all that is wanted, as far as that can be seen.
func suits(v contract.VolumeFacts, want contract.VolumeSpec) bool {
	return (want.Type == "" || want.Type == v.Type) && (want.IOPS == 0 || want.IOPS == v.IOPS) &&
		(want.ThroughputMiBs == 0 || want.ThroughputMiBs == v.ThroughputMiBs) &&
		want.Encrypted == nil && want.KMSKeyID == "" && len(want.Tags) == 0
}

func ids(vs []contract.VolumeFacts) []string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = v.ID
	}
	return out
}
