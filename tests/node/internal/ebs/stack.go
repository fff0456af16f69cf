package ebs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Demolish takes a volume away together with every filesystem and every device-mapper device that lies on
// it, as the end of the machine would. force makes all I/O fail first; without it filesystems are unmounted
// properly. It is safe to repeat.
func Demolish(ctx context.Context, v Volume, force bool) error {
	if _, err := os.Stat(Path(v.ID)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if force {
		v.Fault = FaultError
		if err := Reload(ctx, v); err != nil {
			return err
		}
	}
	dev, err := filepath.EvalSymlinks(Path(v.ID))
	if err != nil {
		return err
	}
	var st unix.Stat_t // without udev the node is no link
	if err := unix.Stat(dev, &st); err != nil {
		return err
	}
	kernel, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return err
	}
	return demolish(ctx, filepath.Base(kernel), force)
}

// demolish removes the device with a kernel name such as dm-3, what lies on it first.
func demolish(ctx context.Context, kernel string, force bool) error {
	sys := filepath.Join("/sys/block", kernel)
	holders, err := filepath.Glob(filepath.Join(sys, "holders", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range holders {
		errs = append(errs, demolish(ctx, filepath.Base(h), force))
	}
	number, err := os.ReadFile(filepath.Join(sys, "dev"))
	if errors.Is(err, os.ErrNotExist) { // gone by another way
		return errors.Join(errs...)
	}
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, unmount(strings.TrimSpace(string(number)), force))
	if name, err := os.ReadFile(filepath.Join(sys, "dm", "name")); err == nil {
		args := []string{"remove", "--retry"}
		if force {
			args = append(args, "--force")
		}
		err := dmsetup(ctx, append(args, strings.TrimSpace(string(name)))...)
		if err != nil && !strings.Contains(err.Error(), "No such device") {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// unmount takes down the filesystems on the device with a number such as 253:3.
func unmount(number string, force bool) error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var dirs []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && fields[2] == number {
			dirs = append(dirs, strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(fields[4]))
		}
	}
	flags := 0
	if force {
		flags = unix.MNT_DETACH
	}
	errs := []error{s.Err()}
	for i := len(dirs) - 1; i >= 0; i-- { // the last mounted first
		if err := unix.Unmount(dirs[i], flags); err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dirs[i], err))
		}
	}
	return errors.Join(errs...)
}
