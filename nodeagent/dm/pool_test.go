package dm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// pool makes t-meta, t-data, t-pool with data of n MiB in blocks of 64 KiB, and thin device 0 as t-thin.
func (b *bench) pool(n, lowWater uint64) {
	b.t.Helper()
	meta := b.device("t-meta", dm.Linear(0, 8*sectors, b.a, 0))
	zero(b.t, dm.DevPath(meta))
	data := b.device("t-data", dm.Linear(0, n*sectors, b.a, 8*sectors))
	pool := b.device("t-pool", dm.ThinPool(n*sectors, meta.Dev, data.Dev, 128, lowWater, "skip_block_zeroing"))
	_, err := b.Message("t-pool", 0, "create_thin %d", 0)
	require.NoError(b.t, err)
	_, err = b.Message("t-pool", 0, "create_thin 0")
	require.ErrorIs(b.t, err, unix.EEXIST)
	b.device("t-thin", dm.Thin(128*sectors, pool.Dev, 0, nil))
}

func (b *bench) poolStatus() dm.PoolStatus {
	b.t.Helper()
	s, err := dm.ParsePool(b.status("t-pool"))
	require.NoError(b.t, err)
	return s
}

// write writes n MiB of ones at an offset with direct I/O, and returns how that ended.
func write(name string, at, n int) error {
	f, err := os.OpenFile("/dev/mapper/"+name, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	p, err := unix.Mmap(-1, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	copy(p, bytes.Repeat([]byte{1}, mib))
	for i := range n {
		if _, err = f.WriteAt(p, int64(at+i)*mib); err != nil {
			break
		}
	}
	return errors.Join(err, f.Sync(), f.Close(), unix.Munmap(p))
}

func TestNodePool(t *testing.T) {
	b := newBench(t)
	b.pool(32, 256) // low water at 16 MiB free
	s := b.poolStatus()
	require.Equal(t, "rw", s.Mode)
	require.True(t, s.QueueIfNoSpace)
	require.EqualValues(t, 512, s.TotalData)
	require.Zero(t, s.UsedData)
	thin, err := dm.ParseThin(b.status("t-thin"))
	require.NoError(t, err)
	require.Equal(t, dm.ThinStatus{}, thin)
	i, err := b.Info("t-pool")
	require.NoError(t, err)

	// WaitEvent and Poll both tell of low water, at once.
	require.NoError(t, b.Poll(t.Context(), 0), "what has happened so far")
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = b.WaitEvent(short, "t-pool", i.EventNr)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	woken := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		after, err := b.WaitEvent(ctx, "t-pool", i.EventNr)
		if err == nil && after.EventNr == i.EventNr {
			err = errors.New("same event number")
		}
		woken <- err
	}()
	require.NoError(t, write("t-thin", 0, 20))
	start := time.Now()
	require.NoError(t, b.Poll(t.Context(), patient))
	require.NoError(t, <-woken)
	require.Less(t, time.Since(start), patient/2)
	require.EqualValues(t, 320, b.poolStatus().UsedData)
	thin, err = dm.ParseThin(b.status("t-thin"))
	require.NoError(t, err)
	require.Equal(t, dm.ThinStatus{MappedSectors: 20 * sectors, HighestSector: 20*sectors - 1, HasHighest: true}, thin)

	// A full pool makes writes wait; its status can still be read; room lets them go on.
	done := make(chan error, 1)
	go func() { done <- write("t-thin", 20, 20) }()
	require.Eventually(t, func() bool { return b.poolStatus().Mode == "out_of_data_space" }, patient, 10*time.Millisecond)
	b.swap("t-data", dm.ResumeFlags{NoFlush: true}, dm.Linear(0, 64*sectors, b.a, 8*sectors))
	_, live, err := b.Table("t-pool")
	require.NoError(t, err)
	live[0].Length = 64 * sectors
	b.swap("t-pool", dm.ResumeFlags{NoFlush: true}, live...)
	require.NoError(t, <-done)
	require.Equal(t, "rw", b.poolStatus().Mode)
	require.EqualValues(t, 640, b.poolStatus().UsedData)

	_, err = b.Message("t-pool", 0, "reserve_metadata_snap")
	require.NoError(t, err)
	require.True(t, b.poolStatus().HasHeldRoot)
	_, err = b.Message("t-pool", 0, "release_metadata_snap")
	require.NoError(t, err)
	_, err = b.Message("t-pool", 0, "delete 77")
	require.ErrorIs(t, err, unix.ENODATA)

	// A pool refuses to start with less data than it has: nothing may stay suspended for that.
	live[0].Length = 32 * sectors
	_, err = b.Load("t-pool", false, live...)
	require.NoError(t, err)
	_, err = b.Resume("t-pool", dm.ResumeFlags{NoFlush: true})
	require.Error(t, err)
	t.Log(err)
	i, table, err := b.Table("t-pool")
	require.NoError(t, err)
	require.False(t, i.Suspended)
	require.False(t, i.InactivePresent)
	require.EqualValues(t, 64*sectors, table[0].Length)
	require.NoError(t, write("t-thin", 0, 50))
}
