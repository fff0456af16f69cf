package dm

import (
	"errors"

	"golang.org/x/sys/unix"
)

// What an *Error may be, for errors.Is.
var (
	// ErrNotFound: no device has that name.
	ErrNotFound = errors.New("no such device")
	// ErrExists: the name or the UUID is taken.
	ErrExists = errors.New("device exists")
	// ErrBusy: the device is open, or a device that a table names is exclusively held by another user.
	ErrBusy = errors.New("device is busy")
	// ErrNoMember: a device that a table names does not exist. The mapped device itself does.
	ErrNoMember = errors.New("table names a missing device")
	// ErrUnsupported: the kernel has no device-mapper, or an incompatible one, or lacks the operation or
	// the target.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrInvalid: a name, UUID, table or message was refused before the kernel saw it.
	ErrInvalid = errors.New("invalid")
)

// Error is what every operation returns when it fails. It unwraps to Err and to the sentinel that
// describes it, if one does.
type Error struct {
	Op   string // such as "load"
	Name string // the device's; empty for operations on no device
	Err  error  // the kernel's errno, or the reason why it was not asked

	kind error // sentinel, nil when none fits or Err contains it
}

// Error prints operation, device and cause.
func (e *Error) Error() string {
	s := "device-mapper: " + e.Op
	if e.Name != "" {
		s += " " + e.Name
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the cause and, if there is one, the sentinel.
func (e *Error) Unwrap() []error {
	if e.kind == nil {
		return []error{e.Err}
	}
	return []error{e.kind, e.Err}
}

func fail(op, name string, err error) error {
	e := &Error{Op: op, Name: name, Err: err}
	switch {
	case errors.Is(err, unix.ENXIO):
		e.kind = ErrNotFound
	case errors.Is(err, unix.EBUSY) && op == opCreate:
		e.kind = ErrExists
	case errors.Is(err, unix.EBUSY):
		e.kind = ErrBusy
	case errors.Is(err, unix.ENOTTY):
		e.kind = ErrUnsupported
	}
	return e
}
