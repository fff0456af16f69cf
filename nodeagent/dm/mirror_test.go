package dm_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

func TestNodeMirror(t *testing.T) {
	b := newBench(t)
	log := b.device("t-log", dm.Linear(0, 2*sectors, b.b, 0))
	old := b.device("t-old", dm.Linear(0, 32*sectors, b.a, 0))
	leg := b.device("t-new", dm.Linear(0, 32*sectors, b.b, 2*sectors))
	zero(t, dm.DevPath(log))
	b.device("t-top", dm.Linear(0, 32*sectors, old.Dev, 0))
	require.NoError(t, write("t-top", 0, 32))
	b.swap("t-top", dm.ResumeFlags{NoFlush: true}, dm.Mirror(32*sectors, log.Dev, sectors, old.Dev, leg.Dev))
	state := func() dm.MirrorStatus {
		s, err := dm.ParseMirror(b.status("t-top"))
		require.NoError(t, err)
		return s
	}
	require.Eventually(t, func() bool { s := state(); return s.InSync == s.Total }, patient, 10*time.Millisecond)
	s := state()
	require.True(t, s.AllAlive())
	require.Equal(t, []dm.Dev{old.Dev, leg.Dev}, s.Devs)
	require.EqualValues(t, 32, s.Total)
	require.Equal(t, log.Dev, s.LogDev)

	// The new leg dies under a writer, whose writes are held until the swap back and never fail.
	i, err := b.Info("t-top")
	require.NoError(t, err)
	var stop atomic.Bool
	written := make(chan error, 1)
	go func() {
		var err error
		for err == nil && !stop.Load() {
			err = write("t-top", 3, 2)
		}
		written <- err
	}()
	b.swap("t-new", dm.ResumeFlags{NoFlush: true}, dm.ErrorTarget(0, 32*sectors))
	for end := time.Now().Add(patient); state().AllAlive(); {
		require.True(t, time.Now().Before(end))
		require.NoError(t, b.Poll(t.Context(), patient))
	}
	failed, err := b.WaitEvent(t.Context(), "t-top", i.EventNr) // has been, so it does not wait
	require.NoError(t, err)
	require.NotEqual(t, i.EventNr, failed.EventNr)
	require.EqualValues(t, 'A', state().Health[0])
	require.NotEqualValues(t, 'A', state().Health[1])
	b.swap("t-top", dm.ResumeFlags{NoFlush: true}, dm.Linear(0, 32*sectors, old.Dev, 0))
	stop.Store(true)
	require.NoError(t, <-written)
}
