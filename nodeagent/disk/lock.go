package disk

import (
	"context"
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
)

// mutex is a lock whose wait a context can end. Those who wait get it in turn.
type mutex chan struct{}

func newMutex() mutex { return make(mutex, 1) }

// Lock implements sync.Locker.
func (m mutex) Lock() { m <- struct{}{} }

// Unlock implements sync.Locker.
func (m mutex) Unlock() {
	select {
	case <-m:
	default:
		panic("unlock of an unlocked disk")
	}
}

// TryLock locks if nobody has it locked.
func (m mutex) TryLock() bool {
	select {
	case m <- struct{}{}:
		return true
	default:
		return false
	}
}

func (m mutex) lock(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case m <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lock takes a disk's lock, when it is not lent (see swap and aside). The caller
// unlocks the handle. What a dead agent left of a disk is brought into order first,
// which waits for its volumes to answer.
func (m *Manager) lock(ctx context.Context, d contract.DiskID) (*handle, error) {
	h, err := m.lockAny(ctx, d)
	if err != nil {
		return nil, err
	}
	if h.untidy.Load() {
		h.mu.Unlock()
		return nil, fmt.Errorf("disk %s: what an earlier agent left is not in order yet: a volume of it: %w", d, errMute)
	}
	return h, nil
}

// lockAny is lock whatever an earlier agent left.
func (m *Manager) lockAny(ctx context.Context, d contract.DiskID) (*handle, error) {
	h, err := m.lockLive(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := h.swapped(ctx, d); err != nil {
		h.mu.Unlock()
		return nil, err
	}
	return h, nil
}

// lockLive takes a disk's lock even when it is lent. The holder must then take the
// handle's view as it is, and change nothing that the operation which lent it relies
// on but what the view's backings consist of.
func (m *Manager) lockLive(ctx context.Context, d contract.DiskID) (*handle, error) {
	h := m.handle(d)
	if err := h.mu.lock(ctx); err != nil {
		return nil, busy(d, err)
	}
	return h, nil
}

// lockToGrow is lockLive for a growth: a trim that looks at the pool's map under
// the lock gives up.
func (m *Manager) lockToGrow(ctx context.Context, d contract.DiskID) (*handle, error) {
	h := m.handle(d)
	h.growing.Add(1)
	defer h.growing.Add(-1)
	return m.lockLive(ctx, d)
}

// swap runs f, which swaps the top device's table, without the lock.
func (h *handle) swap(f func() error) error {
	h.swapping = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.swapping = false
		h.over.Broadcast()
	}()
	return f()
}

// aside runs f, which mounts, unmounts or grows the filesystem, without the lock.
// What f writes may wait for a full pool to grow, as a swap may, or be held by a
// mirror whose new leg has failed: other than during a swap such a leg is dropped
// meanwhile, so the handle's view may be another afterwards.
func (h *handle) aside(f func() error) error {
	h.mounting = true
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		for h.swapping { // a failed leg is being dropped
			h.over.Wait()
		}
		h.mounting = false
		h.over.Broadcast()
	}()
	return f()
}

// lent tells that an operation which changes the disk has given the lock up for a
// while. The caller holds it.
func (h *handle) lent() bool { return h.swapping || h.mounting }

// swapped waits until the lock is not lent. The caller holds it, and holds it again
// when this returns.
func (h *handle) swapped(ctx context.Context, d contract.DiskID) error {
	if !h.lent() {
		return nil
	}
	stop := context.AfterFunc(ctx, func() {
		h.mu.Lock() // so that none is between its look at ctx and its wait
		defer h.mu.Unlock()
		h.over.Broadcast()
	})
	defer stop()
	for h.lent() {
		if err := ctx.Err(); err != nil {
			return busy(d, err)
		}
		h.over.Wait()
	}
	return nil
}

func busy(d contract.DiskID, err error) error {
	return fmt.Errorf("disk %s: waiting for another operation on it: %w", d, err)
}
