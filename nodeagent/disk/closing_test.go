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

// TestNodeTakenDownStaysDown: what was asked of a disk while it was taken down does not
// bring it up again. It is refused in a way that has the operation assemble the disk
// where it is by then.
func TestNodeTakenDownStaysDown(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 20*mib)
	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	for what, do := range map[string]func() error{
		"copy":   func() error { _, err := b.Evacuate(t.Context(), in, silent); return err },
		"verify": func() error { _, err := b.VerifyMove(t.Context(), in, silent); return err },
		"commit": func() error { _, err := b.CommitMove(t.Context(), in); return err },
		"abort":  func() error { _, err := b.AbortMove(t.Context(), in); return err },
		"grow": func() error {
			_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: gib})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			refusal(t, do(), contract.DiskIncomplete)
			require.Empty(t, b.devices())
		})
	}
	_, err := b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk})
	require.NoError(t, err)
	_, err = b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	b.commit(in)
	b.check(contract.XFS)
}
