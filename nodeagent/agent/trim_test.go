package agent

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// deleted makes the filesystem use less than the pool holds.
func (w *watched) deleted(pool, fs int64) {
	w.set(func(m *contract.Measurement) { m.PoolUsedBytes, m.FilesystemUsedBytes = pool, fs })
	w.wait(MeasureEvery)
}

// trimming makes trims take a while and give back all there is.
func (w *watched) trimming(took time.Duration, err error) {
	w.disks.handle(func(ctx context.Context, call string, _ func(contract.CopyProgress)) error {
		if call != "Reclaim" {
			return nil
		}
		sleep(ctx, took)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.set(func(m *contract.Measurement) { m.PoolUsedBytes = min(m.PoolUsedBytes, m.FilesystemUsedBytes+w.stays) })
		return nil
	})
}

// What was deleted is given back before a growth is asked for.
func TestTrimSparesAGrowth(t *testing.T) {
	watching(t, func(w *watched) {
		w.trimming(300*time.Millisecond, nil)
		w.deleted(7*contract.GiB/2, 2*contract.GiB)
		w.disks.pressure(testDisk, disk.EventPressure)
		w.wait(time.Second)
		require.Equal(t, 1, w.disks.called("Reclaim"))
		require.Empty(t, w.asked.sent())
		require.Empty(t, w.pending)
		require.InDelta(t, 1, w.gauge("ebb_disk_trims_total"), 0)
		require.InDelta(t, 1.5*float64(contract.GiB), w.gauge("ebb_disk_trimmed_bytes_total"), 11<<20)

		// It fills again at once: no second trim, the growth is asked for.
		w.deleted(7*contract.GiB/2, 2*contract.GiB)
		w.disks.pressure(testDisk, disk.EventPressure)
		w.wait(0)
		require.Equal(t, 1, w.disks.called("Reclaim"))
		require.Len(t, w.asked.sent(), 1)
	})
}

// The first trim shows what no trim gives back, and does not keep the next one from
// sparing a growth; a move changes neither.
func TestTrimLearnsWhatStays(t *testing.T) {
	watching(t, func(w *watched) {
		w.stays = 400 << 20 // a journal
		w.trimming(300*time.Millisecond, nil)
		w.deleted(3500<<20, 3100<<20)
		w.disks.pressure(testDisk, disk.EventPressure)
		w.wait(time.Second)
		require.Equal(t, 1, w.disks.called("Reclaim"))
		require.Len(t, w.asked.sent(), 1, "it gave nothing back")

		w.set(func(m *contract.Measurement) { m.Generation++ })
		w.deleted(3500<<20, 3100<<20)
		w.wait(2 * trimAgain)
		w.disks.pressure(testDisk, disk.EventPressure)
		w.wait(time.Second)
		require.Equal(t, 1, w.disks.called("Reclaim"), "nothing was deleted")

		w.deleted(1000<<20, 600<<20)
		require.Empty(t, w.pending)
		grown := len(w.asked.sent())
		w.deleted(3500<<20, 2000<<20)
		w.wait(time.Second) // the measurement sees what the event would say
		require.Equal(t, 2, w.disks.called("Reclaim"))
		require.Len(t, w.asked.sent(), grown, "the trim made room")
	})
}

// A growth waits for a trim for a second at most, and not at all where the pool has
// no time.
func TestTrimDelaysNoGrowth(t *testing.T) {
	for name, c := range map[string]struct {
		pool, fs int64
		kind     disk.EventKind
		took     time.Duration
		err      error
		wait     time.Duration
		trims    int
	}{
		"a long trim":       {7 * contract.GiB / 2, 2 * contract.GiB, disk.EventPressure, time.Hour, nil, trimWait, 1},
		"nearly full":       {3950 << 20, 2 * contract.GiB, disk.EventPressure, time.Second, nil, 0, 1},
		"full":              {4 * contract.GiB, 2 * contract.GiB, disk.EventFull, time.Second, nil, 0, 1},
		"a trim that fails": {7 * contract.GiB / 2, 2 * contract.GiB, disk.EventPressure, 0, errors.New("no discard"), 0, 1},
		"nothing deleted":   {7 * contract.GiB / 2, 7*contract.GiB/2 - 50<<20, disk.EventPressure, time.Second, nil, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			watching(t, func(w *watched) {
				w.trimming(c.took, c.err)
				w.deleted(c.pool, c.fs)
				w.disks.pressure(testDisk, c.kind)
				if c.wait > 0 {
					w.wait(c.wait - time.Millisecond)
					require.Empty(t, w.asked.sent())
					w.wait(time.Millisecond)
				} else {
					w.wait(0)
				}
				require.Len(t, w.asked.sent(), 1)
				require.Equal(t, c.trims, w.disks.called("Reclaim"))
			})
		})
	}
}

// Where deleted files lie in a pool, they are given back at most hourly.
func TestRoutineTrim(t *testing.T) {
	watching(t, func(w *watched) {
		w.deleted(2*contract.GiB, contract.GiB)
		w.wait(settleIn - 2*MeasureEvery)
		require.Zero(t, w.disks.called("Reclaim"), "a new agent has other things to do")
		w.wait(2 * MeasureEvery)
		require.Equal(t, 1, w.disks.called("Reclaim"))
		w.wait(3 * time.Hour)
		require.Equal(t, 1, w.disks.called("Reclaim"), "it gave nothing back: those are blocks used in part")
		w.trimming(0, nil)
		w.deleted(3*contract.GiB, contract.GiB)
		require.Equal(t, 2, w.disks.called("Reclaim"))
		w.deleted(3*contract.GiB, contract.GiB)
		w.wait(58 * time.Minute)
		require.Equal(t, 2, w.disks.called("Reclaim"))
		w.wait(2 * time.Minute)
		require.Equal(t, 3, w.disks.called("Reclaim"))
		w.deleted(3*contract.GiB, contract.GiB)
		// Not during a move, and not for a few blocks.
		w.set(func(m *contract.Measurement) { m.Move = &contract.MoveState{Generation: 2} })
		w.wait(3 * time.Hour)
		require.Equal(t, 3, w.disks.called("Reclaim"))
		w.set(func(m *contract.Measurement) { m.Move, m.FilesystemUsedBytes = nil, m.PoolUsedBytes*19/20 })
		w.wait(3 * time.Hour)
		require.Equal(t, 3, w.disks.called("Reclaim"))
	})
}

// xfs counts what it has put aside as used: how much that is shows after a trim.
func TestRoutineTrimOfXFS(t *testing.T) {
	watching(t, func(w *watched) {
		w.set(func(m *contract.Measurement) { m.Filesystem = contract.XFS })
		w.deleted(2*contract.GiB, 5*contract.GiB)
		w.wait(settleIn)
		require.Equal(t, 1, w.disks.called("Reclaim"))
		w.wait(3 * time.Hour)
		require.Equal(t, 1, w.disks.called("Reclaim"), "nothing was deleted")
		w.deleted(2*contract.GiB, 4*contract.GiB)
		require.Equal(t, 2, w.disks.called("Reclaim"))
	})
}
