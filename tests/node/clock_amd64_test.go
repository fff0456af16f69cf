package node_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/tests/node"
)

// TestClockGoesOn takes the kernel's timer away, as a busy host does now and
// then: the kernel drops a tick that comes while it serves another, and with
// it the next one, which only a tick arms.
func TestClockGoesOn(t *testing.T) {
	if node.Kind() != node.KindUML {
		t.Skip("the host's own clock")
	}
	n := boot(t, "i-clock")
	pid := kernel(t, n)
	_, err := n.Start(t.Context(), node.Command{Path: "sh", Args: []string{"-c", "while :; do :; done"}}) // a tick is always due
	require.NoError(t, err)
	for range 3 {
		require.Eventually(t, func() bool { return disarm(pid) == nil }, 10*time.Second, time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := n.Exec(ctx, node.Command{Path: "sleep", Args: []string{"0.1"}})
		cancel()
		require.NoError(t, err)
	}
}

// kernel is the process that is the node's kernel: the first of those with its
// command line.
func kernel(t *testing.T, n node.Node) int {
	t.Helper()
	pid := 0
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range all {
		c, _ := os.ReadFile(f)
		if bytes.HasPrefix(c, []byte("linux.uml")) && bytes.Contains(c, []byte("uml_dir="+n.Dir()+"/")) {
			if p, _ := strconv.Atoi(filepath.Base(filepath.Dir(f))); pid == 0 || p < pid {
				pid = p
			}
		}
	}
	require.NotZero(t, pid, "the kernel's process")
	return pid
}

// disarm stops the first timer of a process, by a system call in its place.
func disarm(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceAttach(pid); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	defer func() { _ = unix.PtraceDetach(pid) }()
	var was unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &was); err != nil {
		return fmt.Errorf("registers: %w", err)
	}
	at, err := syscallInstruction(pid)
	if err != nil {
		return err
	}
	off := was.Rsp - 4096
	if _, err := unix.PtracePokeData(pid, uintptr(off), make([]byte, 32)); err != nil {
		return fmt.Errorf("poke: %w", err)
	}
	call := was
	call.Rip, call.Rax, call.Orig_rax = at, unix.SYS_TIMER_SETTIME, ^uint64(0)
	call.Rdi, call.Rsi, call.Rdx, call.R10 = 0, 0, off, 0
	if err := unix.PtraceSetRegs(pid, &call); err != nil {
		return err
	}
	if err := unix.PtraceSingleStep(pid); err != nil {
		return err
	}
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return err
	}
	var got unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &got); err != nil {
		return err
	}
	if err := unix.PtraceSetRegs(pid, &was); err != nil {
		return err
	}
	if status.StopSignal() != unix.SIGTRAP || got.Rax != 0 {
		return fmt.Errorf("stopped by %v, timer_settime returned %d", status.StopSignal(), int64(got.Rax))
	}
	return nil
}

// syscallInstruction finds one in the program's text.
func syscallInstruction(pid int) (uint64, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.HasPrefix(f[1], "r-x") && !strings.HasPrefix(f[1], "rwx") {
			continue
		}
		var from, to uint64
		if _, err := fmt.Sscanf(f[0], "%x-%x", &from, &to); err != nil {
			return 0, err
		}
		b := make([]byte, min(to-from, 16<<20))
		k, _ := mem.ReadAt(b, int64(from))
		if i := bytes.Index(b[:k], []byte{0x0f, 0x05}); i >= 0 {
			return from + uint64(i), nil
		}
	}
	return 0, fmt.Errorf("no syscall instruction in process %d", pid)
}
