package disk

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
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
			"it is swapping": func(h *handle) func() {
				end := make(chan struct{})
				ended := make(chan struct{})
				h.mu.Lock()
				go func() {
					defer close(ended)
					defer h.mu.Unlock()
					_ = h.swap(func() error { <-end; return nil })
				}()
				return func() { close(end); <-ended }
			},
		} {
			if name == "History" && why == "it is swapping" {
				continue // it does not wait for that
			}
			t.Run(name+" while "+why, func(t *testing.T) {
				m := &Manager{disks: map[contract.DiskID]*handle{}}
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
