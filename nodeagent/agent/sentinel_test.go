package agent

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.uber.org/goleak"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// signal is one call a sentinel made.
type signal struct {
	workflow string
	pressure contract.Pressure
	options  client.StartWorkflowOptions
	grow     contract.GrowInput
}

// fakeSignals records calls; fail, when set, decides about each.
type fakeSignals struct {
	mu    sync.Mutex
	calls []signal
	fail  func(n int, o client.StartWorkflowOptions) error
	tries int
}

func (f *fakeSignals) SignalWithStartWorkflow(_ context.Context, id, name string, arg any, o client.StartWorkflowOptions, workflow any, args ...any) (client.WorkflowRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries++
	if f.fail != nil {
		if err := f.fail(f.tries, o); err != nil {
			return nil, err
		}
	}
	if name != contract.SignalPressure || workflow != contract.GrowWorkflow {
		return nil, errors.New("wrong call")
	}
	f.calls = append(f.calls, signal{id, arg.(contract.Pressure), o, args[0].(contract.GrowInput)})
	return nil, nil
}

func (f *fakeSignals) sent() []signal {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]signal(nil), f.calls...)
}

// startSentinel runs a sentinel until the test ends and proves that it left
// nothing behind.
func startSentinel(t *testing.T, d *fakeDisks, f *fakeSignals, change func(*sentinelTiming)) *Sentinel {
	t.Helper()
	leak := goleak.IgnoreCurrent()
	u := NewUsage()
	s := NewSentinel(d, u, f, NewMetrics(u, "test"), testNode, quiet())
	// Slow enough that nothing repeats unless a test wants it to.
	s.timing.recheck, s.timing.gap, s.timing.retry = time.Hour, 10*time.Millisecond, 10*time.Millisecond
	if change != nil {
		change(&s.timing)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		goleak.VerifyNone(t, leak)
	})
	<-d.ready
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	require.Eventually(t, ok, 10*time.Second, 5*time.Millisecond, what)
}

func TestSentinelAsksOncePerPressure(t *testing.T) {
	d, f := newFakeDisks(testDisk, otherDisk), &fakeSignals{}
	s := startSentinel(t, d, f, nil)
	for range 5 {
		d.pressure(testDisk, disk.EventPressure)
	}
	eventually(t, "one call", func() bool { return len(f.sent()) == 1 })
	got := f.sent()[0]
	require.Equal(t, "disk/"+string(testDisk), got.workflow)
	require.Equal(t, testDisk, got.grow.Disk)
	require.NotEmpty(t, got.grow.Reason)
	require.NoError(t, got.grow.Validate())
	require.Equal(t, testNode, got.pressure.Node)
	require.EqualValues(t, 1, got.pressure.Generation)
	require.Contains(t, got.options.StaticSummary, string(testDisk))
	require.Equal(t, 4, got.options.TypedSearchAttributes.Size())
	require.Equal(t, contract.ControlQueue, got.options.TaskQueue)

	// Another disk is another matter.
	d.pressure(otherDisk, disk.EventPressure)
	eventually(t, "second disk", func() bool { return len(f.sent()) == 2 })
	// The first one's repeated events were all seen by now and asked nothing.
	require.Len(t, f.sent(), 2)
	s.mu.Lock()
	require.Len(t, s.pending, 2)
	s.mu.Unlock()
}

func TestSentinelFullIsUrgent(t *testing.T) {
	d, f := newFakeDisks(testDisk), &fakeSignals{}
	startSentinel(t, d, f, nil)
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "pressure", func() bool { return len(f.sent()) == 1 })
	d.pressure(testDisk, disk.EventFull)
	eventually(t, "full", func() bool { return len(f.sent()) == 2 })
	require.Contains(t, f.sent()[1].grow.Reason, "writes wait")
}

func TestSentinelAsksAgainAfterGrowth(t *testing.T) {
	d, f := newFakeDisks(testDisk), &fakeSignals{}
	startSentinel(t, d, f, nil)
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "first", func() bool { return len(f.sent()) == 1 })
	d.set(testDisk, func(m *contract.Measurement) { m.BackingBytes *= 2; m.PoolUsedBytes *= 5 })
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "the grown pool fills again", func() bool { return len(f.sent()) == 2 })
}

func TestSentinelRepeatsUntilGrown(t *testing.T) {
	d, f := newFakeDisks(testDisk), &fakeSignals{}
	s := startSentinel(t, d, f, func(x *sentinelTiming) { x.recheck, x.recheckMax = 20*time.Millisecond, 40*time.Millisecond })
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "repeated", func() bool { return len(f.sent()) >= 3 })
	d.set(testDisk, func(m *contract.Measurement) { m.BackingBytes *= 2 })
	eventually(t, "ended by the growth", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.pending) == 0
	})
}

func TestSentinelEndsWhenTheDiskIsGoneOrEmptied(t *testing.T) {
	for name, change := range map[string]func(*fakeDisks){
		"gone": func(d *fakeDisks) {
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.disks, testDisk)
		},
		"emptied": func(d *fakeDisks) {
			d.set(testDisk, func(m *contract.Measurement) { m.PoolUsedBytes = contract.GiB / 2 })
		},
		"moved": func(d *fakeDisks) { d.set(testDisk, func(m *contract.Measurement) { m.Generation = 2 }) },
	} {
		t.Run(name, func(t *testing.T) {
			d, f := newFakeDisks(testDisk), &fakeSignals{}
			d.set(testDisk, func(m *contract.Measurement) { m.PoolUsedBytes = m.PoolBytes - contract.GiB/4 })
			s := startSentinel(t, d, f, func(x *sentinelTiming) { x.recheck, x.recheckMax = 20*time.Millisecond, 40*time.Millisecond })
			d.pressure(testDisk, disk.EventPressure)
			eventually(t, "asked", func() bool { return len(f.sent()) >= 1 })
			change(d)
			eventually(t, "ended", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.pending) == 0
			})
		})
	}
}

func TestSentinelWaitsForTemporal(t *testing.T) {
	d := newFakeDisks(testDisk)
	f := &fakeSignals{fail: func(n int, _ client.StartWorkflowOptions) error {
		if n <= 3 {
			return serviceerror.NewUnavailable("away")
		}
		return nil
	}}
	startSentinel(t, d, f, nil)
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "asked in the end", func() bool { return len(f.sent()) == 1 })
}

func TestSentinelGrowsWithoutSearchAttributes(t *testing.T) {
	d := newFakeDisks(testDisk)
	f := &fakeSignals{fail: func(_ int, o client.StartWorkflowOptions) error {
		if o.TypedSearchAttributes.Size() > 0 {
			return serviceerror.NewInvalidArgument("no mapping defined for search attribute EbbDisk")
		}
		return nil
	}}
	startSentinel(t, d, f, nil)
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "asked without them", func() bool { return len(f.sent()) == 1 })
	require.Equal(t, 2, f.tries)
}

func TestSentinelWatchesAgain(t *testing.T) {
	d, f := newFakeDisks(testDisk), &fakeSignals{}
	startSentinel(t, d, f, nil)
	d.fail <- errors.New("ioctl failed")
	d.fail <- errors.New("again") // accepted only by a second Watch
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "still asks", func() bool { return len(f.sent()) == 1 })
}

func TestSentinelStopsWhileTemporalIsAway(t *testing.T) {
	d := newFakeDisks(testDisk)
	f := &fakeSignals{fail: func(int, client.StartWorkflowOptions) error { return serviceerror.NewUnavailable("away") }}
	startSentinel(t, d, f, nil)
	d.pressure(testDisk, disk.EventPressure)
	d.event(disk.Event{Disk: testDisk, Kind: disk.EventMoveFailed})
	d.event(disk.Event{Disk: testDisk, Kind: disk.EventReadError})
	d.event(disk.Event{Kind: disk.EventPressure})
	eventually(t, "tried", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.tries > 1
	})
}

// A full pool is reported again and again; what was reported before it grew
// must not make it grow twice.
func TestSentinelIgnoresNewsFromBeforeTheGrowth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, u := newFakeDisks(testDisk), &fakeSignals{}, NewUsage()
		s := NewSentinel(d, u, f, NewMetrics(u, "test"), testNode, quiet())
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		<-d.ready
		d.set(testDisk, func(m *contract.Measurement) { m.PoolUsedBytes, m.Full = m.PoolBytes, true })
		d.pressure(testDisk, disk.EventFull)
		synctest.Wait()
		require.Len(t, f.sent(), 1)
		d.pressure(testDisk, disk.EventFull)
		d.set(testDisk, func(m *contract.Measurement) { m.BackingBytes *= 2; m.PoolBytes *= 2; m.Full = false })
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, f.sent(), 1)
		require.Empty(t, s.pending)

		// One that never grows is asked for ever more rarely, but for ever.
		d.set(testDisk, func(m *contract.Measurement) { m.PoolUsedBytes, m.Full = m.PoolBytes, true })
		d.pressure(testDisk, disk.EventFull)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.InDelta(t, 32, len(f.sent()), 3)
		cancel()
		wg.Wait()
	})
}

// counted is the sum of a counter over its labels.
func counted(t *testing.T, m *Metrics, name string) (sum float64) {
	t.Helper()
	families, err := m.Registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			for _, c := range f.GetMetric() {
				sum += c.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// A disk whose backing holds all of it cannot be helped by growth: that is told
// once, then ever more rarely, and at once when something changed.
func TestSentinelAtTheCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, u := newFakeDisks(testDisk), &fakeSignals{}, NewUsage()
		metrics := NewMetrics(u, "test")
		s := NewSentinel(d, u, f, metrics, testNode, quiet())
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		measurer := &measurer{disks: d, usage: u, every: MeasureEvery, notify: s.Notify, log: quiet()}
		wg.Go(func() { measurer.run(ctx) })
		<-d.ready
		const size = 64 * contract.GiB
		d.set(testDisk, func(m *contract.Measurement) {
			m.PoolBytes, m.BackingBytes, m.OverheadBytes, m.PoolUsedBytes = size, size+contract.GiB, contract.GiB, size*9/10
		})
		presses := func(from time.Duration) {
			for range from / time.Minute { // the kernel repeats itself
				d.pressure(testDisk, disk.EventPressure)
				time.Sleep(time.Minute)
			}
			synctest.Wait()
		}
		presses(30 * time.Minute)
		// One may have been asked for before the first measurement.
		asked := len(f.sent())
		require.LessOrEqual(t, asked, 2)
		require.NotZero(t, asked)
		require.InDelta(t, 1, counted(t, metrics, "ebb_disk_ceiling_alerts_total"), 0)
		presses(6 * time.Hour) // told again after 1 and 3 hours
		require.Len(t, f.sent(), asked+2)
		presses(24 * time.Hour) // after 7 and 15
		require.InDelta(t, asked+4, len(f.sent()), 1)

		// The disk was expanded: the next measurement is enough.
		asked = len(f.sent())
		d.set(testDisk, func(m *contract.Measurement) { m.SizeBytes *= 2 })
		time.Sleep(MeasureEvery)
		synctest.Wait()
		require.Greater(t, len(f.sent()), asked)
		asked = len(f.sent())
		d.set(testDisk, func(m *contract.Measurement) {
			m.BackingBytes, m.PoolBytes = m.BackingBytes+8*contract.GiB, m.PoolBytes+8*contract.GiB
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, f.sent(), asked, "it has grown")
		require.Empty(t, s.pending)
		cancel()
		wg.Wait()
	})
}

// Files come and go on a disk at its ceiling: that is no news.
func TestSentinelAtTheCeilingWithChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f, u := newFakeDisks(testDisk), &fakeSignals{}, NewUsage()
		s := NewSentinel(d, u, f, NewMetrics(u, "test"), testNode, quiet())
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { s.Run(ctx) })
		measurer := &measurer{disks: d, usage: u, every: MeasureEvery, notify: s.Notify, log: quiet()}
		wg.Go(func() { measurer.run(ctx) })
		<-d.ready
		const size = 64 * contract.GiB
		at := func(used int64) {
			d.set(testDisk, func(m *contract.Measurement) {
				m.PoolBytes, m.BackingBytes, m.OverheadBytes, m.PoolUsedBytes = size, size+contract.GiB, contract.GiB, used
			})
			time.Sleep(2 * MeasureEvery)
			d.pressure(testDisk, disk.EventPressure)
			synctest.Wait()
		}
		for range 25 {
			at(size - contract.GiB/4)
			at(size - contract.GiB)
		}
		require.LessOrEqual(t, len(f.sent()), 2)
		// A good part is deleted, and comes back.
		asked := len(f.sent())
		at(size / 2)
		at(size - contract.GiB)
		require.Greater(t, len(f.sent()), asked)
		// A full pool is never hushed.
		asked = len(f.sent())
		d.set(testDisk, func(m *contract.Measurement) { m.Full = true })
		d.pressure(testDisk, disk.EventFull)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Greater(t, len(f.sent()), asked)
		cancel()
		wg.Wait()
	})
}

func TestSentinelKeepsAskingForAPoolItCannotMeasure(t *testing.T) {
	d, f := newFakeDisks(testDisk), &fakeSignals{}
	startSentinel(t, d, f, func(x *sentinelTiming) { x.recheck, x.recheckMax = 20*time.Millisecond, 40*time.Millisecond })
	d.handle(func(context.Context, string, func(contract.CopyProgress)) error { return errors.New("ioctl failed") })
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "repeated", func() bool { return len(f.sent()) >= 3 })
}
