package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// others lists the processes of user space but PID 1 and this one.
func others() []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		if b, err := os.ReadFile(d + "/cmdline"); err == nil && len(b) > 0 { // kernel threads and zombies have none
			pids = append(pids, pid)
		}
	}
	return pids
}

func signalOthers(sig unix.Signal) {
	for _, pid := range others() {
		_ = unix.Kill(pid, sig)
	}
}

// unmountAll takes down every filesystem that lies on a block device, the last mounted first.
func unmountAll() {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	var dirs []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 1 && strings.HasPrefix(fields[0], "/dev/") {
			dirs = append(dirs, fields[1])
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := unix.Unmount(dirs[i], 0); err != nil {
			fmt.Printf("guest: unmount %s: %v\n", dirs[i], err)
		}
	}
}
