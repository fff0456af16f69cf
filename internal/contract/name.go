package contract

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// ControlQueue is the task queue of workflows and of control-side activities.
const ControlQueue = "ebb-control"

// NodeQueue is the task queue served by the agent of one node. A node is named
// by its EC2 instance id, so a volume's attachment leads straight to its queue.
func NodeQueue(instanceID string) string { return "ebb-node/" + instanceID }

// Workflow type names.
const (
	CreateDiskWorkflow = "CreateDisk"
	GrowWorkflow       = "Grow"
	ShrinkWorkflow     = "Shrink"
	ExpandWorkflow     = "Expand"
	RetypeWorkflow     = "Retype"
	RehomeWorkflow     = "Rehome"
	DeleteDiskWorkflow = "DeleteDisk"
	// RetireWorkflow deletes one retired volume after its grace period. Its id
	// is RetireWorkflowID, so it does not hold the disk's lock meanwhile.
	RetireWorkflow = "Retire"
)

// WorkflowID is the id of every operation on a disk: the id is the lock.
func WorkflowID(d DiskID) string { return "disk/" + string(d) }

// RetireWorkflowID is the id of the workflow that deletes a retired volume.
func RetireWorkflowID(volumeID string) string { return "retire/" + volumeID }

// Signals every disk operation understands.
const (
	// SignalPressure (Pressure) says a pool is filling; the operation makes room.
	SignalPressure = "pressure"
	// SignalPause (no payload) slows a running copy to a trickle and holds
	// further steps until SignalResume.
	SignalPause = "pause"
	// SignalResume (no payload) ends a pause.
	SignalResume = "resume"
	// SignalCancel (no payload) ends the operation: a move is aborted, its new
	// volume removed; nothing of the disk changes.
	SignalCancel = "cancel"
	// SignalThrottle (Throttle) sets the copy rate of a running move.
	SignalThrottle = "throttle"
	// SignalRehome (RehomeInput) brings the disk to another node during an
	// operation, which then goes on there.
	SignalRehome = "rehome"
)

// QueryProgress returns Progress.
const QueryProgress = "progress"

// Search attribute names, registered by `ebb setup`. All are Keyword except
// those that say otherwise.
const (
	AttrDisk      = "EbbDisk"
	AttrClaim     = "EbbClaim"
	AttrNode      = "EbbNode"
	AttrPhase     = "EbbPhase"
	AttrOperation = "EbbOperation"
)

// EC2 tags Ebb writes on its volumes and snapshots.
const (
	TagDisk       = "ebb:disk"
	TagName       = "ebb:name"
	TagGeneration = "ebb:generation"
	TagIndex      = "ebb:index"
	TagRole       = "ebb:role"
	TagCluster    = "ebb:cluster"
	TagMove       = "ebb:move"
	TagRetiredAt  = "ebb:retired-at"
	TagSet        = "ebb:set" // of a snapshot: the call that made it
	// TagRetention is how long a snapshot is kept, as time.ParseDuration reads it.
	TagRetention = "ebb:retention"
	TagNode      = "ebb:node"
	// TagModified holds Unix times of the last modifications of the disk, joined by
	// spaces, the oldest first, at most 8. EC2 itself tells only the last one.
	TagModified = "ebb:modified"
)

// Role of a volume, in its header and in its tag. The header is the truth.
type Role string

// Roles.
const (
	RoleIncoming Role = "incoming"
	RoleActive   Role = "active"
	RoleRetired  Role = "retired"
)

// DiskID names a disk: "d-" and 17 hexadecimal digits.
type DiskID string

var (
	diskIDRe     = regexp.MustCompile(`^d-[0-9a-f]{17}$`)
	volumeIDRe   = regexp.MustCompile(`^vol-[0-9a-f]{8}([0-9a-f]{9})?$`)
	instanceIDRe = regexp.MustCompile(`^i-[0-9a-f]{8}([0-9a-f]{9})?$`)
	nameRe       = regexp.MustCompile(`^[a-z0-9]([-a-z0-9./]{0,126}[a-z0-9])?$`)
	tokenRe      = regexp.MustCompile(`^[A-Za-z0-9-]{1,60}$`)
)

// Validate refuses anything that is not a disk id.
func (d DiskID) Validate() error {
	if !diskIDRe.MatchString(string(d)) {
		return fmt.Errorf("disk id %q: want d- and 17 hexadecimal digits", clip(string(d)))
	}
	return nil
}

// ValidateVolumeID refuses anything that is not an EBS volume id.
func ValidateVolumeID(s string) error {
	if !volumeIDRe.MatchString(s) {
		return fmt.Errorf("volume id %q: want vol- and 8 or 17 hexadecimal digits", clip(s))
	}
	return nil
}

// ValidateInstanceID refuses anything that is not an EC2 instance id.
func ValidateInstanceID(s string) error {
	if !instanceIDRe.MatchString(s) {
		return fmt.Errorf("node %q: want an EC2 instance id, i- and 8 or 17 hexadecimal digits", clip(s))
	}
	return nil
}

// ValidateName refuses a disk name that is not made of lower-case letters,
// digits, '-', '.' and '/' (at most 128, so namespace/claim fits).
func ValidateName(s string) error {
	if !nameRe.MatchString(s) {
		return fmt.Errorf("disk name %q: want 1 to 128 lower-case letters, digits, '-', '.' or '/'", clip(s))
	}
	return nil
}

// ValidateToken refuses a move id that would not fit an EC2 client token.
func ValidateToken(s string) error {
	if !tokenRe.MatchString(s) {
		return fmt.Errorf("move id %q: want 1 to 60 letters, digits or '-'", clip(s))
	}
	return nil
}

// Filesystem is "xfs" or "ext4".
type Filesystem string

// Filesystems Ebb formats and resizes.
const (
	XFS  Filesystem = "xfs"
	Ext4 Filesystem = "ext4"
)

// Validate refuses other filesystems.
func (f Filesystem) Validate() error {
	if f != XFS && f != Ext4 {
		return fmt.Errorf("filesystem %q: want xfs or ext4", clip(string(f)))
	}
	return nil
}

// ValidateMountPath refuses a mount path that is relative, unclean, "/", too
// long for the volume header (255 bytes), or contains control characters.
func ValidateMountPath(p string) error {
	switch {
	case !path.IsAbs(p), path.Clean(p) != p, p == "/":
		return fmt.Errorf("mount path %q: want a clean absolute path below /", clip(p))
	case len(p) > 255:
		return fmt.Errorf("mount path %q: longer than 255 bytes", clip(p))
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("mount path %q: contains a control character", clip(p))
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
