package volume

import (
	"errors"
	"fmt"
	"io"
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
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Errorf("%w: not a block device", errForeign)
	}
	d.dev = dm.Dev{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	block, err := unix.IoctlGetInt(int(d.f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return err
	}
	d.block = int64(uint32(block)) // the kernel writes an int
	d.id, err = d.probe(d.f.Fd(), d.dev)
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
	if err := ioctl(d.f.Fd(), unix.BLKGETSIZE64, unsafe.Pointer(&n)); err != nil {
		return 0, fmt.Errorf("size of %s: %w", d.f.Name(), err)
	}
	return int64(n), nil
}

// Verify reads the identity again and fails with ErrNotAttached when the device is no longer the volume.
// Call it right before a write that would destroy another volume's data.
func (d *Device) Verify() error {
	id, err := d.probe(d.f.Fd(), d.dev)
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
	return transfer(p, off, func(p []byte, off int64) (int, error) { return unix.Pread(int(d.f.Fd()), p, off) }, io.EOF)
}

// WriteAt implements io.WriterAt for aligned buffers. What it has written is durable after Sync.
func (d *Device) WriteAt(p []byte, off int64) (int, error) {
	if err := d.aligned(p, off); err != nil {
		return 0, fmt.Errorf("write %s: %w", d.f.Name(), err)
	}
	n, err := transfer(p, off, func(p []byte, off int64) (int, error) { return unix.Pwrite(int(d.f.Fd()), p, off) }, io.ErrShortWrite)
	if err != nil {
		err = fmt.Errorf("write %s at %d: %w", d.f.Name(), off, err)
	}
	return n, err
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

// transfer repeats a system call until all of p is done. A call that does nothing ends it with atEnd.
func transfer(p []byte, off int64, call func([]byte, int64) (int, error), atEnd error) (int, error) {
	done := 0
	for done < len(p) {
		n, err := call(p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, err
		case n == 0:
			return done, atEnd
		default:
			done += n
		}
	}
	return done, nil
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
