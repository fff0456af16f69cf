package disk

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// What waits for a disk ends when its context does: nobody is there any more who
// wants it done.
func TestWaitingForADiskEnds(t *testing.T) {
	const d = contract.DiskID("d-0123456789abcdef0")
	calls := map[string]func(context.Context, *Manager) error{
		"Measure":     func(ctx context.Context, m *Manager) error { _, err := m.Measure(ctx, d); return err },
		"History":     func(ctx context.Context, m *Manager) error { _, err := m.History(ctx, d); return err },
		"Disassemble": func(ctx context.Context, m *Manager) error { return m.Disassemble(ctx, d) },
		"Expand": func(ctx context.Context, m *Manager) error {
			_, err := m.Expand(ctx, contract.ExpandDiskInput{Disk: d})
			return err
		},
		"CommitMove": func(ctx context.Context, m *Manager) error {
			_, err := m.CommitMove(ctx, contract.MoveInput{Disk: d})
			return err
		},
	}
	for name, call := range calls {
		for why, hold := range map[string]func(*handle) (release func()){
			"another holds it": func(h *handle) func() { h.mu.Lock(); return h.mu.Unlock },
			"it is swapping":   func(h *handle) func() { return lend(h, h.swap) },
			"it is mounted":    func(h *handle) func() { return lend(h, h.aside) },
		} {
			if name == "History" && why != "another holds it" {
				continue // it does not wait for that
			}
			t.Run(name+" while "+why, func(t *testing.T) {
				m := &Manager{Options: Options{DM: &dm.Client{}}, disks: map[contract.DiskID]*handle{}}
				h := m.handle(d)
				defer hold(h)()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- call(ctx, m) }()
				select {
				case err := <-done:
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.ErrorContains(t, err, string(d))
				case <-time.After(5 * time.Second):
					t.Fatal("it waits for ever")
				}
			})
		}
	}
}

// lend has an operation lend a disk's lock until end is called.
func lend(h *handle, lend func(func() error) error) (end func()) {
	release := make(chan struct{})
	ended := make(chan struct{})
	h.mu.Lock()
	go func() {
		defer close(ended)
		defer h.mu.Unlock()
		_ = lend(func() error { <-release; return nil })
	}()
	return func() { close(release); <-ended }
}

// A swap that drops a failed leg begins while the filesystem is unmounted, and ends
// after that has: the lock is lent until then.
func TestSwapBesideAnUnmount(t *testing.T) {
	h := (&Manager{disks: map[contract.DiskID]*handle{}}).handle("d-0123456789abcdef0")
	unmounted, swapped := make(chan struct{}), make(chan struct{})
	after := make(chan bool)
	h.mu.Lock()
	go func() {
		defer h.mu.Unlock()
		_ = h.aside(func() error { <-unmounted; return nil })
		after <- h.lent()
	}()
	h.mu.Lock() // given up by the other
	require.True(t, h.mounting)
	close(unmounted)
	require.NoError(t, h.swap(func() error {
		select {
		case <-after:
			t.Error("the unmount went on during the swap")
		case <-time.After(50 * time.Millisecond):
		}
		close(swapped)
		return nil
	}))
	<-swapped
	h.mu.Unlock()
	require.False(t, <-after)
}
