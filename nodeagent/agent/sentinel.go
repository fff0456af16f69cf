package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

// Signaller is the one call the sentinel makes. client.Client is one.
type Signaller interface {
	SignalWithStartWorkflow(ctx context.Context, workflowID, signalName string, signalArg any,
		options client.StartWorkflowOptions, workflow any, workflowArgs ...any) (client.WorkflowRun, error)
}

// Sentinel turns what the kernel reports about pools into growth. One call
// both starts Grow and reaches an operation that already runs on the disk.
type Sentinel struct {
	disks   Disks
	usage   *Usage
	signals Signaller
	metrics *Metrics
	node    string
	log     *slog.Logger
	timing  sentinelTiming
	trims   *trimmer

	wg      sync.WaitGroup
	mu      sync.Mutex
	ctx     context.Context // of Run; nil outside
	pending map[pool]*request
	told    map[contract.DiskID]complaint
	// ceilings of disks that were told to be at theirs.
	ceilings map[contract.DiskID]ceiling
}

// complaint is what was last logged about a disk in trouble.
type complaint struct {
	message string
	at      time.Time
}

const complainEvery = 10 * time.Minute

type sentinelTiming struct {
	recheck    time.Duration // first look at whether the pool has grown
	recheckMax time.Duration // the looks get rarer up to this
	fullMax    time.Duration // and up to this while writes wait
	gap        time.Duration // least distance of two signals about one pool
	retry      time.Duration // first wait after a failed call
	retryMax   time.Duration
	call       time.Duration // timeout of one call
	ceiling    time.Duration // from telling that a disk is at its ceiling to telling it again
	ceilingMax time.Duration // doubled each time, up to this
	late       time.Duration // from the first call to a growth that should have come by then
}

func defaultTiming() sentinelTiming {
	return sentinelTiming{
		recheck: 15 * time.Second, recheckMax: 10 * time.Minute, fullMax: 2 * time.Minute, gap: time.Second,
		retry: 200 * time.Millisecond, retryMax: 2 * time.Second, call: 5 * time.Second,
		ceiling: time.Hour, ceilingMax: 24 * time.Hour, late: 5 * time.Minute,
	}
}

// NewSentinel makes a sentinel for the disks of a node.
func NewSentinel(d Disks, u *Usage, s Signaller, m *Metrics, node string, log *slog.Logger) *Sentinel {
	sentinel := &Sentinel{
		disks: d, usage: u, signals: s, metrics: m, node: node, log: log,
		timing: defaultTiming(), pending: make(map[pool]*request), told: make(map[contract.DiskID]complaint),
		ceilings: make(map[contract.DiskID]ceiling),
		trims:    newTrimmer(d, u, m, log),
	}
	u.watch(sentinel.measured)
	return sentinel
}

// Run watches until ctx is done and returns when everything it started ended.
// A watch that fails is begun again: a disk nobody watches would fill up.
func (s *Sentinel) Run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	wait := s.timing.retry
	for ctx.Err() == nil {
		began := time.Now()
		err := s.disks.Watch(ctx, s.Notify)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > time.Minute {
			wait = s.timing.retry
		}
		s.log.Error("watching the disks ended, beginning again", "error", err, "wait", wait)
		s.metrics.watchRestarts.Inc()
		sleep(ctx, wait)
		wait = min(2*wait, 10*time.Second)
	}
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.wg.Wait()
}

// Notify takes one event. It never blocks on Temporal. Events outside Run are
// dropped.
func (s *Sentinel) Notify(ev disk.Event) {
	s.metrics.events.WithLabelValues(string(ev.Kind)).Inc()
	log := s.log.With("disk", string(ev.Disk), "kind", string(ev.Kind))
	switch ev.Kind {
	case disk.EventPressure, disk.EventFull:
	case disk.EventMoveFailed:
		// The activity that copies ends with the refusal; the operation learns
		// it from there.
		log.Warn("the new backing of a move failed and was dropped; the disk is whole on its old one", "message", ev.Message)
		return
	case disk.EventCeiling:
		log.Warn("the disk's policy has a ceiling", "message", ev.Message)
		return
	case disk.EventTrimmed:
		s.metrics.trimDone(ev.Disk, trimCeiling, ev.Bytes)
		return
	case disk.EventReadError:
		s.complain(log, ev)
		return
	default:
		log.Warn("unknown event", "message", ev.Message)
		return
	}
	if err := ev.Disk.Validate(); err != nil {
		log.Warn("event without a disk", "error", err)
		return
	}
	if ev.Kind == disk.EventFull {
		s.usage.full(ev.Disk, ev.Pressure.Generation)
	}
	if ev.Pressure.Node == "" {
		ev.Pressure.Node = s.node
	}
	ev.Pressure.FillRate = max(ev.Pressure.FillRate, s.usage.FillRate(ev.Disk, ev.Pressure.Generation, ev.Pressure.UsedBytes))
	// The kernel repeats itself while a pool is low; what is done is logged.
	log.Debug("pool under pressure", "generation", ev.Pressure.Generation, "used", ev.Pressure.UsedBytes,
		"backing", ev.Pressure.BackingBytes, "fill_rate", int64(ev.Pressure.FillRate), "message", ev.Message)

	key := pool{ev.Disk, ev.Pressure.Generation}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return
	}
	if r := s.pending[key]; r != nil {
		r.latest, r.fresh = ev, true
		select {
		case r.wake <- struct{}{}:
		default:
		}
		return
	}
	r := &request{wake: make(chan struct{}, 1), latest: ev, fresh: true, since: time.Now()}
	s.pending[key] = r
	ctx := s.ctx
	s.wg.Go(func() { s.pursue(ctx, key, r) })
}

// tend looks after a disk that was measured: what was deleted on it is given back
// to its pool now and then.
func (s *Sentinel) tend(m contract.Measurement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx != nil && s.ctx.Err() == nil {
		s.trims.look(s.ctx, s.wg.Go, m)
	}
}

// complain logs trouble with a disk once, and again now and then while it
// lasts: the watch reports a state, not a change.
func (s *Sentinel) complain(log *slog.Logger, ev disk.Event) {
	s.mu.Lock()
	last, known := s.told[ev.Disk]
	again := !known || last.message != ev.Message || time.Since(last.at) > complainEvery
	if again {
		s.told[ev.Disk] = complaint{ev.Message, time.Now()}
	}
	s.mu.Unlock()
	if again {
		log.Error("the disk's volume returns errors", "message", ev.Message)
	}
}

// ask makes the call, again and again while Temporal is away. False: ctx ended
// or the call can never succeed.
func (s *Sentinel) ask(ctx context.Context, key pool, r *request, ev disk.Event) bool {
	wait := s.timing.retry
	attributes, failed := true, false
	for ctx.Err() == nil {
		err := s.call(ctx, ev, attributes)
		if err == nil {
			s.metrics.signals.WithLabelValues(string(key.disk), string(ev.Kind)).Inc()
			if failed && time.Since(r.since) < s.timing.late {
				s.metrics.growthNotOverdue(key.disk)
			}
			s.log.Info("asked for growth", "disk", string(key.disk), "generation", key.generation, "kind", string(ev.Kind))
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.metrics.signalFailures.Inc()
		var invalid *serviceerror.InvalidArgument
		if errors.As(err, &invalid) && attributes {
			// Most likely the namespace does not know our search attributes.
			// Growth must not wait for an operator to register them.
			s.log.Warn("Temporal refused the search attributes, going on without; next: run ebb setup", "error", err)
			attributes = false
			continue
		}
		s.log.Warn("asking for growth failed, trying again", "disk", string(key.disk), "error", err, "wait", wait)
		failed = true
		s.warn(key, r, err)
		sleep(ctx, wait/2+rand.N(wait/2+1))
		wait = min(2*wait, s.timing.retryMax)
	}
	return false
}

func (s *Sentinel) call(ctx context.Context, ev disk.Event, attributes bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.timing.call)
	defer cancel()
	id := contract.WorkflowID(ev.Disk)
	options := client.StartWorkflowOptions{
		ID:        id,
		TaskQueue: contract.ControlQueue,
		// A running operation, of whatever type, gets the signal; an ended one
		// does not stand in the way.
		WorkflowIDConflictPolicy: enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		WorkflowIDReusePolicy:    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		StaticSummary:            fmt.Sprintf("Grow %s: its pool is filling on %s", ev.Disk, s.node),
	}
	if attributes {
		options.TypedSearchAttributes = temporal.NewSearchAttributes(
			temporal.NewSearchAttributeKeyKeyword(contract.AttrDisk).ValueSet(string(ev.Disk)),
			temporal.NewSearchAttributeKeyKeyword(contract.AttrNode).ValueSet(s.node),
			temporal.NewSearchAttributeKeyKeyword(contract.AttrOperation).ValueSet(contract.GrowWorkflow),
			temporal.NewSearchAttributeKeyKeyword(contract.AttrPhase).ValueSet(string(contract.PhaseCheck)),
		)
	}
	pressure := ev.Pressure
	pressure.Settings = s.usage.growSettings(ev)
	_, err := s.signals.SignalWithStartWorkflow(ctx, id, contract.SignalPressure, pressure,
		options, contract.GrowWorkflow, contract.GrowInput{Disk: ev.Disk, Reason: reason(ev), Settings: pressure.Settings})
	return err
}

// reason says in words why a growth was asked for.
func reason(ev disk.Event) string {
	p := ev.Pressure
	gib := func(b int64) float64 { return float64(b) / float64(contract.GiB) }
	s := fmt.Sprintf("%.2f of %.2f GiB used", gib(p.UsedBytes), gib(p.BackingBytes))
	if ev.Kind == disk.EventFull {
		s = "pool full, writes wait: " + s
	}
	if p.FillRate > 0 {
		s += fmt.Sprintf(", filling at %.1f MiB/s", p.FillRate/(1<<20))
	}
	return s
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
