package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

// killGrace is how long a killed command may take to be reported before its connection is dropped.
const killGrace = 20 * time.Second

// remote is a command that runs in a guest.
type remote struct {
	link *link
	line *line
	pid  int
	c    Command

	done chan struct{}
	code int
	err  error
}

// start begins c in the guest. Its goroutines end with the command, with the link or with ctx, but for
// one that is blocked in c.Stdin.
func (k *link) start(ctx context.Context, c Command) (*remote, error) {
	n, err := k.ask(ctx, wire.Request{Op: wire.OpExec, Exec: &wire.Exec{
		Args: append([]string{c.Path}, c.Args...), Env: c.Env, Dir: c.Dir, Stdin: c.Stdin != nil,
	}})
	if err != nil {
		return nil, err
	}
	kind, b, err := wire.Read(n.r)
	if err != nil {
		k.drop(n)
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	if kind == wire.Exited { // it never ran
		k.drop(n)
		var x wire.Exit
		if err := wire.Decode(b, &x); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("start %s: %s", c.Path, x.Error)
	}
	var p wire.Process
	if err := wire.Decode(b, &p); err != nil {
		k.drop(n)
		return nil, err
	}
	r := &remote{link: k, line: n, pid: p.PID, c: c, done: make(chan struct{})}
	go r.receive()
	go r.limit(ctx)
	if c.Stdin != nil {
		go r.feed()
	}
	return r, nil
}

// receive copies the command's output until it has ended.
func (r *remote) receive() {
	defer close(r.done)
	defer r.link.drop(r.line)
	r.code = -1
	for {
		kind, b, err := wire.Read(r.line.r)
		if err != nil {
			r.err = fmt.Errorf("%s: lost the node: %w", r.c.Path, err)
			return
		}
		switch kind {
		case wire.Stdout:
			write(r.c.Stdout, b)
		case wire.Stderr:
			write(r.c.Stderr, b)
		case wire.Exited:
			var x wire.Exit
			if r.err = wire.Decode(b, &x); r.err == nil {
				r.code = x.Code
				if x.Error != "" {
					r.err = fmt.Errorf("%s: %s", r.c.Path, x.Error)
				}
			}
			return
		}
	}
}

// write drops what the writer does not take: a command does not fail because nobody listens.
func write(w io.Writer, b []byte) {
	if w != nil {
		_, _ = w.Write(b)
	}
}

// limit kills the command when ctx ends.
func (r *remote) limit(ctx context.Context) {
	select {
	case <-r.done:
		return
	case <-ctx.Done():
	}
	_ = r.Kill()
	select {
	case <-r.done:
	case <-time.After(killGrace):
		r.link.drop(r.line)
	}
}

func (r *remote) feed() {
	buf := make([]byte, wire.Chunk)
	for {
		n, err := r.c.Stdin.Read(buf)
		if n > 0 && wire.Write(r.line, wire.Stdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = wire.Write(r.line, wire.StdinEOF, nil)
			return
		}
	}
}

// Pid implements Process.
func (r *remote) Pid() int { return r.pid }

// Done implements Process.
func (r *remote) Done() <-chan struct{} { return r.done }

// Wait implements Process.
func (r *remote) Wait() (int, error) {
	<-r.done
	return r.code, r.err
}

// Signal implements Process.
func (r *remote) Signal(sig syscall.Signal) error { return r.signal(sig, false) }

// Kill implements Process.
func (r *remote) Kill() error { return r.signal(syscall.SIGKILL, true) }

func (r *remote) signal(sig syscall.Signal, group bool) error {
	select {
	case <-r.done:
		return errors.New("node: the command has ended")
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), killGrace)
	defer cancel()
	req := wire.Request{Op: wire.OpSignal, Signal: &wire.Signal{PID: r.pid, Number: int(sig), Group: group}}
	if err := r.link.call(ctx, req); err != nil {
		return fmt.Errorf("signal %s: %w", r.c.Path, err)
	}
	return nil
}
