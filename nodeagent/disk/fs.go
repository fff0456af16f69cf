package disk

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// mount is a mounted filesystem.
type mount struct{ path, fstype string }

// mountOf finds where a device is mounted, by its number.
func mountOf(dev dm.Dev) (mount, bool, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mount{}, false, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		w := strings.Fields(s.Text())
		if len(w) < 10 || w[2] != dev.String() || w[3] != "/" {
			continue
		}
		for i := 6; i < len(w)-1; i++ {
			if w[i] == "-" {
				return mount{unescape(w[4]), w[i+1]}, true, nil
			}
		}
	}
	return mount{}, false, nil
}

// unescape decodes mountinfo's octal escapes.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// usage is the filesystem's size and use in bytes, as df shows them.
func (m mount) usage() (total, used int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.path, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", m.path, err)
	}
	return int64(st.Blocks) * st.Frsize, int64(st.Blocks-st.Bfree) * st.Frsize, nil
}

// mkfs makes the filesystem without touching more of the disk than it must: no
// discard of the whole device, no zeroing of what reads as zeros already. ext4 keeps
// no blocks for root: a twentieth of a large disk may be more than is behind it.
func mkfs(ctx context.Context, fs contract.Filesystem, dev string) error {
	switch fs {
	case contract.XFS:
		return run(ctx, "mkfs.xfs", "-q", "-f", "-K", dev)
	case contract.Ext4:
		return run(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard,assume_storage_prezeroed=1", dev)
	}
	return fs.Validate()
}

// grow makes the mounted filesystem as large as its device.
func (m mount) grow(ctx context.Context, dev string) error {
	if m.fstype == string(contract.XFS) {
		return run(ctx, "xfs_growfs", "-d", m.path)
	}
	return run(ctx, "resize2fs", dev)
}

// run runs a tool of the node; its error carries what the tool said.
func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return contract.Refuse(contract.NodeUnsupported, "%s is missing", name).WithNext("install it on the node")
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// mountAt mounts the disk's device; a disk that is mounted already is left.
func mountAt(top dm.Info, fs contract.Filesystem, path string) error {
	if _, ok, err := mountOf(top.Dev); ok || err != nil {
		return err
	}
	return mountOver(top, fs, path)
}

func mountOver(top dm.Info, fs contract.Filesystem, path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("mount point: %w", err)
	}
	if err := unix.Mount(dm.DevPath(top), path, string(fs), 0, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", dm.DevPath(top), path, err)
	}
	return nil
}

// unmount unmounts the disk's device from everywhere, and tells from where it did.
func unmount(d contract.DiskID, dev dm.Dev) (from []string, err error) {
	for {
		mnt, ok, err := mountOf(dev)
		if err != nil || !ok {
			return from, err
		}
		if err := unix.Unmount(mnt.path, 0); errors.Is(err, unix.EBUSY) {
			return from, contract.Refuse(contract.DiskBusy, "%s is in use", mnt.path).WithDisk(d).WithNext("stop the program that uses it (fuser -m %s)", mnt.path)
		} else if err != nil {
			return from, fmt.Errorf("unmount %s: %w", mnt.path, err)
		}
		from = append(from, mnt.path)
	}
}

// trimStep is the span of one FITRIM call. It is small for two reasons: a long
// trim can be ended in between, and xfs of kernels since 6.6 (and of stable ones
// it was brought to) skips free extents when it is asked for a whole allocation
// group that has more than a hundred of the same length; asked for less, it goes
// by position and finds them all.
const trimStep = 256 << 20

// errTrimmed ends a trim before its end without being an error of it.
var errTrimmed = errors.New("the trim ends here")

// trim gives the filesystem's free blocks back, in spans of trimStep from first on
// and around the end, and returns how many bytes and where the next one may begin.
// Each span is trimmed by step, which may leave it out by not calling trim, or end
// it all by errTrimmed.
func (m mount) trim(ctx context.Context, size, first int64, step func(start int64, trim func() error) error) (sum, next int64, err error) {
	f, err := os.Open(m.path)
	if err != nil {
		return 0, first, err
	}
	defer f.Close()
	if err := m.settle(f); err != nil {
		return 0, first, err
	}
	const fitrim = 0xC0185879
	spans := (size + trimStep - 1) / trimStep
	for i := range spans {
		at := (first/trimStep + i) % spans * trimStep
		if err := ctx.Err(); err != nil {
			return sum, at, err
		}
		err := step(at, func() error {
			r := struct{ start, length, minimum uint64 }{uint64(at), trimStep, 0}
			_, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fitrim, uintptr(unsafe.Pointer(&r)))
			switch {
			case e == unix.EOPNOTSUPP:
				return errTrimmed // no discard below
			case e == unix.EINVAL && at > 0:
				return nil // past the filesystem's last block
			case e != 0:
				return fmt.Errorf("trim %s: %w", m.path, e)
			}
			sum += int64(min(r.length, trimStep)) // xfs counts an extent whole that only begins here
			return nil
		})
		if errors.Is(err, errTrimmed) {
			return sum, at, nil
		}
		if err != nil {
			return sum, at, err
		}
	}
	return sum, first, nil
}

// settle makes the blocks of files deleted just now free for FITRIM: xfs frees
// them in the background (and keeps blocks beyond a file's end for later
// growth), and both filesystems only once the transaction is on disk.
func (m mount) settle(f *os.File) error {
	if m.fstype == string(contract.XFS) {
		// XFS_IOC_FREE_EOFBLOCKS waits for the background work (linux/xfs_fs.h).
		const freeEOFBlocks = 0x8080583A
		arg := struct {
			version, flags, uid, gid, prid, pad uint32
			minFileSize                         uint64
			pad64                               [12]uint64
		}{version: 1, flags: 1}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), freeEOFBlocks, uintptr(unsafe.Pointer(&arg))); e != 0 && e != unix.EROFS {
			return fmt.Errorf("free preallocated blocks of %s: %w", m.path, e)
		}
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", m.path, err)
	}
	return nil
}

// wait calls cond every 50 ms until it is true, ends with an error, or ctx or
// the timeout ends.
func wait(ctx context.Context, timeout time.Duration, what string, cond func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		ok, err := cond()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-t.C:
		}
	}
}
