package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/contract"
)

const (
	// heartbeatEvery is how often an activity says it is alive, whether or not
	// it made progress: the answer carries a cancellation.
	heartbeatEvery = 5 * time.Second
	// stopGrace is how long a short activity may go on after the agent was told
	// to stop. Long ones end at once: their move goes on in the kernel.
	stopGrace = 10 * time.Second
)

// Activities are the node activities of package contract as thin adapters over
// Disks: they check the input, heartbeat, translate errors once, and count.
type Activities struct {
	disks     Disks
	usage     *Usage
	metrics   *Metrics
	preflight func(context.Context) contract.PreflightResult
	log       *slog.Logger
	now       func() time.Time
	beat      time.Duration
	survey    *surveyor
}

// NewActivities makes the adapters. preflight answers the Preflight activity.
func NewActivities(d Disks, u *Usage, m *Metrics, preflight func(context.Context) contract.PreflightResult, log *slog.Logger) *Activities {
	return &Activities{disks: d, usage: u, metrics: m, preflight: preflight, log: log, now: time.Now, beat: heartbeatEvery, survey: newSurveyor(d, u)}
}

// Register binds every node activity on a worker.
func (a *Activities) Register(r worker.ActivityRegistry) {
	d := a.disks
	handler[contract.FormatDiskInput, contract.Measurement]{
		activity: contract.FormatDisk, check: checkFormat,
		about: func(in contract.FormatDiskInput) subject { return subject{disk: in.Disk, volumes: in.Volumes} },
		do:    short(d.Format),
	}.register(r, a)
	handler[contract.AssembleDiskInput, contract.Measurement]{
		activity: contract.AssembleDisk, check: checkAssemble,
		about: func(in contract.AssembleDiskInput) subject { return subject{disk: in.Disk, volumes: in.Volumes} },
		do:    short(d.Assemble),
	}.register(r, a)
	handler[contract.DisassembleDiskInput, struct{}]{
		activity: contract.DisassembleDisk,
		check:    func(in contract.DisassembleDiskInput) error { return in.Disk.Validate() },
		about:    func(in contract.DisassembleDiskInput) subject { return subject{disk: in.Disk} },
		do:       short(a.disassemble),
	}.register(r, a)
	handler[contract.MeasureDiskInput, contract.Measurement]{
		activity: contract.MeasureDisk,
		check:    func(in contract.MeasureDiskInput) error { return in.Disk.Validate() },
		about:    func(in contract.MeasureDiskInput) subject { return subject{disk: in.Disk} },
		do: short(func(ctx context.Context, in contract.MeasureDiskInput) (contract.Measurement, error) {
			return d.Measure(ctx, in.Disk)
		}),
	}.register(r, a)
	handler[contract.ReadHistoryInput, contract.ReadHistoryResult]{
		activity: contract.ReadHistory,
		check:    func(in contract.ReadHistoryInput) error { return in.Disk.Validate() },
		about:    func(in contract.ReadHistoryInput) subject { return subject{disk: in.Disk} },
		do: short(func(ctx context.Context, in contract.ReadHistoryInput) (contract.ReadHistoryResult, error) {
			records, err := d.History(ctx, in.Disk)
			return contract.ReadHistoryResult{Hours: hoursSince(records, in.Since)}, err
		}),
	}.register(r, a)
	handler[contract.TrimDiskInput, contract.TrimDiskResult]{
		activity: contract.TrimDisk,
		check:    func(in contract.TrimDiskInput) error { return in.Disk.Validate() },
		about:    func(in contract.TrimDiskInput) subject { return subject{disk: in.Disk} },
		do: short(func(ctx context.Context, in contract.TrimDiskInput) (contract.TrimDiskResult, error) {
			before, _ := a.usage.last(in.Disk)
			out, err := d.Trim(ctx, in.Disk)
			if err == nil {
				a.metrics.trimDone(in.Disk, trimAsked, before.PoolUsedBytes-out.Measurement.PoolUsedBytes)
			}
			return out, err
		}),
	}.register(r, a)
	handler[contract.GrowBackingInput, contract.Measurement]{
		activity: contract.GrowBacking, check: checkGrowBacking,
		about: func(in contract.GrowBackingInput) subject {
			return subject{disk: in.Disk, volumes: []string{in.Volume}}
		},
		do: short(d.GrowBacking),
	}.register(r, a)
	handler[contract.AppendVolumeInput, contract.Measurement]{
		activity: contract.AppendVolume, check: checkAppend,
		about: func(in contract.AppendVolumeInput) subject {
			return subject{disk: in.Disk, volumes: []string{in.Volume}}
		},
		do: short(d.Append),
	}.register(r, a)
	handler[contract.ExpandDiskInput, contract.Measurement]{
		activity: contract.ExpandDisk,
		check:    func(in contract.ExpandDiskInput) error { return checkSize(in.Disk, in.SizeBytes) },
		about:    func(in contract.ExpandDiskInput) subject { return subject{disk: in.Disk} },
		do:       short(d.Expand),
	}.register(r, a)
	a.registerMove(r)
	handler[contract.SurveyInput, contract.SurveyResult]{
		activity: contract.SurveyNode, check: checkSurvey,
		about: func(contract.SurveyInput) subject { return subject{} },
		do:    short(a.survey.disks),
	}.register(r, a)
	handler[contract.ReadHeadersInput, contract.ReadHeadersResult]{
		activity: contract.ReadHeaders,
		check:    checkHeaders,
		about:    func(in contract.ReadHeadersInput) subject { return subject{volumes: in.Volumes} },
		do:       short(a.survey.headers),
	}.register(r, a)
	handler[contract.PreflightInput, contract.PreflightResult]{
		activity: contract.Preflight,
		check:    func(contract.PreflightInput) error { return nil },
		about:    func(contract.PreflightInput) subject { return subject{} },
		do: short(func(ctx context.Context, _ contract.PreflightInput) (contract.PreflightResult, error) {
			return a.preflight(ctx), nil
		}),
	}.register(r, a)
}

// registerMove binds the activities of a move.
func (a *Activities) registerMove(r worker.ActivityRegistry) {
	d := a.disks
	move := func(in contract.MoveInput) subject { return subject{disk: in.Disk, move: in.Move} }
	handler[contract.PrepareMoveInput, contract.Measurement]{
		activity: contract.PrepareMove, check: checkPrepareMove,
		about: func(in contract.PrepareMoveInput) subject {
			return subject{disk: in.Disk, volumes: in.Volumes, move: in.Move}
		},
		do: short(d.PrepareMove),
	}.register(r, a)
	handler[contract.MoveInput, contract.EvacuateResult]{
		activity: contract.EvacuateDisk, check: checkMove, about: move, do: a.evacuate, long: contract.PhaseCopy,
	}.register(r, a)
	handler[contract.MoveInput, contract.VerifyResult]{
		activity: contract.VerifyMove, check: checkMove, about: move, do: d.VerifyMove, long: contract.PhaseVerify,
	}.register(r, a)
	handler[contract.MoveInput, contract.CommitResult]{
		activity: contract.CommitMove, check: checkMove, about: move, do: short(d.CommitMove),
	}.register(r, a)
	handler[contract.MoveInput, contract.RetireBackingResult]{
		activity: contract.RetireBacking, check: checkMove, about: move, do: short(d.RetireBacking),
	}.register(r, a)
	handler[contract.MoveInput, contract.Measurement]{
		activity: contract.AbortMove, check: checkMove, about: move, do: short(d.AbortMove),
	}.register(r, a)
	handler[contract.ThrottleMoveInput, struct{}]{
		activity: contract.ThrottleMove, check: checkThrottle,
		about: func(in contract.ThrottleMoveInput) subject { return subject{disk: in.Disk, move: in.Move} },
		do: short(func(ctx context.Context, in contract.ThrottleMoveInput) (struct{}, error) {
			return struct{}{}, d.Throttle(ctx, in)
		}),
	}.register(r, a)
}

// disassemble takes a disk down. What its policy wanted is forgotten with it: when
// the disk comes back, that may be something else.
func (a *Activities) disassemble(ctx context.Context, in contract.DisassembleDiskInput) (none struct{}, err error) {
	if err := a.disks.Disassemble(ctx, in.Disk); err != nil {
		return none, err
	}
	a.usage.forgetGuide(in.Disk)
	return none, nil
}

// evacuate counts what was copied. A repeat after the end of a copy counts it
// again, which is rare.
func (a *Activities) evacuate(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.EvacuateResult, error) {
	out, err := a.disks.Evacuate(ctx, in, report)
	if err == nil {
		a.metrics.copied.WithLabelValues(string(in.Disk)).Add(float64(out.CopiedBytes) * (1 - min(1, out.ResumedFraction)))
		for _, p := range out.SwapPausesMS {
			a.metrics.pauses.Observe(p / 1000)
		}
	}
	return out, err
}

// work is the body of an activity.
type work[In, Out any] func(ctx context.Context, in In, report func(contract.CopyProgress)) (Out, error)

// short adapts a body that has no progress to report.
func short[In, Out any](do func(context.Context, In) (Out, error)) work[In, Out] {
	return func(ctx context.Context, in In, _ func(contract.CopyProgress)) (Out, error) { return do(ctx, in) }
}

// subject is what an activity is about, for logs and refusals.
type subject struct {
	disk    contract.DiskID
	volumes []string
	move    string
}

// handler is one activity with all that surrounds its body.
type handler[In, Out any] struct {
	activity contract.Activity[In, Out]
	check    func(In) error
	about    func(In) subject
	do       work[In, Out]
	// long is the phase of a body that may run for hours and reports progress;
	// empty for the others.
	long contract.Phase
}

func (h handler[In, Out]) register(r worker.ActivityRegistry, a *Activities) {
	h.activity.Register(r, func(ctx context.Context, in In) (Out, error) {
		return h.run(ctx, a, in)
	})
}

func (h handler[In, Out]) run(ctx context.Context, a *Activities, in In) (out Out, err error) {
	about := h.about(in)
	log := a.log.With("activity", string(h.activity), "attempt", activity.GetInfo(ctx).Attempt)
	if err := h.check(in); err != nil {
		// The ids are not trusted here, so they are not attached.
		ref := contract.Refuse(contract.BadInput, "%s: %v", string(h.activity), err).
			WithNext("correct the input and start the operation again")
		a.metrics.activityEnded(string(h.activity), ref)
		log.Warn("activity refused", "error", ref)
		return out, ref
	}
	log = about.attach(log)
	log.Info("activity started")
	start := a.now()
	a.metrics.activityStarted(string(h.activity))
	defer func() {
		took := a.now().Sub(start)
		a.metrics.activityDone(string(h.activity), took, err)
		if err != nil {
			log.Warn("activity ended", "duration", took.Round(time.Millisecond), "error", err)
		} else {
			log.Info("activity ended", "duration", took.Round(time.Millisecond))
		}
	}()

	prog := &progress{now: a.now}
	if h.long != "" {
		var last contract.CopyProgress
		if activity.HasHeartbeatDetails(ctx) && activity.GetHeartbeatDetails(ctx, &last) == nil {
			prog.resume(last)
		}
		defer a.metrics.moveEnded(about.disk)
	}
	report := func(p contract.CopyProgress) {
		if p.Phase == "" {
			p.Phase = h.long
		}
		prog.report(p)
		if s, ok := prog.snapshot(); ok {
			a.metrics.moving(about.disk, s)
		}
	}

	inner, cancel := context.WithCancelCause(ctx)
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		a.heartbeat(inner, cancel, prog, h.long != "")
	}()
	defer func() { cancel(nil); <-beating }()

	out, err = guarded(inner, in, report, h.do, log)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(inner), errStopping) {
		// Not a cancellation anyone asked for: retried on the next agent.
		return out, fmt.Errorf("%w: %w", errStopping, err)
	}
	if err == nil {
		a.observe(&out)
	}
	return out, err
}

var errStopping = errors.New("the agent is stopping; a running copy goes on in the kernel, the next attempt picks it up")

// heartbeat reports until ctx is done, and cancels the body when the worker
// stops.
func (a *Activities) heartbeat(ctx context.Context, cancel context.CancelCauseFunc, prog *progress, long bool) {
	every := a.beat
	if t := activity.GetInfo(ctx).HeartbeatTimeout; t > 0 {
		every = min(every, t/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	stop := activity.GetWorkerStopChannel(ctx)
	var grace <-chan time.Time
	record := func() {
		if s, ok := prog.snapshot(); long && ok {
			activity.RecordHeartbeat(ctx, s)
		} else {
			activity.RecordHeartbeat(ctx)
		}
	}
	if long {
		record() // a cancellation may be waiting already
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			record()
		case <-grace:
			cancel(errStopping)
		case <-stop:
			stop = nil
			if long {
				cancel(errStopping)
				continue
			}
			t := time.NewTimer(stopGrace)
			defer t.Stop()
			grace = t.C
		}
	}
}

// guarded runs the body and turns a panic into an error, which is retried.
func guarded[In, Out any](ctx context.Context, in In, report func(contract.CopyProgress), do work[In, Out], log *slog.Logger) (out Out, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("activity panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v (a defect of the agent; its log has the stack)", p)
		}
	}()
	return do(ctx, in, report)
}

// observe lets the usage estimate learn from a measurement that is about to be
// returned, and fills in the rate the disk's own code does not know.
func (a *Activities) observe(out any) {
	switch o := out.(type) {
	case *contract.Measurement:
		a.usage.Observe(o)
	case *contract.TrimDiskResult:
		a.usage.Observe(&o.Measurement)
	case *contract.CommitResult:
		a.usage.Observe(&o.Measurement)
		if o.SwapPauseMS > 0 {
			a.metrics.pauses.Observe(o.SwapPauseMS / 1000)
		}
	}
}

// attach adds what the activity is about to a logger.
func (s subject) attach(log *slog.Logger) *slog.Logger {
	if s.disk != "" {
		log = log.With("disk", string(s.disk))
	}
	switch len(s.volumes) {
	case 0:
	case 1:
		log = log.With("volume", s.volumes[0])
	default:
		log = log.With("volumes", s.volumes)
	}
	if s.move != "" {
		log = log.With("move", s.move)
	}
	return log
}
