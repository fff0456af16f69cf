package disk_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
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
	in, done := b.fullMove(contract.XFS)
	events, stopWatch := b.watch()
	defer stopWatch()
	require.Eventually(t, func() bool {
		return slices.ContainsFunc(events(), func(e disk.Event) bool { return e.Kind == disk.EventFull && e.Pressure.Generation == 2 })
	}, 30*time.Second, 20*time.Millisecond, "nobody said that the new pool was full")
	within(t, 30*time.Second, "the abort", func() {
		m, err := b.AbortMove(t.Context(), in)
		require.NoError(t, err)
		require.Nil(t, m.Move)
	})
	within(t, time.Minute, "the writer", func() { <-done })
	b.check(contract.XFS)
}

// TestNodeCommitOfFullMove: a pool has filled when the move is committed. The
// swap waits for the writes inside it, and lets the growth through that releases
// them: it is announced, measured and done meanwhile.
func TestNodeCommitOfFullMove(t *testing.T) {
	b := newBench(t)
	in, done := b.fullMove(contract.Ext4)
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
	var commitErr error
	go func() {
		defer close(committed)
		_, commitErr = b.CommitMove(t.Context(), in)
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
	require.NoError(t, commitErr)
	within(t, time.Minute, "the writer", func() { <-done })
	_, err := b.RetireBacking(t.Context(), in)
	require.NoError(t, err)
	require.EqualValues(t, 2, b.generation())
	b.check(contract.Ext4)
}

// fullMove is a move whose copy is done and whose new pool is full, with a writer
// waiting inside it.
func (b *bench) fullMove(fs contract.Filesystem) (contract.MoveInput, <-chan struct{}) {
	b.create(fs, 8*gib, 2*gib)
	b.fill(50 * mib)
	in := b.prepare("m-1", 320*mib)
	_, err := b.Evacuate(b.t.Context(), in, silent)
	require.NoError(b.t, err)
	done := b.fillInBackground(500 * mib)
	require.Eventually(b.t, func() bool {
		m, err := b.Measure(b.t.Context(), b.disk)
		require.NoError(b.t, err)
		return m.Move != nil && m.Move.Full
	}, 2*time.Minute, 20*time.Millisecond)
	return in, done
}

// TestNodeAgentDiesBesideFullMove: the agent dies between an abort's header and its
// swap, or between a commit's, while the new pool is full. The next agent starts:
// it lets the old volume have the writes, or waits for the growth without keeping
// anything else waiting.
func TestNodeAgentDiesBesideFullMove(t *testing.T) {
	t.Run("abort", func(t *testing.T) {
		b := newBench(t)
		in, done := b.fullMove(contract.XFS)
		b.die("abort-header", func() error {
			_, err := b.AbortMove(t.Context(), in)
			return err
		})
		b.restart()
		within(t, time.Minute, "the next agent's start", func() {
			up, err := b.Reconcile(t.Context())
			require.NoError(t, err)
			require.Contains(t, up, b.disk)
		})
		within(t, time.Minute, "the writer", func() { <-done })
		b.check(contract.XFS)
	})
	t.Run("commit", func(t *testing.T) {
		b := newBench(t)
		in, done := b.fullMove(contract.Ext4)
		b.die("committed", func() error {
			_, err := b.CommitMove(t.Context(), in)
			return err
		})
		b.restart()
		within(t, time.Minute, "the next agent's start", func() {
			_, err := b.Reconcile(t.Context())
			require.NoError(t, err)
		})
		within(t, 30*time.Second, "the growth", func() {
			b.host.Resize(b.vols[1], 2*gib)
			_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[1], Bytes: 2 * gib})
			require.NoError(t, err)
		})
		within(t, time.Minute, "the writer", func() { <-done })
		b.commit(in)
		require.EqualValues(t, 2, b.generation())
		b.check(contract.Ext4)
	})
}

// TestNodePausedCopyHoldsNoWrites: a copy is paused under a writer. The region
// under copy holds its writes for about a second at most, and an abort does not
// wait for the pause to end.
func TestNodePausedCopyHoldsNoWrites(t *testing.T) {
	b := newBench(t).alone()
	b.create(contract.XFS, 8*gib, gib)
	b.fill(300 * mib)
	in := b.prepare("m-1", gib)
	require.NoError(t, b.Throttle(t.Context(), contract.ThrottleMoveInput{Disk: b.disk, Move: in.Move, Paused: true}))
	stop := b.writer(5 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	_, err := b.Evacuate(ctx, in, silent)
	require.ErrorIs(t, err, context.DeadlineExceeded, "it is paused")
	m, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	t.Logf("%d of %d regions in sync after 15 s", m.Move.InSync, m.Move.Regions)
	within(t, 10*time.Second, "the abort", func() {
		_, err := b.AbortMove(t.Context(), in)
		require.NoError(t, err)
	})
	s := stop()
	t.Logf("writer: %+v", s)
	require.Less(t, s.LongestStallMS, int64(5000))
	require.Equal(t, "100", readParam(t, "/sys/module/dm_mirror/parameters/raid1_resync_throttle"), "the knob is given back")
	require.Equal(t, "512", readParam(t, "/sys/module/dm_mod/parameters/kcopyd_subjob_size_kb"))
	b.check(contract.XFS)
}

func readParam(t *testing.T, name string) string {
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	return strings.TrimSpace(string(b))
}
