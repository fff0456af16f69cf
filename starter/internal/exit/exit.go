// Package exit holds the exit codes of the ebb command and the error that
// carries one. The codes are an interface: scripts depend on them.
package exit

import (
	"errors"
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Code is a process exit code.
type Code int

// Exit codes.
const (
	Done        Code = 0   // done, or planned with --dry-run
	Failed      Code = 1   // an error
	Usage       Code = 2   // the command line is wrong; nothing was started
	Refused     Code = 3   // refused with a reason; nothing changed
	Cancelled   Code = 4   // the operation was cancelled
	NotFound    Code = 5   // no such disk, or no operation runs on it
	Busy        Code = 6   // another operation runs on the disk
	Unreachable Code = 7   // Temporal, or Ebb's worker, does not answer
	Detached    Code = 130 // Ctrl-C: an operation that was started goes on
)

// Codes lists all codes with their meaning, for help texts.
func Codes() []struct {
	Code    Code
	Meaning string
} {
	return []struct {
		Code    Code
		Meaning string
	}{
		{Done, "done, or planned with --dry-run"},
		{Failed, "error"},
		{Usage, "usage: the command line is wrong; nothing was started"},
		{Refused, "refused with a reason; nothing changed"},
		{Cancelled, "the operation was cancelled"},
		{NotFound, "not found: no such disk, or no operation runs on it"},
		{Busy, "busy: another operation runs on the disk"},
		{Unreachable, "unreachable: Temporal, or Ebb's control worker, does not answer"},
		{Detached, "detached by Ctrl-C; an operation that was started goes on"},
	}
}

// kinds name the codes in JSON.
var kinds = map[Code]string{
	Failed: "error", Usage: "usage", Refused: "refused", Cancelled: "cancelled", NotFound: "notFound",
	Busy: "busy", Unreachable: "unreachable", Detached: "detached",
}

// Kind is the code's name in JSON.
func (c Code) Kind() string { return kinds[c] }

// Error ends the command with a code. Message says what happened, Next what to
// do about it.
type Error struct {
	Code    Code
	Message string
	Next    string
	Refusal *contract.Refusal // set when a workflow refused
	Err     error             // the cause, when there is one
}

func (e *Error) Error() string {
	if e.Err != nil && e.Message == "" {
		return e.Err.Error()
	}
	if e.Err != nil {
		return e.Message + ": " + e.Err.Error()
	}
	return e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// WithNext says what to do.
func (e *Error) WithNext(format string, args ...any) *Error {
	e.Next = fmt.Sprintf(format, args...)
	return e
}

// Because names the cause.
func (e *Error) Because(err error) *Error { e.Err = err; return e }

// New makes an error with a code.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Refusal makes the error of a refused operation. An unknown disk is NotFound,
// everything else Refused.
func Refusal(r *contract.Refusal) *Error {
	e := &Error{Code: Refused, Message: "refused: " + r.Message, Next: r.Next, Refusal: r}
	if r.Code == contract.DiskUnknown {
		e.Code = NotFound
	}
	if r.Disk != "" {
		e.Message += fmt.Sprintf(" (disk %s)", r.Disk)
	}
	if r.Volume != "" {
		e.Message += fmt.Sprintf(" (volume %s)", r.Volume)
	}
	return e
}

// CodeOf is the code an error ends the process with.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return Done
	case errors.As(err, &e):
		return e.Code
	}
	return Failed
}
