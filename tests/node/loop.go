package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-storage/ebb/tests/node/internal/ebs"
)

const (
	bootEnv       = "EBB_NODE_BOOT" // marks the processes of one boot of a loop node
	politeTimeout = 10 * time.Second
)

// loop is a node that is the host itself: commands run on it, volumes are loop devices over their files.
// A power cut kills the commands and what they started, makes all I/O of the volumes fail and takes down
// what lies on them. That is weaker than the real thing: the host's page cache and kernel live on, and
// all loop nodes of a host see each other's volumes and share device-mapper's parameters. So one process
// at a time has them: see claim.
type loop struct {
	o  Options
	mu sync.Mutex // guards the rest, and is held by every operation but those of a running command

	claimed bool
	boot    string // marks this boot's processes; "" when off
	list    []*loopVolume
}

// loopVolume is an attachment of a loop node.
type loopVolume struct {
	ebs.Volume
	path string
	on   bool
}

func newLoop(o Options) *loop { return &loop{o: o} }

func (l *loop) ID() string          { return l.o.ID }
func (l *loop) Dir() string         { return l.o.Dir }
func (l *loop) Console() string     { return filepath.Join(l.o.Dir, "console.log") }
func (l *loop) HostAddress() string { return "127.0.0.1" }

// Running implements Node.
func (l *loop) Running() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.boot != ""
}

// Boot implements Node.
func (l *loop) Boot(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.boot != "" {
		return fmt.Errorf("node %s: runs already", l.o.ID)
	}
	if !l.claimed {
		if err := claim(ctx, claimPath); err != nil {
			return fmt.Errorf("boot %s: %w", l.o.ID, err)
		}
		l.claimed = true
	}
	f, err := os.OpenFile(l.Console(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("boot %s: %w", l.o.ID, err)
	}
	_, _ = fmt.Fprintf(f, "=== %s boots %s (this host; it has no console)\n", time.Now().UTC().Format(time.RFC3339), l.o.ID)
	if err := f.Close(); err != nil {
		return fmt.Errorf("boot %s: %w", l.o.ID, err)
	}
	l.boot = rand.Text()
	for _, v := range l.list {
		if err := l.plug(ctx, v); err != nil {
			err = fmt.Errorf("boot %s: attach %s: %w", l.o.ID, v.ID, err)
			return errors.Join(err, l.stop(context.WithoutCancel(ctx), true))
		}
	}
	return nil
}

// PowerCut implements Node.
func (l *loop) PowerCut() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return l.stop(ctx, true)
}

// Shutdown implements Node.
func (l *loop) Shutdown(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.boot == "" {
		return nil
	}
	l.signal(syscall.SIGTERM)
	for end := time.Now().Add(politeTimeout); len(l.processes()) > 0 && time.Now().Before(end) && ctx.Err() == nil; {
		time.Sleep(20 * time.Millisecond)
	}
	err := l.stop(ctx, false)
	if err == nil {
		return nil
	}
	cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(fmt.Errorf("shut down %s: %w (power was cut)", l.o.ID, err), l.stop(cut, true))
}

// stop ends the node's processes and takes its volumes down.
func (l *loop) stop(ctx context.Context, force bool) error {
	if l.boot == "" {
		return nil
	}
	var errs []error
	if force { // nothing more reaches the volumes
		for _, v := range l.list {
			if dead := v.Volume; v.on {
				dead.Fault = FaultError
				errs = append(errs, ebs.Reload(ctx, dead))
			}
		}
	}
	for end := time.Now().Add(killTimeout); len(l.processes()) > 0; time.Sleep(20 * time.Millisecond) {
		l.signal(syscall.SIGKILL)
		if time.Now().After(end) {
			errs = append(errs, fmt.Errorf("node %s: processes %v outlive SIGKILL", l.o.ID, l.processes()))
			break
		}
	}
	for _, v := range l.list {
		if !v.on {
			continue
		}
		err := ebs.Demolish(ctx, v.Volume, force)
		if err == nil {
			err = ebs.LoopDetach(ctx, v.Disk)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take down %s: %w", v.ID, err))
			continue
		}
		v.on = false
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	l.boot = ""
	return nil
}

// processes lists the processes of this boot: those that have its mark in their environment.
func (l *loop) processes() []int {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(append([]byte{0}, b...), []byte("\x00"+bootEnv+"="+l.boot)) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(f, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func (l *loop) signal(sig syscall.Signal) {
	for _, pid := range l.processes() {
		_ = syscall.Kill(pid, sig)
	}
}

// Attach implements Node.
func (l *loop) Attach(ctx context.Context, volumeID, device, path string, sizeBytes int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	path, err := volumeFile(volumeID, path, sizeBytes)
	if err != nil {
		return err
	}
	v, err := l.find(volumeID)
	if err == nil {
		if v.path != path {
			return fmt.Errorf("node: volume %s is attached to %s from another file", volumeID, l.o.ID)
		}
		if v.Bytes == sizeBytes {
			return nil
		}
		return l.change(ctx, v, func(v *ebs.Volume) { v.Bytes = sizeBytes })
	}
	if len(l.list) >= maxVolumes {
		return fmt.Errorf("%w: %s has %d", ErrNoSlot, l.o.ID, maxVolumes)
	}
	v = &loopVolume{Volume: ebs.Volume{ID: volumeID, Bytes: sizeBytes}, path: path}
	if l.boot != "" {
		if err := l.plug(ctx, v); err != nil {
			return fmt.Errorf("attach %s to %s: %w", volumeID, l.o.ID, err)
		}
	}
	l.list = append(l.list, v)
	l.o.Logger.Info("volume attached", "volume", volumeID, "device", device, "bytes", sizeBytes, "disk", v.Disk)
	return nil
}

func (l *loop) plug(ctx context.Context, v *loopVolume) error {
	if _, err := volumeFile(v.ID, v.path, v.Bytes); err != nil {
		return err
	}
	disk, err := ebs.LoopAttach(ctx, v.path)
	if err != nil {
		return err
	}
	v.Disk = disk
	if err := ebs.Create(ctx, v.Volume); err != nil {
		return errors.Join(err, ebs.LoopDetach(ctx, disk))
	}
	v.on = true
	return nil
}

func (l *loop) find(id string) (*loopVolume, error) {
	for _, v := range l.list {
		if v.ID == id {
			return v, nil
		}
	}
	return nil, fmt.Errorf("%w: %s to %s", ErrNotAttached, id, l.o.ID)
}

// Detach implements Node.
func (l *loop) Detach(ctx context.Context, volumeID string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.find(volumeID)
	if err != nil {
		return err
	}
	if v.on {
		if err := ebs.Remove(ctx, volumeID); err != nil {
			return fmt.Errorf("detach %s from %s: %w", volumeID, l.o.ID, err)
		}
		if err := ebs.LoopDetach(ctx, v.Disk); err != nil {
			return err
		}
	}
	for i := range l.list {
		if l.list[i] == v {
			l.list = append(l.list[:i], l.list[i+1:]...)
			break
		}
	}
	return nil
}

// Resize implements Node.
func (l *loop) Resize(ctx context.Context, volumeID string, sizeBytes int64) error {
	return l.edit(ctx, volumeID, func(v *ebs.Volume) { v.Bytes = sizeBytes })
}

// SetVolumeFault implements Node.
func (l *loop) SetVolumeFault(ctx context.Context, volumeID string, f Fault) error {
	return l.edit(ctx, volumeID, func(v *ebs.Volume) { v.Fault, v.DelayMS, v.Blocks = f.Kind, f.DelayMS, f.Blocks })
}

func (l *loop) edit(ctx context.Context, id string, edit func(*ebs.Volume)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	v, err := l.find(id)
	if err != nil {
		return err
	}
	return l.change(ctx, v, edit)
}

// change alters a volume and shows the host the result.
func (l *loop) change(ctx context.Context, v *loopVolume, edit func(*ebs.Volume)) error {
	next := v.Volume
	edit(&next)
	if _, err := volumeFile(v.ID, v.path, next.Bytes); err != nil {
		return err
	}
	if v.on {
		if err := ebs.LoopRefresh(ctx, v.Disk); err != nil {
			return err
		}
		if err := ebs.Reload(ctx, next); err != nil {
			return fmt.Errorf("change volume %s: %w", v.ID, err)
		}
	}
	v.Volume = next
	return nil
}

// Pause implements Node.
func (l *loop) Pause(ctx context.Context) (resume func(), err error) {
	l.mu.Lock()
	var held []string
	resume = sync.OnceFunc(func() {
		defer l.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		for _, id := range held {
			if err := ebs.Resume(ctx, id); err != nil {
				l.o.Logger.Error("volume does not go on after a pause", "volume", id, "error", err)
			}
		}
	})
	for _, v := range l.list {
		if !v.on {
			continue
		}
		held = append(held, v.ID)
		if err := ebs.Suspend(ctx, v.ID); err != nil {
			resume()
			return nil, fmt.Errorf("pause %s: %w", l.o.ID, err)
		}
	}
	return resume, nil
}
