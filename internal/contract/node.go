package contract

import "time"

// Node activities run on NodeQueue, served by the agent of that node. Each is
// safe to run twice: it looks at the disk's headers and device-mapper tables,
// does what is missing, verifies. Each heartbeats while it runs (NodeHeartbeat)
// and activities of one disk that change it wait for each other on the node.
const (
	// FormatDisk writes generation 1 on blank volumes, assembles the disk,
	// makes the filesystem and mounts it. Volumes with any other content are
	// refused (VolumeForeign).
	FormatDisk Activity[FormatDiskInput, Measurement] = "FormatDisk"
	// AssembleDisk finds the disk's volumes among the attached ones, assembles
	// the highest complete active generation, resumes an intact move, mounts.
	AssembleDisk Activity[AssembleDiskInput, Measurement] = "AssembleDisk"
	// DisassembleDisk unmounts and takes every device of the disk down. Data
	// stays; a running move goes on after the next assembly.
	DisassembleDisk Activity[DisassembleDiskInput, struct{}] = "DisassembleDisk"
	// MeasureDisk reads what is used, from the kernel.
	MeasureDisk Activity[MeasureDiskInput, Measurement] = "MeasureDisk"
	// ReadHistory reads the hourly usage a disk carries on its volumes. It
	// changes nothing.
	ReadHistory Activity[ReadHistoryInput, ReadHistoryResult] = "ReadHistory"
	// TrimDisk gives free filesystem blocks back to the pool (FITRIM).
	TrimDisk Activity[TrimDiskInput, TrimDiskResult] = "TrimDisk"
	// GrowBacking waits until a member volume shows at least Bytes and extends
	// the pool over it, online.
	GrowBacking Activity[GrowBackingInput, Measurement] = "GrowBacking"
	// AppendVolume adds a blank attached volume to the backing, online.
	AppendVolume Activity[AppendVolumeInput, Measurement] = "AppendVolume"
	// ExpandDisk raises the disk's own size and its mounted filesystem.
	ExpandDisk Activity[ExpandDiskInput, Measurement] = "ExpandDisk"
	// PrepareMove formats blank attached volumes as the incoming generation.
	PrepareMove Activity[PrepareMoveInput, Measurement] = "PrepareMove"
	// EvacuateDisk starts the move, or goes on with it, and returns when every
	// used region is in sync. Heartbeats CopyProgress. Cancelling it leaves the
	// move running in the kernel: AbortMove or another EvacuateDisk decides.
	EvacuateDisk Activity[MoveInput, EvacuateResult] = "EvacuateDisk"
	// VerifyMove reads every used region from both legs and compares.
	// Heartbeats CopyProgress.
	VerifyMove Activity[MoveInput, VerifyResult] = "VerifyMove"
	// CommitMove makes the incoming generation the active one and swaps.
	CommitMove Activity[MoveInput, CommitResult] = "CommitMove"
	// RetireBacking takes the old generation's devices down and marks its
	// headers retired. Its volumes can be detached afterwards.
	RetireBacking Activity[MoveInput, RetireBackingResult] = "RetireBacking"
	// AbortMove swaps back to the old generation, takes the incoming one down
	// and marks its headers as scrap. Harmless when there is no move, and
	// refused (MoveFailed) when the move was committed already.
	AbortMove Activity[MoveInput, Measurement] = "AbortMove"
	// ThrottleMove sets the copy rate, durably.
	ThrottleMove Activity[ThrottleMoveInput, struct{}] = "ThrottleMove"
	// Preflight reports what the node's kernel offers.
	Preflight Activity[PreflightInput, PreflightResult] = "Preflight"
)

// FormatDiskInput describes a new disk.
type FormatDiskInput struct {
	Disk       DiskID     `json:"disk"`
	Name       string     `json:"name,omitempty"`
	SizeBytes  int64      `json:"sizeBytes"`
	Volumes    []string   `json:"volumes"` // one, or several to stripe over
	Filesystem Filesystem `json:"filesystem"`
	MountPath  string     `json:"mountPath,omitempty"`
}

// AssembleDiskInput names a disk and the volumes EC2 says it has here.
type AssembleDiskInput struct {
	Disk DiskID `json:"disk"`
	// Volumes that must be present before assembling (waited for up to a
	// minute: a device shows up a little after EC2 says attached).
	Volumes   []string `json:"volumes,omitempty"`
	MountPath string   `json:"mountPath,omitempty"` // empty: the header's, when it has one
}

// DisassembleDiskInput names a disk.
type DisassembleDiskInput struct {
	Disk DiskID `json:"disk"`
}

// MeasureDiskInput names a disk.
type MeasureDiskInput struct {
	Disk DiskID `json:"disk"`
}

// TrimDiskInput names a disk.
type TrimDiskInput struct {
	Disk DiskID `json:"disk"`
}

// TrimDiskResult says what a trim gave back.
type TrimDiskResult struct {
	TrimmedBytes int64 `json:"trimmedBytes"` // as the filesystem counts it
	// CopyBytes is what a move would write now: whole regions, so somewhat more
	// than is used. 0: a move is running.
	CopyBytes   int64       `json:"copyBytes,omitempty"`
	Measurement Measurement `json:"measurement"`
}

// GrowBackingInput names a member volume and the size EC2 gave it.
type GrowBackingInput struct {
	Disk   DiskID `json:"disk"`
	Volume string `json:"volume"`
	Bytes  int64  `json:"bytes"`
}

// AppendVolumeInput names a blank volume to append to the active generation.
type AppendVolumeInput struct {
	Disk   DiskID `json:"disk"`
	Volume string `json:"volume"`
}

// ExpandDiskInput is the new size.
type ExpandDiskInput struct {
	Disk      DiskID `json:"disk"`
	SizeBytes int64  `json:"sizeBytes"`
}

// MoveInput names a move.
type MoveInput struct {
	Disk DiskID `json:"disk"`
	Move string `json:"move"`
}

// PrepareMoveInput describes the incoming generation.
type PrepareMoveInput struct {
	Disk         DiskID   `json:"disk"`
	Move         string   `json:"move"`
	Generation   uint64   `json:"generation"` // the active one + 1
	Volumes      []string `json:"volumes"`
	ThrottleMiBs int64    `json:"throttleMiBs,omitempty"`
}

// ThrottleMoveInput is the new rate.
type ThrottleMoveInput struct {
	Disk DiskID `json:"disk"`
	Move string `json:"move"`
	MiBs int64  `json:"mibs"` // 0: unlimited
	// Paused slows to the least the kernel can do (about 1 MiB/s).
	Paused bool `json:"paused,omitempty"`
}

// EvacuateResult of a finished copy.
type EvacuateResult struct {
	CopiedBytes     int64     `json:"copiedBytes"` // regions copied x region size, since the move's start
	UsedBytes       int64     `json:"usedBytes"`   // mapped in the old pool
	SwapPausesMS    []float64 `json:"swapPausesMs"`
	ResumedFraction float64   `json:"resumedFraction,omitempty"` // share of CopiedBytes found done when this run picked the move up again; 0: it began it
}

// VerifyResult of a finished comparison.
type VerifyResult struct {
	VerifiedBytes int64 `json:"verifiedBytes"`
	Retried       int64 `json:"retriedBytes"` // differed once, because a write was in flight
}

// CommitResult of a commit.
type CommitResult struct {
	Generation  uint64      `json:"generation"`
	SwapPauseMS float64     `json:"swapPauseMs"`
	Measurement Measurement `json:"measurement"`
}

// RetireBackingResult lists the volumes that nothing on the node uses any more.
type RetireBackingResult struct {
	Volumes    []string `json:"volumes"`
	Generation uint64   `json:"generation"`
}

// Measurement is a disk's state as its node sees it.
type Measurement struct {
	Disk       DiskID    `json:"disk"`
	Name       string    `json:"name,omitempty"`
	Node       string    `json:"node"`
	At         time.Time `json:"at"`
	Device     string    `json:"device"` // /dev/mapper/ebb-d-...
	Generation uint64    `json:"generation"`

	SizeBytes    int64 `json:"sizeBytes"`    // the disk's own size
	BackingBytes int64 `json:"backingBytes"` // sum of the member volumes
	// OverheadBytes of the backing are headers, logs and metadata.
	OverheadBytes int64 `json:"overheadBytes"`
	PoolBytes     int64 `json:"poolBytes"`
	PoolUsedBytes int64 `json:"poolUsedBytes"`
	BlockBytes    int64 `json:"blockBytes"`
	MetaBytes     int64 `json:"metaBytes"`
	MetaUsedBytes int64 `json:"metaUsedBytes"`
	// Full: the pool has no free block; writes wait.
	Full bool `json:"full,omitempty"`

	Filesystem          Filesystem `json:"filesystem,omitempty"`
	MountPath           string     `json:"mountPath,omitempty"` // where it is mounted now
	FilesystemBytes     int64      `json:"filesystemBytes,omitempty"`
	FilesystemUsedBytes int64      `json:"filesystemUsedBytes,omitempty"`
	// FillRate in bytes per second over the agent's recent measurements.
	FillRate float64 `json:"fillRate,omitempty"`

	Members []Member   `json:"members"`
	Move    *MoveState `json:"move,omitempty"`
}

// Member of a backing.
type Member struct {
	Volume      string `json:"volume"`
	Index       int    `json:"index"`
	Bytes       int64  `json:"bytes"`       // as the header says: what the pool uses
	DeviceBytes int64  `json:"deviceBytes"` // as the kernel sees the volume now
}

// MoveState is a move as its headers and the kernel show it.
type MoveState struct {
	Move          string   `json:"move"`
	Generation    uint64   `json:"generation"` // the incoming one
	Phase         Phase    `json:"phase"`      // prepare, copy, verify (mirror live, all in sync), abort (new leg failed, disk is back on the old one), commit (committed, old one not yet retired)
	RegionBytes   int64    `json:"regionBytes"`
	Regions       int64    `json:"regions"`
	InSync        int64    `json:"inSync"`
	CopyBytes     int64    `json:"copyBytes"` // to copy in all
	CopiedBytes   int64    `json:"copiedBytes"`
	PoolBytes     int64    `json:"poolBytes"` // of the incoming pool
	PoolUsedBytes int64    `json:"poolUsedBytes"`
	Full          bool     `json:"full,omitempty"`
	Members       []Member `json:"members"`
	ThrottleMiBs  int64    `json:"throttleMiBs,omitempty"`
	Paused        bool     `json:"paused,omitempty"`  // somebody has paused it
	Failure       string   `json:"failure,omitempty"` // why the new leg was dropped
}

// PreflightInput is empty.
type PreflightInput struct{}

// PreflightResult says whether Ebb can run on a node and why not.
type PreflightResult struct {
	Node   string  `json:"node"`
	Kernel string  `json:"kernel"`
	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
}

// Check is one line of a preflight.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"` // what to do when not OK
}
