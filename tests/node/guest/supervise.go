package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervise runs a kernel in a process group of its own and returns its exit code. When standard input
// ends, because the owner closed it or died, it kills the kernel and everything the kernel started. It
// returns only when none of them is left: it is their reaper.
func supervise(args []string) (int, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("become reaper: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil { // a kernel panic dumps core
		return 0, fmt.Errorf("no core dumps: %w", err)
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGHUP, syscall.SIGTERM)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A panicking kernel signals its whole process group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = unix.Kill(-pid, unix.SIGKILL)
	}()
	ended := make(chan struct{})
	defer close(ended)
	go tick(pid, ended)
	code := 0
	var status unix.WaitStatus
	for {
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			return code, nil
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		}
		if got != pid {
			continue
		}
		if code = status.ExitStatus(); status.Signaled() {
			code = 128 + int(status.Signal())
		}
		_ = unix.Kill(-pid, unix.SIGKILL)
		killChildren()
	}
}

// tick gives the kernel a tick of its clock every second, until it has ended. On a busy host it now and
// then drops one of its own and does not ask for the next: without another, time stands still in the
// guest. One more tick than asked for does no harm.
func tick(pid int, ended <-chan struct{}) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ended:
			return
		case <-every.C:
			if catches(pid, unix.SIGALRM) { // not yet while it starts
				_ = unix.Kill(pid, unix.SIGALRM)
			}
		}
	}
}

// catches says whether a process has a handler for a signal.
func catches(pid int, sig syscall.Signal) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if mask, ok := strings.CutPrefix(line, "SigCgt:"); ok {
			m, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && m&(1<<(sig-1)) != 0
		}
	}
	return false
}

// killChildren ends what has left the kernel's process group.
func killChildren() {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err != nil {
		return
	}
	for _, f := range strings.Fields(string(b)) {
		if p, err := strconv.Atoi(f); err == nil {
			_ = unix.Kill(p, unix.SIGKILL)
		}
	}
}
