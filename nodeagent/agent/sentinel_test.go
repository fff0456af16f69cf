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

func TestSentinelKeepsAskingForAPoolItCannotMeasure(t *testing.T) {
	d, f := newFakeDisks(testDisk), &fakeSignals{}
	startSentinel(t, d, f, func(x *sentinelTiming) { x.recheck, x.recheckMax = 20*time.Millisecond, 40*time.Millisecond })
	d.handle(func(context.Context, string, func(contract.CopyProgress)) error { return errors.New("ioctl failed") })
	d.pressure(testDisk, disk.EventPressure)
	eventually(t, "repeated", func() bool { return len(f.sent()) >= 3 })
}
