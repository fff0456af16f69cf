package agent

import (
	"context"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// Disks is everything the agent does to the disks of its node. Every method is
// safe to call twice and from several goroutines; mutual exclusion per disk is
// the implementation's duty. An expected "no" is a *contract.Refusal.
type Disks interface {
	Format(ctx context.Context, in contract.FormatDiskInput) (contract.Measurement, error)
	Assemble(ctx context.Context, in contract.AssembleDiskInput) (contract.Measurement, error)
	Disassemble(ctx context.Context, id contract.DiskID) error
	Measure(ctx context.Context, id contract.DiskID) (contract.Measurement, error)
	// History is the disk's hourly usage, oldest first.
	History(ctx context.Context, id contract.DiskID) ([]format.Usage, error)
	Trim(ctx context.Context, id contract.DiskID) (contract.TrimDiskResult, error)
	// Reclaim is a trim beside everything else: it gives way to growth, may end
	// before it has seen the whole disk (the next one goes on there), and does
	// nothing during a move. TrimmedBytes are the pool's.
	Reclaim(ctx context.Context, id contract.DiskID) (contract.TrimDiskResult, error)
	GrowBacking(ctx context.Context, in contract.GrowBackingInput) (contract.Measurement, error)
	Append(ctx context.Context, in contract.AppendVolumeInput) (contract.Measurement, error)
	Expand(ctx context.Context, in contract.ExpandDiskInput) (contract.Measurement, error)
	PrepareMove(ctx context.Context, in contract.PrepareMoveInput) (contract.Measurement, error)
	// Evacuate and VerifyMove call report from their own goroutine as often as
	// they like. A cancelled Evacuate leaves the move running in the kernel.
	Evacuate(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.EvacuateResult, error)
	VerifyMove(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.VerifyResult, error)
	CommitMove(ctx context.Context, in contract.MoveInput) (contract.CommitResult, error)
	RetireBacking(ctx context.Context, in contract.MoveInput) (contract.RetireBackingResult, error)
	AbortMove(ctx context.Context, in contract.MoveInput) (contract.Measurement, error)
	Throttle(ctx context.Context, in contract.ThrottleMoveInput) error
	// Guide tells what a policy wants of a disk, until the next one or the end of
	// the process. It does not wait for the disk.
	Guide(id contract.DiskID, g contract.Guide)
	// Forget takes that back.
	Forget(id contract.DiskID)
	// Header reads what is on a volume, whichever disk it belongs to. It changes
	// nothing. That a volume is not attached, or damaged, is part of the answer.
	Header(ctx context.Context, volume string) (contract.VolumeHeader, error)
	// Reconcile runs once at start: resumes anything suspended, assembles what
	// is complete, removes half-built stacks. The disks it brought up are
	// returned even when others failed.
	Reconcile(ctx context.Context) ([]contract.DiskID, error)
	// Disks are the ones assembled now.
	Disks() []contract.DiskID
	// Watch blocks until ctx is done, waiting on device-mapper events; it drops
	// failed legs of moves itself and reports what it saw.
	Watch(ctx context.Context, report func(disk.Event)) error
}
