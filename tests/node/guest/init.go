package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

const stage = "/run/ebb-share"

// initialize is PID 1: it prepares the guest, starts the server, starts it again should it end, and reaps
// every orphan. The server is another process so that it can wait for its own children.
func initialize() error {
	start := time.Now()
	config, err := readConfig()
	if err == nil {
		err = prepare(config)
	}
	if err != nil {
		fmt.Println("guest: cannot start:", err)
		return powerOff() // seen by the host as an early exit, with this line on the console
	}
	fmt.Printf("guest: %s ready in %s\n", config.NodeID, time.Since(start).Round(time.Millisecond))
	for {
		server := exec.Command("/proc/self/exe", "serve")
		server.Stdout, server.Stderr = os.Stdout, os.Stderr
		server.Env = append(environment(config), wire.ConfigEnv+"="+os.Getenv(wire.ConfigEnv))
		if err := server.Start(); err != nil {
			return fmt.Errorf("start server: %w", err)
		}
		reapUntil(server.Process.Pid)
		fmt.Println("guest: server ended, starting it again")
		time.Sleep(time.Second)
	}
}

func reapUntil(pid int) {
	var status unix.WaitStatus
	for {
		got, err := unix.Wait4(-1, &status, 0, nil)
		if got == pid || errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

func readConfig() (wire.Config, error) {
	var c wire.Config
	b, err := os.ReadFile(os.Getenv(wire.ConfigEnv))
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	return c, json.Unmarshal(b, &c)
}

func environment(c wire.Config) []string {
	return append([]string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"DM_DISABLE_UDEV=1", // there is no udev: dmsetup makes the nodes itself
		"EBB_IN_NODE=1", "EBB_NODE_ID=" + c.NodeID, "EBB_HOST_ADDRESS=" + c.HostAddress,
	}, c.Env...)
}

// prepare makes a usable Linux out of a kernel and the host's root filesystem.
func prepare(c wire.Config) error {
	mounts := []struct{ kind, dir, data string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"tmpfs", "/run", "mode=755"},
		{"devpts", "/dev/pts", "ptmxmode=666"},
		{"tmpfs", "/dev/shm", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		err := unix.Mount(m.kind, m.dir, m.kind, 0, m.data)
		if err != nil && !errors.Is(err, unix.EBUSY) { // the kernel may have mounted /dev
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	for link, target := range map[string]string{"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2"} {
		_ = os.Symlink(target, link)
	}
	if err := ownDirectories(c); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.NodeID)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 65536, Max: 1 << 20})
	if err := loadModules(c.Modules); err != nil {
		return err
	}
	if err := controlNode(); err != nil {
		return err
	}
	return configureNetwork()
}

// ownDirectories covers directories of the host by empty ones that end with the guest, but for those that
// both sides share.
func ownDirectories(c wire.Config) error {
	for i, dir := range c.Share {
		at := filepath.Join(stage, fmt.Sprint(i))
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(dir, at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("share %s: %w", dir, err)
		}
	}
	for _, dir := range c.Tmpfs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=1777"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	for i, dir := range c.Share {
		at := filepath.Join(stage, fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(at, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("share %s: %w", dir, err)
		}
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return nil
}

// loadModules loads modules by name, each after those it depends on. One that this kernel does not have
// as a module is passed over: it may be built in.
func loadModules(names []string) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	var base string
	deps := map[string][]string{} // module name to files, its own first
	for _, root := range []string{"/usr/lib/uml/modules", "/lib/modules"} {
		base = filepath.Join(root, unix.ByteSliceToString(u.Release[:]))
		f, err := os.Open(filepath.Join(base, "modules.dep"))
		if err != nil {
			continue
		}
		s := bufio.NewScanner(f)
		for s.Scan() {
			file, rest, _ := strings.Cut(s.Text(), ":")
			deps[strings.TrimSuffix(filepath.Base(file), ".ko")] = append([]string{file}, strings.Fields(rest)...)
		}
		_ = f.Close()
		if err := s.Err(); err != nil {
			return err
		}
		break
	}
	for _, name := range names {
		files := deps[name]
		for i := len(files) - 1; i >= 0; i-- { // modules.dep lists the deepest dependency last
			f, err := os.Open(filepath.Join(base, files[i]))
			if err != nil {
				return err
			}
			err = unix.FinitModule(int(f.Fd()), "", 0)
			_ = f.Close()
			if err != nil && !errors.Is(err, syscall.EEXIST) {
				return fmt.Errorf("load %s: %w", files[i], err)
			}
		}
	}
	return nil
}

// controlNode makes /dev/mapper/control when the kernel's own /dev lacks it.
func controlNode() error {
	const path = "/dev/mapper/control"
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	b, err := os.ReadFile("/proc/misc")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		var minor uint32
		var name string
		if _, err := fmt.Sscan(line, &minor, &name); err == nil && name == "device-mapper" {
			if err := os.MkdirAll("/dev/mapper", 0o755); err != nil {
				return err
			}
			return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(10, minor)))
		}
	}
	return errors.New("this kernel has no device-mapper")
}

// powerOff stops the machine at once.
func powerOff() error {
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
