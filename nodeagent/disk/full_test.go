package disk_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// within runs f and fails the test when it takes longer than d: what it does
// must not wait for something that only others can end.
func within(t *testing.T, d time.Duration, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(d):
		t.Fatalf("%s hangs", what)
	}
}

// fillInBackground writes n bytes of acknowledged files; the channel closes when
// they are all there.
func (b *bench) fillInBackground(n int64) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.fill(n)
	}()
	return done
}

// TestNodeAbortOfFullMove: the new pool is full and will not grow, so the mirror
// has writes inside it. An abort hands them to the old volume.
func TestNodeAbortOfFullMove(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, 2*gib)
	b.fill(50 * mib)
	in := b.prepare("m-1", 320*mib)
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	events, stopWatch := b.watch()
	defer stopWatch()
	done := b.fillInBackground(500 * mib)
	require.Eventually(t, func() bool {
		m, err := b.Measure(t.Context(), b.disk)
		require.NoError(t, err)
		return m.Move != nil && m.Move.Full
	}, 2*time.Minute, 20*time.Millisecond)
	within(t, 30*time.Second, "the abort", func() {
		m, err := b.AbortMove(t.Context(), in)
		require.NoError(t, err)
		require.Nil(t, m.Move)
	})
	within(t, time.Minute, "the writer", func() { <-done })
	for _, e := range events() {
		t.Log(e.Kind, e.Message)
	}
	b.check(contract.XFS)
}

// TestNodeCommitOfFullMove: a pool has filled when the move is committed. The
// swap waits for the writes inside it, and lets the growth through that releases
// them: it is announced, measured and done meanwhile.
func TestNodeCommitOfFullMove(t *testing.T) {
	b := newBench(t)
	b.create(contract.Ext4, 8*gib, 2*gib)
	b.fill(50 * mib)
	in := b.prepare("m-1", 320*mib)
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	done := b.fillInBackground(500 * mib)
	require.Eventually(t, func() bool {
		m, err := b.Measure(t.Context(), b.disk)
		require.NoError(t, err)
		return m.Move != nil && m.Move.Full
	}, 2*time.Minute, 20*time.Millisecond)
	events, stopWatch := b.watch()
	defer stopWatch()
	committed := make(chan struct{})
	swapping := make(chan struct{})
	b.step = func(s string) error {
		if s == "committed" {
			close(swapping)
		}
		return nil
	}
	go func() {
		defer close(committed)
		_, err := b.CommitMove(t.Context(), in)
		require.NoError(t, err)
	}()
	<-swapping
	require.Eventually(t, func() bool {
		for _, e := range events() {
			if e.Pressure.Generation == 2 {
				return true
			}
		}
		return false
	}, 30*time.Second, 20*time.Millisecond, "nobody says that the new pool must grow")
	within(t, 30*time.Second, "the growth", func() {
		_, err := b.Measure(t.Context(), b.disk)
		require.NoError(t, err)
		b.host.Resize(b.vols[1], 2*gib)
		_, err = b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[1], Bytes: 2 * gib})
		require.NoError(t, err)
	})
	within(t, 30*time.Second, "the commit", func() { <-committed })
	within(t, time.Minute, "the writer", func() { <-done })
	_, err = b.RetireBacking(t.Context(), in)
	require.NoError(t, err)
	require.EqualValues(t, 2, b.generation())
	b.check(contract.Ext4)
}
