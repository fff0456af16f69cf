package disk_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TestNodeTrimAndDisassemble: a trim of the agent's own does not make taking the
// disk down fail, nor bring the disk up again that was taken down meanwhile, and
// what a policy wanted of a disk leaves with it.
func TestNodeTrimAndDisassemble(t *testing.T) {
	for _, step := range []string{"reclaim", "trim-map", "trim-span"} {
		t.Run(step, func(t *testing.T) {
			b := newBench(t)
			b.create(contract.XFS, 2*gib, 512*mib)
			b.fill(50 * mib)
			b.Guide(b.disk, contract.Guide{CeilingGiB: 1})
			down := make(chan error, 1)
			var once sync.Once
			b.step = func(s string) error {
				if s == step {
					once.Do(func() {
						go func() { down <- b.Disassemble(t.Context(), b.disk) }()
						// It ends now, or waits for the trim.
						select {
						case err := <-down:
							down <- err
						case <-time.After(500 * time.Millisecond):
						}
					})
				}
				return nil
			}
			_, _ = b.Reclaim(t.Context(), b.disk)
			within(t, 20*time.Second, "taking it down", func() { require.NoError(t, <-down) })
			b.step = nil
			require.Empty(t, b.devices())
			require.False(t, b.Guided(b.disk))
			b.nextAgent()
			b.check(contract.XFS)
		})
	}
}
