// Command init is the first process of the machine of tests/qemu: it mounts what a Linux needs, loads the
// modules that /modules lists, runs the test that the kernel's command line names (ebb.test=NAME), reports
// how it ended on the second serial line, and turns the machine off.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	controlPath = "/dev/ttyS1"
	testTimeout = "150s" // less than the host waits
)

func main() {
	control, err := prepare()
	if err != nil {
		fmt.Println("init:", err) // the host sees the machine end, with this on the console
	} else {
		_, _ = fmt.Fprintf(control, "\nexit %d\n", run())
		time.Sleep(time.Second) // the host ends the machine when it has read this
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// prepare mounts, loads and opens the line to the host, which stays open: the last one to close it would
// reset it.
func prepare() (control *os.File, err error) {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"tmpfs", "/tmp"},
		{"tmpfs", "/run"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if control, err = rawControl(); err != nil {
		return nil, fmt.Errorf("%s: %w", controlPath, err)
	}
	list, err := os.ReadFile("/modules")
	if err != nil {
		return nil, err
	}
	for _, path := range strings.Fields(string(list)) {
		if err := load(path); err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
	}
	return control, nil
}

// rawControl opens the control line and makes it carry lines as they are written: no echo, no translation.
func rawControl() (*os.File, error) {
	f, err := os.OpenFile(controlPath, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag |= unix.CS8 | unix.CLOCAL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return f, unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// run runs the test and returns its exit code.
func run() int {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		fmt.Println("init:", err)
		return 1
	}
	name := ""
	for _, word := range strings.Fields(string(line)) {
		if v, ok := strings.CutPrefix(word, "ebb.test="); ok {
			name = v
		}
	}
	c := exec.Command("/qemu.test", "-test.run=^"+name+"$", "-test.v", "-test.timeout="+testTimeout)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "EBB_QEMU_CONTROL=" + controlPath, "HOME=/tmp"}
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		fmt.Println("init:", name, err)
		return max(1, c.ProcessState.ExitCode())
	}
	return 0
}
