package contract

import (
	"errors"
	"fmt"
	"time"
)

// GiB in bytes. EBS sizes are whole GiB.
const GiB = int64(1) << 30

// Limits of a disk's own (virtual) size. The upper one is gp3's greatest volume
// size: a released disk must fit one volume.
const (
	MinDiskBytes = 1 * GiB
	MaxDiskBytes = 65536 * GiB
)

// VolumeSpec is what EC2 is asked for. Zero values keep what the present volume
// has (CreateDisk: gp3 with its baseline), never less.
type VolumeSpec struct {
	Type           string            `json:"type,omitempty"`
	IOPS           int32             `json:"iops,omitempty"`
	ThroughputMiBs int32             `json:"throughputMiBs,omitempty"`
	Encrypted      *bool             `json:"encrypted,omitempty"`
	KMSKeyID       string            `json:"kmsKeyId,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"` // user tags; names starting with ebb: or aws: are refused
}

// CreateDiskInput makes a disk: one volume, formatted, assembled on Node, with a
// fresh filesystem, mounted when MountPath is given.
type CreateDiskInput struct {
	Disk       DiskID     `json:"disk"`
	Name       string     `json:"name,omitempty"`
	Node       string     `json:"node"`                 // EC2 instance id
	SizeBytes  int64      `json:"sizeBytes"`            // the disk's own size; a multiple of 1 MiB
	BackingGiB int64      `json:"backingGiB,omitempty"` // first backing; default 1/16 of the size, 1 GiB at least
	Filesystem Filesystem `json:"filesystem,omitempty"` // default xfs
	MountPath  string     `json:"mountPath,omitempty"`
	Volume     VolumeSpec `json:"volume,omitempty"`
	DryRun     bool       `json:"dryRun,omitempty"`
	Settings   Settings   `json:"settings,omitzero"`
}

// Validate refuses what cannot be carried out.
func (in CreateDiskInput) Validate() error {
	errs := []error{in.Disk.Validate(), ValidateInstanceID(in.Node), in.Settings.Validate()}
	if in.Name != "" {
		errs = append(errs, ValidateName(in.Name))
	}
	if in.Filesystem != "" {
		errs = append(errs, in.Filesystem.Validate())
	}
	if in.MountPath != "" {
		errs = append(errs, ValidateMountPath(in.MountPath))
	}
	errs = append(errs, validateSize(in.SizeBytes), validateGiB("backing", in.BackingGiB))
	if least := leastBackingGiB(in.Filesystem, in.SizeBytes); in.BackingGiB != 0 && in.BackingGiB < least {
		errs = append(errs, fmt.Errorf("backing %d GiB: want %d at least, for what a filesystem of this size writes when it is made", in.BackingGiB, least))
	}
	return errors.Join(errs...)
}

// leastBackingGiB is what making a filesystem needs. xfs, the default, writes all of
// its log: 1/2048 of the size, 2 GiB at most (mkfs.xfs -K on a sparse file of 1 TiB
// fills 513 MiB, of 4 TiB 2039 MiB; mkfs.ext4 57 MiB). 128 MiB are for the rest: ebb's
// metadata, and headers in blocks of which little is used.
func leastBackingGiB(fs Filesystem, size int64) int64 {
	need := int64(128 << 20)
	if fs != Ext4 {
		need += min(size/2048, 2*GiB)
	}
	return (need + GiB - 1) / GiB
}

// GrowInput makes a backing larger.
type GrowInput struct {
	Disk     DiskID   `json:"disk"`
	ToGiB    int64    `json:"toGiB,omitempty"` // 0: as the usage asks for
	Reason   string   `json:"reason,omitempty"`
	DryRun   bool     `json:"dryRun,omitempty"`
	Settings Settings `json:"settings,omitzero"`
}

// Validate refuses what cannot be carried out.
func (in GrowInput) Validate() error {
	return errors.Join(in.Disk.Validate(), validateGiB("toGiB", in.ToGiB), in.Settings.Validate())
}

// RetypeInput gives the disk's volume another type or other performance in place. Zero
// fields keep what the volume has; of a new type they keep what it delivers.
type RetypeInput struct {
	Disk           DiskID   `json:"disk"`
	Type           string   `json:"type,omitempty"` // gp2, gp3, io1 or io2
	IOPS           int32    `json:"iops,omitempty"`
	ThroughputMiBs int32    `json:"throughputMiBs,omitempty"`
	Reason         string   `json:"reason,omitempty"`
	DryRun         bool     `json:"dryRun,omitempty"`
	Settings       Settings `json:"settings,omitzero"`
}

// Validate refuses what cannot be carried out.
func (in RetypeInput) Validate() error {
	errs := []error{in.Disk.Validate(), in.Settings.Validate()}
	switch in.Type {
	case "", "gp2", "gp3", "io1", "io2":
	default:
		errs = append(errs, fmt.Errorf("type %q: want gp2, gp3, io1 or io2", clip(in.Type)))
	}
	if in.Type == "" && in.IOPS == 0 && in.ThroughputMiBs == 0 {
		errs = append(errs, errors.New("want a type, iops or throughputMiBs"))
	}
	if in.IOPS < 0 || in.ThroughputMiBs < 0 {
		errs = append(errs, errors.New("iops, throughputMiBs: want 0 (keep) or more"))
	}
	if in.ThroughputMiBs > 0 && in.Type != "" && in.Type != "gp3" {
		errs = append(errs, fmt.Errorf("throughputMiBs: only gp3 has any to set, not %s", in.Type))
	}
	if in.IOPS > 0 && in.Type == "gp2" {
		errs = append(errs, errors.New("iops: those of gp2 come from its size"))
	}
	return errors.Join(errs...)
}

// Verify levels of a move.
const (
	VerifyFull = "full" // read every used byte of both legs and compare (default)
	VerifyNone = "none"
)

// ShrinkInput moves a disk to a smaller backing (or, when Volume asks for
// another type or key, to a backing of the same size).
type ShrinkInput struct {
	Disk          DiskID        `json:"disk"`
	ToGiB         int64         `json:"toGiB,omitempty"` // 0: used plus headroom at 80% utilization
	Volume        VolumeSpec    `json:"volume,omitempty"`
	Verify        string        `json:"verify,omitempty"`       // VerifyFull or VerifyNone
	ThrottleMiBs  int64         `json:"throttleMiBs,omitempty"` // 0: unlimited
	SkipSnapshot  bool          `json:"skipSnapshot,omitempty"`
	Retention     time.Duration `json:"snapshotRetentionNanos,omitempty"` // how long Reap leaves the snapshot; 0: as long as its input says
	GracePeriod   time.Duration `json:"gracePeriodNanos,omitempty"`       // how long the retired volume is kept; 0: DefaultGrace
	BackupTimeout time.Duration `json:"backupTimeoutNanos,omitempty"`
	// HeadroomBytes and HeadroomPercent (of what is used; 0.1 is 10%) are free in the new
	// backing at least, the greater of the two, whatever was planned when less was used.
	HeadroomBytes   int64   `json:"headroomBytes,omitempty"`
	HeadroomPercent float64 `json:"headroomPercent,omitempty"`
	// ResumeOnly takes up a move that an earlier operation left, or drops it where it
	// cannot go on, and begins none: whether the disk is to be smaller is not asked.
	ResumeOnly bool     `json:"resumeOnly,omitempty"`
	DryRun     bool     `json:"dryRun,omitempty"`
	Settings   Settings `json:"settings,omitzero"`
}

// DefaultGrace is how long a retired volume is kept unless the input says
// otherwise.
const DefaultGrace = 24 * time.Hour

// Validate refuses what cannot be carried out.
func (in ShrinkInput) Validate() error {
	errs := []error{in.Disk.Validate(), validateGiB("toGiB", in.ToGiB), in.Settings.Validate()}
	if in.Verify != "" && in.Verify != VerifyFull && in.Verify != VerifyNone {
		errs = append(errs, fmt.Errorf("verify %q: want full or none", clip(in.Verify)))
	}
	if in.HeadroomBytes < 0 || in.HeadroomPercent < 0 {
		errs = append(errs, errors.New("headroomBytes, headroomPercent: want 0 or more"))
	}
	if in.ThrottleMiBs < 0 {
		errs = append(errs, errors.New("throttleMiBs: want 0 (unlimited) or more"))
	}
	if in.GracePeriod < 0 || in.BackupTimeout < 0 || in.Retention < 0 {
		errs = append(errs, errors.New("gracePeriod, backupTimeout, snapshotRetention: want 0 or more"))
	}
	return errors.Join(errs...)
}

// ExpandInput raises the disk's own size and its filesystem.
type ExpandInput struct {
	Disk      DiskID   `json:"disk"`
	SizeBytes int64    `json:"sizeBytes"`
	Settings  Settings `json:"settings,omitzero"`
}

// Validate refuses what cannot be carried out.
func (in ExpandInput) Validate() error {
	return errors.Join(in.Disk.Validate(), validateSize(in.SizeBytes), in.Settings.Validate())
}

// RehomeInput brings a disk to another node: unmount and take down on the old
// one, detach, attach, assemble, mount.
type RehomeInput struct {
	Disk      DiskID `json:"disk"`
	Node      string `json:"node"`
	MountPath string `json:"mountPath,omitempty"` // empty: the one in the disk's header
	// Dead says the old node is known to be off for good: its agent is not
	// asked and the detach is forced. EC2 must agree (the instance is not
	// running), else the operation is refused.
	Dead     bool     `json:"dead,omitempty"`
	DryRun   bool     `json:"dryRun,omitempty"`
	Settings Settings `json:"settings,omitzero"`
}

// Validate refuses what cannot be carried out.
func (in RehomeInput) Validate() error {
	errs := []error{in.Disk.Validate(), ValidateInstanceID(in.Node), in.Settings.Validate()}
	if in.MountPath != "" {
		errs = append(errs, ValidateMountPath(in.MountPath))
	}
	return errors.Join(errs...)
}

// DeleteDiskInput takes a disk down and deletes its volumes.
type DeleteDiskInput struct {
	Disk         DiskID   `json:"disk"`
	SkipSnapshot bool     `json:"skipSnapshot,omitempty"` // default: a last snapshot is kept
	DryRun       bool     `json:"dryRun,omitempty"`
	Settings     Settings `json:"settings,omitzero"`
}

// Validate refuses what cannot be carried out.
func (in DeleteDiskInput) Validate() error {
	return errors.Join(in.Disk.Validate(), in.Settings.Validate())
}

// RetireInput deletes a retired volume after Grace.
type RetireInput struct {
	Disk       DiskID        `json:"disk"`
	Volume     string        `json:"volume"`
	Generation uint64        `json:"generation"`
	Grace      time.Duration `json:"graceNanos"`
}

// Pressure is the payload of SignalPressure.
type Pressure struct {
	Node         string `json:"node"`
	Generation   uint64 `json:"generation"` // the backing that is filling
	UsedBytes    int64  `json:"usedBytes"`
	BackingBytes int64  `json:"backingBytes"`
	// FillRate in bytes per second over the last measurements; 0: unknown.
	FillRate float64 `json:"fillRate,omitempty"`
	// Settings are the growth's, as the agent knows them: the policy's with its
	// ceiling, and the patience that the pool has. They hold in whatever operation
	// hears of it. Empty: the operation's own.
	Settings Settings `json:"settings,omitzero"`
}

// Throttle is the payload of SignalThrottle.
type Throttle struct {
	MiBs int64 `json:"mibs"` // 0: unlimited
}

// Outcome of an operation.
type Outcome string

// Outcomes. A refused operation is a completed workflow that changed nothing.
const (
	Done      Outcome = "done"
	Refused   Outcome = "refused"
	Cancelled Outcome = "cancelled"
	Planned   Outcome = "planned" // dry run
)

// Result of every disk operation.
type Result struct {
	Disk          DiskID   `json:"disk"`
	Operation     string   `json:"operation"`
	Outcome       Outcome  `json:"outcome"`
	Refusal       *Refusal `json:"refusal,omitempty"`
	Node          string   `json:"node,omitempty"`
	Generation    uint64   `json:"generation,omitempty"`
	BeforeGiB     int64    `json:"beforeGiB,omitempty"`
	AfterGiB      int64    `json:"afterGiB,omitempty"`
	UsedBytes     int64    `json:"usedBytes,omitempty"`
	CopiedBytes   int64    `json:"copiedBytes,omitempty"`
	VerifiedBytes int64    `json:"verifiedBytes,omitempty"`
	// SwapPausesMS are the durations of the table swaps of a move, in
	// milliseconds, as the agent measured them.
	SwapPausesMS []float64 `json:"swapPausesMs,omitempty"`
	// ResumedFraction is the share of the copy that was found done when the
	// move was last taken up again after a crash; 0: it was not.
	ResumedFraction float64  `json:"resumedFraction,omitempty"`
	Snapshot        string   `json:"snapshot,omitempty"`
	Volumes         []string `json:"volumes,omitempty"`        // backing at the end
	Retired         []string `json:"retiredVolumes,omitempty"` // volumes given to Retire
	Steps           []string `json:"steps,omitempty"`          // dry run: what would be done
	Fates           []Fate   `json:"fates,omitempty"`          // of Clean's leftovers
}

// Phase of an operation, as progress, search attribute and current details
// show it.
type Phase string

// Phases, in the order a Shrink goes through them.
const (
	PhaseCheck    Phase = "check"
	PhaseBackup   Phase = "backup"
	PhaseSnapshot Phase = "snapshot"
	PhaseCreate   Phase = "create"
	PhaseAttach   Phase = "attach"
	PhasePrepare  Phase = "prepare"
	PhaseCopy     Phase = "copy"
	PhaseVerify   Phase = "verify"
	PhaseCommit   Phase = "commit"
	PhaseRetire   Phase = "retire"
	PhaseModify   Phase = "modify"
	PhaseExtend   Phase = "extend"
	PhaseRehome   Phase = "rehome"
	PhaseAbort    Phase = "abort"
	PhaseDone     Phase = "done"
)

// Progress answers QueryProgress. Bytes of a running copy or verification are
// in the pending activity's heartbeat details (Copy), not here: history stays
// small.
type Progress struct {
	Disk      DiskID   `json:"disk"`
	Operation string   `json:"operation"`
	Phase     Phase    `json:"phase"`
	Step      int      `json:"step"`  // 1-based
	Steps     int      `json:"steps"` // of the whole operation
	Node      string   `json:"node,omitempty"`
	Paused    bool     `json:"paused,omitempty"`
	FromGiB   int64    `json:"fromGiB,omitempty"`
	ToGiB     int64    `json:"toGiB,omitempty"`
	Waiting   string   `json:"waiting,omitempty"` // what it waits for, in words
	Refusal   *Refusal `json:"refusal,omitempty"`
}

// CopyProgress is the heartbeat detail of EvacuateDisk and VerifyMove.
type CopyProgress struct {
	Phase      Phase   `json:"phase"`
	DoneBytes  int64   `json:"doneBytes"`
	TotalBytes int64   `json:"totalBytes"`
	RateMiBs   float64 `json:"rateMiBs"`
	ETASeconds float64 `json:"etaSeconds,omitempty"`
}

func validateSize(b int64) error {
	if b < MinDiskBytes || b > MaxDiskBytes || b%(1<<20) != 0 {
		return fmt.Errorf("size %d bytes: want a multiple of 1 MiB between 1 GiB and 64 TiB", b)
	}
	return nil
}

func validateGiB(what string, g int64) error {
	if g < 0 || g > 65536 {
		return fmt.Errorf("%s %d GiB: want 1 to 65536 (or 0 to let ebb choose)", what, g)
	}
	return nil
}

// Validate refuses what cannot be carried out.
func (in RetireInput) Validate() error {
	errs := []error{in.Disk.Validate(), ValidateVolumeID(in.Volume)}
	if in.Grace < 0 {
		errs = append(errs, errors.New("grace: want 0 or more"))
	}
	return errors.Join(errs...)
}
