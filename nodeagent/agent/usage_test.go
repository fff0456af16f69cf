package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time          { return c.t }
func (c *clock) advance(d time.Duration) { c.t = c.t.Add(d) }

func newClock() *clock { return &clock{time.Unix(1_700_000_000, 0)} }

func TestFillRateFollowsTheFilling(t *testing.T) {
	c, u := newClock(), NewUsage()
	u.now = c.now
	const mib = 1 << 20
	m := contract.Measurement{Disk: testDisk, Generation: 1, PoolUsedBytes: contract.GiB}
	u.Observe(&m)
	require.Zero(t, m.FillRate)
	for range 20 {
		c.advance(30 * time.Second)
		m.FillRate = 0
		m.PoolUsedBytes += 300 * mib
		u.Observe(&m)
	}
	require.InEpsilon(t, 10*mib, m.FillRate, 0.01)

	// Under pressure the last seconds count as much as the minutes before.
	c.advance(2 * time.Second)
	require.InEpsilon(t, 100*mib, u.FillRate(testDisk, 1, m.PoolUsedBytes+200*mib), 0.01)
	require.InEpsilon(t, 10*mib, u.FillRate(testDisk, 2, 0), 0.01, "another backing: only the habit is known")
	require.Zero(t, u.FillRate(otherDisk, 1, contract.GiB))

	// A move starts a new count of blocks; the rate does not jump.
	c.advance(30 * time.Second)
	m.Generation, m.PoolUsedBytes, m.FillRate = 2, contract.GiB/2, 0
	u.Observe(&m)
	require.InEpsilon(t, 10*mib, m.FillRate, 0.01)

	// Emptying is no negative rate.
	for range 20 {
		c.advance(30 * time.Second)
		m.FillRate = 0
		m.PoolUsedBytes -= mib
		u.Observe(&m)
	}
	require.Zero(t, m.FillRate)

	u.keep(nil)
	require.Empty(t, u.Latest())
}

func TestProgressRateAndETA(t *testing.T) {
	c := newClock()
	p := &progress{now: c.now}
	_, ok := p.snapshot()
	require.False(t, ok)

	// A resumed copy starts far in; that is not speed.
	p.resume(contract.CopyProgress{Phase: contract.PhaseCopy, DoneBytes: 1 << 30, TotalBytes: 4 << 30, RateMiBs: 99, ETASeconds: 5})
	got, ok := p.snapshot()
	require.True(t, ok)
	require.Zero(t, got.RateMiBs)
	require.EqualValues(t, 1<<30, got.DoneBytes)

	done := int64(2 << 30)
	for range 10 {
		p.report(contract.CopyProgress{Phase: contract.PhaseCopy, DoneBytes: done, TotalBytes: 4 << 30})
		c.advance(2 * time.Second)
		done += 100 << 20
	}
	// Reports in quick succession carry their bytes and keep the rate.
	p.report(contract.CopyProgress{Phase: contract.PhaseCopy, DoneBytes: done, TotalBytes: 4 << 30})
	c.advance(time.Millisecond)
	p.report(contract.CopyProgress{Phase: contract.PhaseCopy, DoneBytes: 4 << 30, TotalBytes: 4 << 30})
	got, _ = p.snapshot()
	require.InEpsilon(t, 50, got.RateMiBs, 0.01)
	require.EqualValues(t, 4<<30, got.DoneBytes)
	require.Zero(t, got.ETASeconds)

	// Another phase begins at its own speed.
	c.advance(time.Second)
	p.report(contract.CopyProgress{Phase: contract.PhaseVerify, DoneBytes: 0, TotalBytes: 1 << 30})
	got, _ = p.snapshot()
	require.Zero(t, got.RateMiBs)
	c.advance(time.Second)
	p.report(contract.CopyProgress{Phase: contract.PhaseVerify, DoneBytes: 256 << 20, TotalBytes: 1 << 30})
	got, _ = p.snapshot()
	require.InEpsilon(t, 256, got.RateMiBs, 0.01)
	require.InEpsilon(t, 3, got.ETASeconds, 0.01)
}

func TestMeasurementsAreASafetyNet(t *testing.T) {
	d := newFakeDisks(testDisk)
	var events []disk.Event
	u := NewUsage()
	m := &measurer{disks: d, usage: u, every: time.Hour, notify: func(e disk.Event) { events = append(events, e) }, log: quiet()}
	m.all(context.Background())
	require.Empty(t, events)
	require.Len(t, u.Latest(), 1)

	d.set(testDisk, func(x *contract.Measurement) { x.PoolUsedBytes, x.Full = x.PoolBytes, true })
	m.all(context.Background())
	require.Len(t, events, 1)
	require.Equal(t, disk.EventFull, events[0].Kind)

	// About to be full at the rate it fills.
	events = nil
	d.set(testDisk, func(x *contract.Measurement) {
		x.PoolUsedBytes, x.Full, x.FillRate = x.PoolBytes-contract.GiB, false, float64(contract.GiB)/30
	})
	m.all(context.Background())
	require.Len(t, events, 1)
	require.Equal(t, disk.EventPressure, events[0].Kind)

	// A pool that holds the whole disk needs nothing.
	events = nil
	d.set(testDisk, func(x *contract.Measurement) { x.SizeBytes = x.PoolBytes })
	m.all(context.Background())
	require.Empty(t, events)

	// The incoming pool of a move is watched as well.
	d.set(testDisk, func(x *contract.Measurement) {
		x.Move = &contract.MoveState{Generation: 2, PoolBytes: contract.GiB, PoolUsedBytes: contract.GiB, Full: true, Members: []contract.Member{{Bytes: 2 * contract.GiB}}}
		x.SizeBytes, x.FillRate = 64*contract.GiB, 0
	})
	m.all(context.Background())
	require.Len(t, events, 1)
	require.EqualValues(t, 2, events[0].Pressure.Generation)
	require.Equal(t, 2*contract.GiB, events[0].Pressure.BackingBytes)
}

// hanging is a node with a disk whose measurement does not end.
type hanging struct {
	*fakeDisks
	id  contract.DiskID
	end chan struct{}
}

func (h hanging) Measure(ctx context.Context, id contract.DiskID) (contract.Measurement, error) {
	if id == h.id {
		<-h.end // whatever ctx says: it is in the kernel
	}
	return h.fakeDisks.Measure(ctx, id)
}

// A disk whose volume does not answer keeps no other from being measured.
func TestMeasurementThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := hanging{newFakeDisks(testDisk, otherDisk), testDisk, make(chan struct{})}
		u := NewUsage()
		m := &measurer{disks: d, usage: u, every: time.Minute, notify: func(disk.Event) {}, log: quiet()}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go m.run(ctx)
		for range 3 {
			d.set(otherDisk, func(m *contract.Measurement) { m.PoolUsedBytes += contract.GiB / 2 })
			want, err := d.get(otherDisk)
			require.NoError(t, err)
			sleep(ctx, time.Minute)
			synctest.Wait()
			last, known := u.last(otherDisk)
			require.True(t, known)
			require.Equal(t, want.PoolUsedBytes, last.PoolUsedBytes)
			_, known = u.last(testDisk)
			require.False(t, known)
		}
		close(d.end)
		sleep(ctx, 2*time.Minute)
		_, known := u.last(testDisk)
		require.True(t, known)
	})
}
