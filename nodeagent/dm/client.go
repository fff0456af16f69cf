package dm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	controlPath = "/dev/mapper/control"
	miscMajor   = 10

	// Buffers grow from the first to the second size, in bytes.
	bufferBytes    = 16 << 10
	maxBufferBytes = 64 << 20
)

// Names of operations in errors.
const (
	opOpen    = "open"
	opCreate  = "create"
	opLoad    = "load"
	opClear   = "clear"
	opResume  = "resume"
	opRemove  = "remove"
	opInfo    = "info"
	opList    = "list"
	opStatus  = "status"
	opTable   = "table"
	opDeps    = "deps"
	opMessage = "message"
	opTargets = "targets"
	opWait    = "wait"
)

// Client talks to the kernel's device-mapper. Its methods may be called from several goroutines at once,
// but for Poll.
type Client struct {
	control *os.File
	events  *os.File // armed from Open on, so that Poll misses nothing
	version [3]uint32
}

// Open opens the control device. It makes the device node when nothing else did, and tries to load
// dm_mod when the kernel has it as a module. The error is ErrUnsupported when there is no device-mapper.
func Open() (*Client, error) {
	control, err := openControl()
	if err != nil {
		return nil, err
	}
	c := &Client{control: control}
	a, err := c.ioctl(cmdVersion, request{}, headerLen)
	if err != nil {
		_ = control.Close()
		return nil, fail(opOpen, "", err)
	}
	c.version = [3]uint32{native.Uint32(a), native.Uint32(a[4:]), native.Uint32(a[8:])}
	if c.version[0] != interfaceMajor {
		_ = control.Close()
		return nil, &Error{Op: opOpen, Err: fmt.Errorf("interface version %d.%d: %w", c.version[0], c.version[1], ErrUnsupported)}
	}
	if c.events, err = openControl(); err != nil {
		_ = control.Close()
		return nil, err
	}
	return c, nil
}

// Close releases the control device. End Poll and WaitEvent first, by their contexts.
func (c *Client) Close() error {
	return errors.Join(c.control.Close(), c.events.Close())
}

// Version returns the version of the kernel's ioctl interface.
func (c *Client) Version() (major, minor, patch uint32) {
	return c.version[0], c.version[1], c.version[2]
}

// Targets returns the targets that are loaded now and their versions. A target whose module is not loaded
// is missing here: see EnsureTargets.
func (c *Client) Targets() (map[string][3]uint32, error) {
	a, err := c.ioctl(cmdListVersions, request{}, bufferBytes)
	if err != nil {
		return nil, fail(opTargets, "", err)
	}
	b, err := a.data()
	if err != nil {
		return nil, fail(opTargets, "", err)
	}
	versions, err := decodeVersions(b)
	if err != nil {
		return nil, fail(opTargets, "", err)
	}
	return versions, nil
}

func openControl() (*os.File, error) {
	minor, err := controlMinor()
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), moduleTimeout)
		defer cancel()
		if e := loadModule(ctx, "dm_mod"); e != nil {
			return nil, &Error{Op: opOpen, Err: fmt.Errorf("%w: %w: %w", ErrUnsupported, err, e)}
		}
		if minor, err = controlMinor(); err != nil {
			return nil, &Error{Op: opOpen, Err: fmt.Errorf("%w: %w", ErrUnsupported, err)}
		}
	}
	if _, err := os.Lstat(controlPath); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(controlPath), 0o755); err != nil {
			return nil, fail(opOpen, "", err)
		}
		dev := int(unix.Mkdev(miscMajor, minor))
		if err := unix.Mknod(controlPath, unix.S_IFCHR|0o600, dev); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fail(opOpen, "", fmt.Errorf("make %s: %w", controlPath, err))
		}
	}
	// Not os.Open: the runtime's poller must not watch this descriptor.
	fd, err := unix.Open(controlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fail(opOpen, "", fmt.Errorf("%s: %w", controlPath, err))
	}
	return os.NewFile(uintptr(fd), controlPath), nil
}

// controlMinor finds the control device's minor number under the major of "misc".
func controlMinor() (uint32, error) {
	f, err := os.Open("/proc/misc")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if f := strings.Fields(s.Text()); len(f) == 2 && f[1] == "device-mapper" {
			n, err := strconv.ParseUint(f[0], 10, 20)
			return uint32(n), err
		}
	}
	if err := s.Err(); err != nil {
		return 0, err
	}
	return 0, errors.New("the kernel has no device-mapper")
}

// ioctl performs one command, again with a larger buffer as long as the answer does not fit.
func (c *Client) ioctl(cmd uintptr, r request, size int) (answer, error) {
	return ioctl(c.control, cmd, r, size)
}

func ioctl(control *os.File, cmd uintptr, r request, size int) (answer, error) {
	for {
		b := r.encode(size)
		if err := rawIoctl(control, cmd, b); err != nil {
			return nil, err
		}
		if answer(b).flags()&flagBufferFull == 0 {
			return b, nil
		}
		if size = 2 * len(b); size > maxBufferBytes {
			return nil, fmt.Errorf("answer exceeds %d bytes", maxBufferBytes)
		}
	}
}

// rawIoctl blocks the thread's signals meanwhile: the kernel drains a device interruptibly when it swaps a
// table, and a Go process gets signals at any time. Current kernels restart the swap then (dm suspend
// returns ERESTARTSYS since 6.11 and its stable siblings); what older ones did is not worth meeting.
func rawIoctl(control *os.File, cmd uintptr, b []byte) error {
	conn, err := control.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var all, old unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		masked := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old) == nil
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, command(cmd), uintptr(unsafe.Pointer(&b[0])))
		if masked {
			_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) // cannot fail with a mask that was in force
		}
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}
