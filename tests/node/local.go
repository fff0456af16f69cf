package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// local is a command of a loop node.
type local struct {
	cmd  *exec.Cmd
	done chan struct{}
	code int
	err  error
}

// Exec implements Node.
func (l *loop) Exec(ctx context.Context, c Command) (int, error) {
	p, err := l.Start(ctx, c)
	if err != nil {
		return -1, err
	}
	code, err := p.Wait()
	if ctx.Err() != nil {
		return code, fmt.Errorf("%s: %w", c.Path, context.Cause(ctx))
	}
	return code, err
}

// Start implements Node.
func (l *loop) Start(ctx context.Context, c Command) (Process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.boot == "" {
		return nil, fmt.Errorf("%w: %s", ErrNotRunning, l.o.ID)
	}
	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env = append(os.Environ(), InsideEnv+"=1", IDEnv+"="+l.o.ID, HostAddressEnv+"="+l.HostAddress(), bootEnv+"="+l.boot)
	cmd.Env = append(append(cmd.Env, l.o.Env...), c.Env...)
	if cmd.Dir = c.Dir; c.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("node %s: start %s: %w", l.o.ID, c.Path, err)
	}
	p := &local{cmd: cmd, done: make(chan struct{})}
	boot := l.boot
	go func() { // ends with the command, which ends with the node or ctx
		defer close(p.done)
		err := cmd.Wait()
		p.code = cmd.ProcessState.ExitCode()
		ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if ok && ws.Signaled() {
			p.code = 128 + int(ws.Signal())
		}
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) && !errors.Is(err, exec.ErrWaitDelay) {
			p.err = fmt.Errorf("%s: %w", c.Path, err)
		}
		if ok && ws.Signaled() && ctx.Err() == nil && !l.is(boot) {
			p.code, p.err = -1, fmt.Errorf("%s: lost the node", c.Path)
		}
	}()
	return p, nil
}

// is tells whether a boot is still the present one.
func (l *loop) is(boot string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.boot == boot
}

// Pid implements Process.
func (p *local) Pid() int { return p.cmd.Process.Pid }

// Done implements Process.
func (p *local) Done() <-chan struct{} { return p.done }

// Wait implements Process.
func (p *local) Wait() (int, error) {
	<-p.done
	return p.code, p.err
}

// Signal implements Process.
func (p *local) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill implements Process.
func (p *local) Kill() error {
	select {
	case <-p.done:
		return os.ErrProcessDone
	default:
		return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}
