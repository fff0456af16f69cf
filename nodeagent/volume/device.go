package volume

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// Alignment of AlignedBuffer in bytes: a page, and no disk has larger blocks.
const Alignment = 4096

// Device is an open volume. Its methods may be called from several goroutines at once. Reads and writes
// bypass the page cache: buffers, offsets and lengths must be multiples of the logical block size, for
// which AlignedBuffer and multiples of Alignment always do.
type Device struct {
	f     *os.File
	id    string
	dev   dm.Dev
	block int64 // logical block size in bytes
	probe prober
}

// open opens path and asks the open descriptor who it is.
func open(path string, write bool, probe prober) (*Device, error) {
	mode := unix.O_RDONLY
	if write {
		mode = unix.O_RDWR | unix.O_DIRECT
	}
	fd, err := unix.Open(path, mode|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || gone(err) {
			err = errors.Join(ErrNotAttached, err)
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	d := &Device{f: os.NewFile(uintptr(fd), path), probe: probe}
	if err := d.identify(); err != nil {
		_ = d.Close()
		return nil, fmt.Errorf("identify %s: %w", path, err)
	}
	return d, nil
}

func (d *Device) identify() error {
	return d.control(func(fd uintptr) error {
		var st unix.Stat_t
		if err := unix.Fstat(int(fd), &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return fmt.Errorf("%w: not a block device", errForeign)
		}
		d.dev = dm.Dev{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
		var block int32
		err := ioctl(fd, unix.BLKSSZGET, unsafe.Pointer(&block))
		if err != nil {
			return fmt.Errorf("block size: %w", err)
		}
		d.block = max(1, int64(block))
		d.id, err = d.probe(fd, d.dev)
		return err
	})
}

// control calls f with the descriptor, which stays open meanwhile.
func (d *Device) control(f func(fd uintptr) error) error {
	conn, err := d.f.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = f(fd) }); e != nil {
		return e
	}
	return err
}

// ID returns the volume id that the device had when it was opened.
func (d *Device) ID() string { return d.id }

// Path returns the name under which the device was opened. Do not open it again by that name.
func (d *Device) Path() string { return d.f.Name() }

// Dev returns the device's number, which stays the volume's as long as the Device is open.
func (d *Device) Dev() dm.Dev { return d.dev }

// Fd returns the descriptor, valid until Close.
func (d *Device) Fd() uintptr { return d.f.Fd() }

// Bytes returns the size the device has now. It grows when the volume is modified.
func (d *Device) Bytes() (int64, error) {
	var n uint64
	err := d.control(func(fd uintptr) error { return ioctl(fd, unix.BLKGETSIZE64, unsafe.Pointer(&n)) })
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", d.f.Name(), err)
	}
	return int64(n), nil
}

// Verify reads the identity again and fails with ErrNotAttached when the device is no longer the volume.
// Call it right before a write that would destroy another volume's data.
func (d *Device) Verify() error {
	var id string
	err := d.control(func(fd uintptr) (err error) {
		id, err = d.probe(fd, d.dev)
		return err
	})
	if err != nil {
		return fmt.Errorf("verify %s at %s: %w: %w", d.id, d.f.Name(), ErrNotAttached, err)
	}
	if id != d.id {
		return fmt.Errorf("verify %s at %s: it is %s: %w", d.id, d.f.Name(), id, ErrNotAttached)
	}
	return nil
}

// ReadAt implements io.ReaderAt for aligned buffers.
func (d *Device) ReadAt(p []byte, off int64) (int, error) {
	if err := d.aligned(p, off); err != nil {
		return 0, fmt.Errorf("read %s: %w", d.f.Name(), err)
	}
	return d.f.ReadAt(p, off)
}

// WriteAt implements io.WriterAt for aligned buffers. What it has written is durable after Sync.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.aligned(p, off); err != nil {
		return 0, fmt.Errorf("write %s: %w", d.f.Name(), err)
	}
	return d.f.WriteAt(p, off)
}

// Sync makes everything written so far durable.
func (d *Device) Sync() error { return d.f.Sync() }

// Close closes the device.
func (d *Device) Close() error { return d.f.Close() }

func (d *Device) aligned(p []byte, off int64) error {
	address := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	if off < 0 || off%d.block != 0 || int64(len(p))%d.block != 0 || (len(p) > 0 && int64(address)%d.block != 0) {
		return fmt.Errorf("%w: %d bytes at %d, blocks of %d", ErrUnaligned, len(p), off, d.block)
	}
	return nil
}

// AlignedBuffer returns n zero bytes at an address that is a multiple of Alignment.
func AlignedBuffer(n int) []byte {
	b := make([]byte, n+Alignment)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (Alignment - 1)
	return b[skip : skip+n : skip+n]
}

func ioctl(fd, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// gone tells that the device behind a name or a descriptor has left.
func gone(err error) bool {
	return errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV)
}
