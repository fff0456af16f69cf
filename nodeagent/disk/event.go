package disk

import "github.com/ebb-storage/ebb/internal/contract"

// EventKind says what Watch saw on a disk.
type EventKind string

// Event kinds.
const (
	// EventPressure: a pool passed its low-water mark and should grow.
	EventPressure EventKind = "pressure"
	// EventFull: a pool has no free block; writes wait for the growth.
	EventFull EventKind = "full"
	// EventMoveFailed: the incoming leg of a move failed and was dropped; the
	// disk is back on its old backing and no write failed.
	EventMoveFailed EventKind = "move-failed"
	// EventCeiling: writes that need more than the policy's ceiling fail from now
	// on, or no longer do.
	EventCeiling EventKind = "ceiling"
	// EventTrimmed: a trim at the ceiling gave Bytes back to the pool.
	EventTrimmed EventKind = "trimmed"
	// EventReadError: the active backing returned an error.
	EventReadError EventKind = "read-error"
)

// Event is one thing the kernel reported about an assembled disk. The same
// state may be reported more than once.
type Event struct {
	Disk contract.DiskID
	Kind EventKind
	// Pressure is set for EventPressure and EventFull.
	Pressure contract.Pressure
	Bytes    int64 // of EventTrimmed
	// Message is for people: what happened, to which device.
	Message string
}
