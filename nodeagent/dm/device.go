package dm

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// A device that was just closed may still be open in udev, which looks at each change.
	removePatience = 2 * time.Second
	removeInterval = 50 * time.Millisecond
)

// What udev's device-mapper rules read from the upper half of the event number (libdevmapper's cookie).
// The lower half, the number of a semaphore to signal, stays 0: nobody waits for udev here.
const (
	udevDisableSubsystem = 0x0002 << 16
	udevDisableDisk      = 0x0004 << 16
	udevDisableOther     = 0x0008 << 16
	udevPrimarySource    = 0x0040 << 16
)

// Dev is a block device's number.
type Dev struct{ Major, Minor uint32 }

// String returns the form that tables take, such as "254:3".
func (d Dev) String() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// Info is a mapped device's state.
type Info struct {
	Name string
	UUID string // empty when it has none
	Dev  Dev

	OpenCount   int32
	EventNr     uint32 // grows with every event of the live table: see WaitEvent
	TargetCount uint32 // of the live table

	Suspended       bool
	ReadOnly        bool
	ActivePresent   bool // has a live table
	InactivePresent bool // has a table that the next Resume makes live
}

// DevPath returns the node of an active device in devtmpfs, which the kernel makes by itself. It can be
// trusted as long as the device exists; /dev/mapper/<name> is a courtesy to people.
func DevPath(i Info) string { return fmt.Sprintf("/dev/dm-%d", i.Dev.Minor) }

// Create makes a device without a table. Name is at most 127 bytes, uuid at most 128 and may be empty;
// neither may hold a slash, a backslash, white space or anything beyond ASCII. It fails with ErrExists
// when the name or the UUID is taken.
func (c *Client) Create(name, uuid string) (Info, error) {
	if err := checkUUID(uuid); err != nil {
		return Info{}, fail(opCreate, name, err)
	}
	return c.device(opCreate, cmdCreate, request{name: name, uuid: uuid})
}

// Load checks a table and puts it into the device's inactive slot, in place of what is there; the live
// table works on. It fails with ErrNotFound when there is no such device, with ErrNoMember when the table
// names a block device that does not exist, and with ErrBusy when one of those is exclusively held. The
// kernel tells its reasons for EINVAL in its log only.
func (c *Client) Load(name string, readOnly bool, table ...Target) (Info, error) {
	data, err := encodeTable(table)
	if err == nil && len(table) == 0 {
		err = fmt.Errorf("%w table: empty", ErrInvalid)
	}
	if err != nil {
		return Info{}, fail(opLoad, name, err)
	}
	r := request{name: name, data: data, targetCount: uint32(len(table))}
	if readOnly {
		r.flags |= flagReadOnly
	}
	info, err := c.device(opLoad, cmdTableLoad, r)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		if _, e := c.Info(name); e == nil { // the name is known, so it was a member
			return Info{}, &Error{Op: opLoad, Name: name, Err: fmt.Errorf("%w: %w", ErrNoMember, errnoOf(err)), kind: ErrNoMember}
		}
	}
	return info, err
}

// Clear drops the inactive table, if there is one. It is safe to repeat.
func (c *Client) Clear(name string) error {
	_, err := c.device(opClear, cmdTableClear, request{name: name})
	return err
}

// ResumeFlags modify Resume.
type ResumeFlags struct {
	// NoFlush lets the kernel hand I/O that the old table holds back to the new one, instead of waiting
	// for it to end. It is required whenever the old table may be unable to complete: a mirror with a
	// failed leg, a full pool.
	NoFlush bool
	// Internal tells udev to leave the device alone: no probing for filesystems, no links by content.
	Internal bool
}

// Resume makes the inactive table live: the kernel suspends the device, swaps the tables and resumes it,
// all in this one call. Without an inactive table it resumes a device that somebody else left suspended,
// and changes nothing otherwise, so it is safe to repeat. The filesystem above is never frozen.
//
// There is no Suspend, on purpose: no code path may leave a device suspended across a return to user
// space, since whoever would resume it may die first. When the kernel refuses the table after it has
// suspended the device, Resume puts the old table back to work before it returns the error; the refused
// table is gone then. A power cut or SIGKILL right there is the one gap; a reconciling agent closes it by
// loading a good table and calling Resume.
//
// It also makes /dev/mapper/<name> when nothing else did.
func (c *Client) Resume(name string, f ResumeFlags) (Info, error) {
	r := request{name: name, flags: flagSkipLockFS, eventNr: udevPrimarySource}
	if f.NoFlush {
		r.flags |= flagNoFlush
	}
	if f.Internal {
		r.eventNr |= udevDisableSubsystem | udevDisableDisk | udevDisableOther
	}
	_, old, err := c.Table(name) // to go back to
	if err != nil {
		return Info{}, fail(opResume, name, errnoOf(err))
	}
	info, err := c.device(opResume, cmdSuspend, r)
	if err != nil {
		return Info{}, c.rescue(r, old, err)
	}
	if info.ActivePresent {
		makeLink(name, info.Dev)
	}
	return info, nil
}

// rescue puts a device that a failed Resume has left suspended back to work under its old table. The kernel
// stops either before the swap, then resuming it is enough, or after it, when the new table's targets
// refuse to start (a pool whose data device has shrunk does), then the old table must be loaded again.
func (c *Client) rescue(r request, old []Target, cause error) error {
	info, err := c.Info(r.name)
	if err != nil || !info.Suspended || !info.ActivePresent {
		return cause
	}
	_, live, err := c.Table(r.name)
	if err == nil && !slices.Equal(live, old) && len(old) > 0 {
		_, err = c.Load(r.name, info.ReadOnly, old...)
	}
	if err == nil {
		info, err = c.device(opResume, cmdSuspend, r)
	}
	if err == nil && info.Suspended {
		err = errors.New("device is suspended")
	}
	if err != nil {
		return fmt.Errorf("%w; and then, back to its old table: %w", cause, err)
	}
	return cause
}

// Remove takes a device away, with its tables and its link in /dev/mapper. While the device is open it
// keeps trying for two seconds, since udev may be looking at it, and then fails with ErrBusy. A device
// that does not exist is ErrNotFound.
func (c *Client) Remove(name string) error {
	info, err := c.Info(name)
	if err != nil {
		return fail(opRemove, name, errnoOf(err))
	}
	tick := time.NewTicker(removeInterval)
	defer tick.Stop()
	for end := time.Now().Add(removePatience); ; <-tick.C {
		_, err := c.device(opRemove, cmdRemove, request{name: name})
		if err == nil {
			removeLink(name, info.Dev)
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// Info returns a device's state, or ErrNotFound.
func (c *Client) Info(name string) (Info, error) {
	return c.device(opInfo, cmdStatus, request{name: name})
}

// InfoByDev returns the state of the mapped device with number d, or ErrNotFound when that is none.
func (c *Client) InfoByDev(d Dev) (Info, error) {
	a, err := c.ioctl(cmdStatus, request{dev: d}, headerLen)
	if err != nil {
		return Info{}, fail(opInfo, d.String(), err)
	}
	return a.info(), nil
}

// List returns all devices, in the kernel's order, with name, UUID, number and event number only.
func (c *Client) List() ([]Info, error) {
	a, err := c.ioctl(cmdListDevices, request{flags: flagUUID}, bufferBytes)
	if err != nil {
		return nil, fail(opList, "", err)
	}
	b, err := a.data()
	if err != nil {
		return nil, fail(opList, "", err)
	}
	list, known, err := decodeList(b, c.version[1])
	if err != nil {
		return nil, fail(opList, "", err)
	}
	kept := list[:0]
	for n, i := range list {
		if !known[n] { // an older kernel
			full, err := c.InfoByDev(i.Dev) // not by name: others may use names that are refused here
			if errors.Is(err, ErrNotFound) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, err
			}
			i.UUID, i.EventNr = full.UUID, full.EventNr
		}
		kept = append(kept, i)
	}
	return kept, nil
}

// Status returns the live table's targets with a status line each in Params. It neither waits for I/O nor
// makes a pool commit, so it works on a pool that is out of space.
func (c *Client) Status(name string) (Info, []Target, error) {
	return c.targets(opStatus, request{name: name, flags: flagNoFlush})
}

// Table returns the live table.
func (c *Client) Table(name string) (Info, []Target, error) {
	return c.targets(opTable, request{name: name, flags: flagNoFlush | flagStatusTable})
}

func (c *Client) targets(op string, r request) (Info, []Target, error) {
	a, err := c.call(op, cmdTableStatus, r, bufferBytes)
	if err != nil {
		return Info{}, nil, err
	}
	b, err := a.data()
	if err != nil {
		return Info{}, nil, fail(op, r.name, err)
	}
	table, err := decodeTable(b, a.targetCount())
	if err != nil {
		return Info{}, nil, fail(op, r.name, err)
	}
	return a.info(), table, nil
}

// Deps returns the block devices that the live table uses.
func (c *Client) Deps(name string) ([]Dev, error) {
	a, err := c.call(opDeps, cmdTableDeps, request{name: name}, bufferBytes)
	if err != nil {
		return nil, err
	}
	b, err := a.data()
	if err != nil {
		return nil, fail(opDeps, name, err)
	}
	devs, err := decodeDeps(b)
	if err != nil {
		return nil, fail(opDeps, name, err)
	}
	return devs, nil
}

// Message sends a message to the live target at a sector, and returns its answer, if there is one. The
// kernel splits it at white space. A thin-pool answers EEXIST to create_thin of a device that exists and
// ENODATA to delete of one that does not.
func (c *Client) Message(name string, sector uint64, format string, args ...any) (string, error) {
	msg := format
	if len(args) > 0 {
		msg = fmt.Sprintf(format, args...)
	}
	if err := checkLine("message", msg); err != nil {
		return "", fail(opMessage, name, err)
	}
	data := make([]byte, 8+len(msg)+1)
	native.PutUint64(data, sector)
	copy(data[8:], msg)
	a, err := c.call(opMessage, cmdMessage, request{name: name, data: data}, bufferBytes)
	if err != nil || a.flags()&flagDataOut == 0 {
		return "", err
	}
	b, err := a.data()
	if err != nil {
		return "", fail(opMessage, name, err)
	}
	return text(b), nil
}

// device performs a command that answers with the device's state alone.
func (c *Client) device(op string, cmd uintptr, r request) (Info, error) {
	a, err := c.call(op, cmd, r, headerLen)
	if err != nil {
		return Info{}, err
	}
	return a.info(), nil
}

func (c *Client) call(op string, cmd uintptr, r request, size int) (answer, error) {
	if err := checkName(r.name); err != nil {
		return nil, fail(op, r.name, err)
	}
	a, err := c.ioctl(cmd, r, size)
	if err != nil {
		return nil, fail(op, r.name, err)
	}
	return a, nil
}

// errnoOf strips the context that another operation has put around an error.
func errnoOf(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
