package disk_test

import (
	"os"
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
	b.through(in)
	b.check(contract.XFS)
}

// TestNodeRefusedDisassembleKeepsMount: a disk that is in use elsewhere than at its
// mount point is not taken down, and is mounted there again.
func TestNodeRefusedDisassembleKeepsMount(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(10 * mib)
	dev := "/dev/mapper/ebb-" + string(b.disk)
	elsewhere := t.TempDir()
	for what, use := range map[string]func() (end func()){
		"mounted a second time": func() func() {
			run(t, "mount", "-t", "xfs", dev, elsewhere)
			f, err := os.Open(elsewhere)
			require.NoError(t, err)
			return func() {
				require.NoError(t, f.Close())
				run(t, "umount", elsewhere)
			}
		},
		"open": func() func() {
			f, err := os.Open(dev)
			require.NoError(t, err)
			return func() { require.NoError(t, f.Close()) }
		},
	} {
		t.Run(what, func(t *testing.T) {
			end := use()
			refusal(t, b.Disassemble(t.Context(), b.disk), contract.DiskBusy)
			end()
			m, err := b.Measure(t.Context(), b.disk)
			require.NoError(t, err)
			require.Equal(t, b.mount, m.MountPath)
			b.fill(mib)
		})
	}
	b.check(contract.XFS)
}
