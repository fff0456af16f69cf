package contract

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/temporal"
)

// RefusalCode names an expected reason not to do something.
type RefusalCode string

// Refusal codes. A refusal changes nothing.
const (
	BadInput            RefusalCode = "BadInput"
	DiskUnknown         RefusalCode = "DiskUnknown"
	DiskExists          RefusalCode = "DiskExists"
	DiskIncomplete      RefusalCode = "DiskIncomplete"      // a member volume is missing
	BelowUsed           RefusalCode = "BelowUsed"           // size below used + headroom
	NoRoomToShrink      RefusalCode = "NoRoomToShrink"      // already as small as it should be
	NothingToGrow       RefusalCode = "NothingToGrow"       // the backing already has that size
	NothingToRetype     RefusalCode = "NothingToRetype"     // the volume already is as asked for
	AtCeiling           RefusalCode = "AtCeiling"           // the backing may not grow further
	NodeUnknown         RefusalCode = "NodeUnknown"         // EC2 does not know the instance, or it is not running
	NodeUnsupported     RefusalCode = "NodeUnsupported"     // kernel lacks a target, lockdown, ...
	NodeUnreachable     RefusalCode = "NodeUnreachable"     // no agent serves the node's queue
	ZoneMismatch        RefusalCode = "ZoneMismatch"        // volume and node in different zones
	AttachSlotsFull     RefusalCode = "AttachSlotsFull"     // the instance can attach no more volumes
	AttachStuck         RefusalCode = "AttachStuck"         // EBS began an attachment that never got to its end
	DetachStuck         RefusalCode = "DetachStuck"         // a volume does not come off its instance
	ModificationLimit   RefusalCode = "ModificationLimit"   // EBS refuses to modify the volume now
	SizeLimit           RefusalCode = "SizeLimit"           // beyond the volume type's limits
	PermissionMissing   RefusalCode = "PermissionMissing"   // an IAM permission is missing
	EC2Refused          RefusalCode = "EC2Refused"          // another final EC2 error
	VolumeUnformatted   RefusalCode = "VolumeUnformatted"   // no Ebb header
	VolumeForeign       RefusalCode = "VolumeForeign"       // other data, or another disk's header
	VolumeDamaged       RefusalCode = "VolumeDamaged"       // header or pool metadata damaged
	VolumeClone         RefusalCode = "VolumeClone"         // header names another volume: a copy made from a snapshot
	FormatNewer         RefusalCode = "FormatNewer"         // written by a newer version
	DuplicateGeneration RefusalCode = "DuplicateGeneration" // two volumes claim the same place
	DiskBusy            RefusalCode = "DiskBusy"            // in use (mounted, open) or an operation is running
	MoveFailed          RefusalCode = "MoveFailed"          // the new volume failed; the move was aborted
	VolumeFailing       RefusalCode = "VolumeFailing"       // the old volume returns errors
	BackupRunning       RefusalCode = "BackupRunning"       // a backup did not end in time
)

// Refusal is an expected "no": what happened, to which disk and volume, and
// what to do next. It is an error inside a process and travels between
// processes as a non-retryable Temporal application error.
type Refusal struct {
	Code    RefusalCode `json:"code"`
	Message string      `json:"message"`          // what happened, a sentence without the ids
	Disk    DiskID      `json:"disk,omitempty"`   // empty when no disk is involved
	Volume  string      `json:"volume,omitempty"` // empty when no volume is involved
	Next    string      `json:"next,omitempty"`   // what the operator does next
}

// Error is the refusal as one line.
func (r *Refusal) Error() string {
	s := string(r.Code) + ": " + r.Message
	if r.Disk != "" {
		s += fmt.Sprintf(" (disk %s)", r.Disk)
	}
	if r.Volume != "" {
		s += fmt.Sprintf(" (volume %s)", r.Volume)
	}
	if r.Next != "" {
		s += "; next: " + r.Next
	}
	return s
}

// Refuse makes a refusal; fill Disk, Volume and Next by the With methods.
func Refuse(code RefusalCode, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithDisk names the disk.
func (r *Refusal) WithDisk(d DiskID) *Refusal { r.Disk = d; return r }

// WithVolume names the volume.
func (r *Refusal) WithVolume(id string) *Refusal { r.Volume = id; return r }

// WithNext says what to do.
func (r *Refusal) WithNext(format string, args ...any) *Refusal {
	r.Next = fmt.Sprintf(format, args...)
	return r
}

// refusalType is the Temporal application error type of a Refusal.
const refusalType = "Refusal"

// ActivityError translates an error once, at an activity's edge. A Refusal
// anywhere in the chain becomes the outermost value, non-retryable (a wrapped
// non-retryable error would be retried); everything else stays retryable.
func ActivityError(err error) error {
	if r, ok := AsRefusal(err); ok {
		return temporal.NewNonRetryableApplicationError(r.Error(), refusalType, nil, *r)
	}
	return err
}

// AsRefusal finds a Refusal in err, whether it is still a Go error or has come
// back through Temporal.
func AsRefusal(err error) (*Refusal, bool) {
	var r *Refusal
	if errors.As(err, &r) {
		return r, true
	}
	var app *temporal.ApplicationError
	if errors.As(err, &app) && app.Type() == refusalType && app.HasDetails() {
		var out Refusal
		if app.Details(&out) == nil {
			return &out, true
		}
	}
	return nil, false
}
