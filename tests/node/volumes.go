package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

// umlSlots are the letters of the kernel's 16 disks. Volumes may use all but one, which a growing volume
// needs for a moment.
const (
	umlSlots   = "bcdefghijklmnopa"
	maxVolumes = len(umlSlots) - 1
)

// volumes are the attachments of a UML node.
type volumes struct {
	node *uml
	busy gate // one operation at a time
	list []*attachment
}

// cleanupTimeout limits what must be done after the caller's context has ended.
const cleanupTimeout = 20 * time.Second

// gate is a mutex whose Lock gives up with a context.
type gate chan struct{}

func (g gate) lock(ctx context.Context) error {
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (g gate) unlock() { <-g }

// attachment is a volume that a node has, plugged in or waiting for the next boot.
type attachment struct {
	id, device, path string
	bytes            int64
	fault            Fault

	on      *machine // the boot it is plugged into; nil when in none
	slot    byte     // its disk's letter in that boot
	visible int64    // bytes of the file when it was plugged: a disk never sees its file grow
}

func (a *attachment) wire() *wire.Volume {
	return &wire.Volume{ID: a.id, Disk: "/dev/ubd" + string(a.slot), Bytes: a.bytes, Fault: a.fault.Kind, Delay: a.fault.DelayMS, Blocks: a.fault.Blocks}
}

func (v *volumes) find(id string) (*attachment, error) {
	for _, a := range v.list {
		if a.id == id {
			return a, nil
		}
	}
	return nil, fmt.Errorf("%w: %s to %s", ErrNotAttached, id, v.node.o.ID)
}

// Attach implements Node.
func (u *uml) Attach(ctx context.Context, volumeID, device, path string, sizeBytes int64) error {
	v := &u.volumes
	if err := v.busy.lock(ctx); err != nil {
		return err
	}
	defer v.busy.unlock()
	path, err := volumeFile(volumeID, path, sizeBytes)
	if err != nil {
		return err
	}
	a, err := v.find(volumeID)
	switch {
	case err == nil && a.path != path:
		return fmt.Errorf("node: volume %s is attached to %s from another file", volumeID, u.o.ID)
	case err != nil && len(v.list) >= maxVolumes:
		return fmt.Errorf("%w: %s has %d", ErrNoSlot, u.o.ID, maxVolumes)
	case err != nil:
		a = &attachment{id: volumeID, device: device, path: path, bytes: sizeBytes}
	}
	m, off := u.ready() // else the next boot, or the one under way, plugs it
	if off == nil && a.on != m {
		a.bytes = sizeBytes
		if err := v.plug(ctx, m, a); err != nil && !m.dying() {
			return fmt.Errorf("attach %s to %s: %w", volumeID, u.o.ID, err)
		}
	} else if a.bytes != sizeBytes {
		return v.change(ctx, a, func(a *attachment) { a.bytes = sizeBytes })
	}
	if _, err := v.find(volumeID); err != nil {
		v.list = append(v.list, a)
	}
	u.o.Logger.Info("volume attached", "volume", volumeID, "device", device, "bytes", sizeBytes, "disk", string(a.slot))
	return nil
}

// volumeFile makes sure that the volume's file is there and large enough, and returns its absolute path.
func volumeFile(id, path string, bytes int64) (string, error) {
	if id == "" || strings.ContainsAny(id, " /") {
		return "", fmt.Errorf("node: bad volume id %q", id)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("node: volume %s: %w", id, err)
	}
	defer func() { _ = f.Close() }()
	s, err := f.Stat()
	if err == nil && s.Size() < bytes {
		err = f.Truncate(bytes)
	}
	if err != nil {
		return "", fmt.Errorf("node: volume %s: %w", id, err)
	}
	return path, nil
}

// plug makes an attachment real in a boot.
func (v *volumes) plug(ctx context.Context, m *machine, a *attachment) error {
	if err := v.plugDisk(ctx, m, a); err != nil {
		return err
	}
	if err := m.link.call(ctx, wire.Request{Op: wire.OpAttach, Volume: a.wire()}); err != nil {
		// The answer may have been lost: take away what may be there.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		_ = m.link.call(ctx, wire.Request{Op: wire.OpDetach, Volume: a.wire()})
		return errors.Join(err, v.unplugDisk(ctx, m, a.id, a.slot))
	}
	a.on = m
	return nil
}

// plugDisk gives the attachment's file a disk of the kernel, in a free slot.
func (v *volumes) plugDisk(ctx context.Context, m *machine, a *attachment) error {
	used := ""
	for _, b := range v.list {
		if b.on == m {
			used += string(b.slot)
		}
	}
	for _, slot := range []byte(umlSlots) {
		if strings.IndexByte(used, slot) >= 0 {
			continue
		}
		// The kernel's parser splits paths at commas and colons: give it a name of ours.
		name := filepath.Join(m.runDir, "disk-"+string(slot))
		_ = os.Remove(name)
		if err := os.Symlink(a.path, name); err != nil {
			return err
		}
		s, err := os.Stat(a.path)
		if err != nil {
			return err
		}
		flags := "d" // never look for a copy-on-write header in the volume's bytes
		if !v.node.o.Discard {
			flags += "t"
		}
		err = m.console.do(ctx, "config ubd"+string(slot)+flags+"="+name)
		if err != nil && strings.Contains(err.Error(), errConfigured) { // left by a try that failed
			continue
		}
		if err != nil {
			return err
		}
		a.slot, a.visible = slot, s.Size()
		return nil
	}
	return ErrNoSlot
}

// unplugDisk takes a disk out of the kernel. The kernel lets go of it a moment after its last user did.
func (v *volumes) unplugDisk(ctx context.Context, m *machine, id string, slot byte) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := m.console.do(ctx, "remove ubd"+string(slot))
		if err == nil || !m.alive() {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("unplug %s: %w", id, err)
		}
	}
}

// plugAll plugs every attachment into a fresh boot.
func (v *volumes) plugAll(ctx context.Context, m *machine) error {
	if err := v.busy.lock(ctx); err != nil {
		return err
	}
	defer v.busy.unlock()
	// The first disk is there only because the kernel would take a file "root_fs" for it otherwise.
	if err := m.console.do(ctx, "remove ubda"); err != nil {
		return err
	}
	for _, a := range v.list {
		if a.on == m {
			continue
		}
		if _, err := volumeFile(a.id, a.path, a.bytes); err != nil {
			return err
		}
		if err := v.plug(ctx, m, a); err != nil {
			return fmt.Errorf("attach %s: %w", a.id, err)
		}
	}
	m.plugged.Store(true)
	return nil
}

// Detach implements Node.
func (u *uml) Detach(ctx context.Context, volumeID string) error {
	v := &u.volumes
	if err := v.busy.lock(ctx); err != nil {
		return err
	}
	defer v.busy.unlock()
	a, err := v.find(volumeID)
	if err != nil {
		return err
	}
	if m, err := u.machine(); err == nil && a.on == m {
		if err := m.link.call(ctx, wire.Request{Op: wire.OpDetach, Volume: a.wire()}); err != nil {
			return fmt.Errorf("detach %s from %s: %w", volumeID, u.o.ID, err)
		}
		if err := v.unplugDisk(ctx, m, volumeID, a.slot); err != nil {
			return err
		}
	}
	for i := range v.list {
		if v.list[i] == a {
			v.list = append(v.list[:i], v.list[i+1:]...)
			break
		}
	}
	u.o.Logger.Info("volume detached", "volume", volumeID)
	return nil
}

// Resize implements Node.
func (u *uml) Resize(ctx context.Context, volumeID string, sizeBytes int64) error {
	return u.change(ctx, volumeID, func(a *attachment) { a.bytes = sizeBytes })
}

// SetVolumeFault implements Node.
func (u *uml) SetVolumeFault(ctx context.Context, volumeID string, f Fault) error {
	return u.change(ctx, volumeID, func(a *attachment) { a.fault = f })
}

// change alters an attachment and shows the node the result.
func (u *uml) change(ctx context.Context, id string, edit func(*attachment)) error {
	v := &u.volumes
	if err := v.busy.lock(ctx); err != nil {
		return err
	}
	defer v.busy.unlock()
	a, err := v.find(id)
	if err != nil {
		return err
	}
	return v.change(ctx, a, edit)
}

// change does so while the gate is held.
func (v *volumes) change(ctx context.Context, a *attachment, edit func(*attachment)) error {
	u, id := v.node, a.id
	before := *a
	edit(a)
	if _, err := volumeFile(id, a.path, a.bytes); err != nil {
		*a = before
		return err
	}
	m, err := u.machine()
	if err != nil || a.on != m {
		return nil // the next boot shows it
	}
	moved := a.bytes > a.visible
	if moved { // a second disk over the same file sees all of it
		if err := v.plugDisk(ctx, m, a); err != nil {
			*a = before
			return fmt.Errorf("change volume %s: %w", id, err)
		}
	}
	err = m.link.call(ctx, wire.Request{Op: wire.OpReload, Volume: a.wire()})
	if err != nil {
		now := *a
		*a = before
		err = fmt.Errorf("change volume %s: %w", id, err)
		if moved {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
			defer cancel()
			err = errors.Join(err, v.unplugDisk(ctx, m, id, now.slot))
		}
		return err
	}
	if moved {
		return v.unplugDisk(ctx, m, id, before.slot)
	}
	return nil
}

// Pause implements Node.
func (u *uml) Pause(ctx context.Context) (resume func(), err error) {
	if err := u.volumes.busy.lock(ctx); err != nil {
		return nil, err
	}
	m, off := u.ready()
	if off != nil {
		return sync.OnceFunc(u.volumes.busy.unlock), nil // nothing writes, nor does a boot begin to
	}
	if err := m.console.do(ctx, "stop"); err != nil {
		if m.dying() {
			return sync.OnceFunc(u.volumes.busy.unlock), nil
		}
		u.volumes.busy.unlock()
		return nil, fmt.Errorf("pause %s: %w", u.o.ID, err)
	}
	return sync.OnceFunc(func() {
		defer u.volumes.busy.unlock()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if err := m.console.do(ctx, "go"); err != nil && m.alive() {
			u.o.Logger.Error("node does not go on after a pause", "error", err)
		}
	}), nil
}
