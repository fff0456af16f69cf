package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

// outputGrace is how long output of a command's own children is waited for after its end.
const outputGrace = time.Second

// frames serializes writes of several streams onto one connection.
type frames struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frames) send(kind byte, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return wire.Write(f.w, kind, payload)
}

func (f *frames) sendJSON(kind byte, v any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = wire.WriteJSON(f.w, kind, v) // a lost host is seen by the reader
}

// stream is one output of a command.
type stream struct {
	to   *frames
	kind byte
}

func (s stream) Write(p []byte) (int, error) {
	for n := 0; n < len(p); n += wire.Chunk {
		if err := s.to.send(s.kind, p[n:min(len(p), n+wire.Chunk)]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// run executes one command over one connection. A command whose host is gone is killed with its process
// group: nobody could see how it ends.
func (s *server) run(conn io.Writer, r *bufio.Reader, e wire.Exec) {
	out := &frames{w: conn}
	if len(e.Args) == 0 {
		out.sendJSON(wire.Exited, wire.Exit{Code: 127, Error: "no command"})
		return
	}
	cmd := exec.Command(e.Args[0], e.Args[1:]...)
	cmd.Env, cmd.Dir = append(cmd.Environ(), e.Env...), e.Dir
	cmd.Stdout, cmd.Stderr = stream{out, wire.Stdout}, stream{out, wire.Stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputGrace
	var stdin io.WriteCloser
	if e.Stdin {
		var err error
		if stdin, err = cmd.StdinPipe(); err != nil {
			out.sendJSON(wire.Exited, wire.Exit{Code: 126, Error: err.Error()})
			return
		}
	}
	if err := cmd.Start(); err != nil {
		code := 126
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, syscall.ENOENT) {
			code = 127
		}
		out.sendJSON(wire.Exited, wire.Exit{Code: code, Error: err.Error()})
		return
	}
	out.sendJSON(wire.Started, wire.Process{PID: cmd.Process.Pid})
	pid := cmd.Process.Pid
	s.commands.Store(pid, struct{}{})
	go s.listen(r, pid, stdin) // ends when the connection does
	err := cmd.Wait()
	s.commands.Delete(pid)
	exit := wire.Exit{Code: cmd.ProcessState.ExitCode()}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		exit.Code = 128 + int(ws.Signal())
	}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) && !errors.Is(err, exec.ErrWaitDelay) {
		exit.Error = err.Error()
	}
	out.sendJSON(wire.Exited, exit)
}

// listen feeds a command from the host.
func (s *server) listen(r *bufio.Reader, pid int, stdin io.WriteCloser) {
	for {
		kind, b, err := wire.Read(r)
		if err != nil {
			if _, ok := s.commands.Load(pid); ok { // what a command has left running is not ours to kill
				_ = unix.Kill(-pid, unix.SIGKILL)
			}
			return
		}
		switch kind {
		case wire.Stdin:
			if stdin != nil {
				_, _ = stdin.Write(b) // a command may close its input early
			}
		case wire.StdinEOF:
			if stdin != nil {
				_ = stdin.Close()
			}
		}
	}
}

// signal sends a signal to a command that runs.
func (s *server) signal(w wire.Signal) error {
	if _, ok := s.commands.Load(w.PID); !ok {
		return fmt.Errorf("command %d has ended", w.PID)
	}
	target := w.PID
	if w.Group {
		target = -w.PID
	}
	return unix.Kill(target, unix.Signal(w.Number))
}
