package main

import (
	"context"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

const (
	nodeA    = "i-0000000000000000a"
	nodeDead = "i-0000000000000dead"
	// nodeElsewhere is in another zone.
	nodeElsewhere = "i-0000000000000e15e"
)

// Shrinks to these sizes wait for a rehome and end refused: the first carries it
// out before it ends, the second does not.
const (
	lateMove = 3
	lostMove = 5
)

// world is what the stub workflows work on: disks as EC2 would know them, and
// the throttle of their copies. A throttle of 1 MiB/s holds a copy at 30%.
type world struct {
	mu       sync.Mutex
	disks    map[contract.DiskID]contract.DiskFacts
	sizes    map[contract.DiskID]int64
	throttle map[contract.DiskID]contract.ThrottleMoveInput
}

func newWorld() *world {
	return &world{
		disks: map[contract.DiskID]contract.DiskFacts{}, sizes: map[contract.DiskID]int64{},
		throttle: map[contract.DiskID]contract.ThrottleMoveInput{},
	}
}

func (w *world) register(r worker.Registry) {
	for name, fn := range map[string]any{
		contract.CreateDiskWorkflow: w.createDisk, contract.GrowWorkflow: w.grow, contract.ShrinkWorkflow: w.shrink,
		contract.RetypeWorkflow: w.retype, contract.ExpandWorkflow: w.expand, contract.RehomeWorkflow: w.rehome, contract.DeleteDiskWorkflow: w.deleteDisk,
	} {
		r.RegisterWorkflowWithOptions(fn, workflow.RegisterOptions{Name: name})
	}
	contract.ListDisks.Register(r, func(_ context.Context, in contract.ListDisksInput) (contract.ListDisksResult, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		var out contract.ListDisksResult
		for _, f := range w.disks {
			if in.Node == "" || in.Node == f.Node() {
				out.Disks = append(out.Disks, f)
			}
		}
		return out, nil
	})
	contract.DescribeDisk.Register(r, func(_ context.Context, in contract.DescribeDiskInput) (contract.DiskFacts, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		f, ok := w.disks[in.Disk]
		if !ok {
			f.Disk = in.Disk
		}
		return f, nil
	})
	contract.ThrottleMove.Register(r, func(_ context.Context, in contract.ThrottleMoveInput) (struct{}, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.throttle[in.Disk] = in
		return struct{}{}, nil
	})
	contract.EvacuateDisk.Register(r, w.evacuate)
	r.RegisterActivityWithOptions(w.put, activity.RegisterOptions{Name: "put"})
	r.RegisterActivityWithOptions(w.drop, activity.RegisterOptions{Name: "drop"})
}

func (w *world) registerNode(r worker.Registry) {
	contract.MeasureDisk.Register(r, func(_ context.Context, in contract.MeasureDiskInput) (contract.Measurement, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.measured(in.Disk), nil
	})
	contract.ReadHistory.Register(r, func(_ context.Context, in contract.ReadHistoryInput) (contract.ReadHistoryResult, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.hours(in.Disk, in.Since), nil
	})
	contract.SurveyNode.Register(r, w.survey)
	contract.Preflight.Register(r, func(context.Context, contract.PreflightInput) (contract.PreflightResult, error) {
		return contract.PreflightResult{Node: nodeA, Kernel: "6.1.0", OK: false, Checks: []contract.Check{
			{Name: "dm-thin", OK: true, Detail: "thin-pool 1.22"},
			{Name: "lockdown", Detail: "integrity", Next: "load the module at boot"},
		}}, nil
	})
}

func (w *world) measured(d contract.DiskID) contract.Measurement {
	return contract.Measurement{
		Disk: d, Node: nodeA, At: time.Now(), Device: "/dev/mapper/ebb-" + string(d), Generation: 1,
		SizeBytes: w.sizes[d], PoolBytes: 4 * contract.GiB, PoolUsedBytes: contract.GiB,
		Filesystem: contract.XFS, MountPath: "/data",
	}
}

func (w *world) hours(d contract.DiskID, since time.Time) (out contract.ReadHistoryResult) {
	now := time.Now().UTC().Truncate(time.Hour)
	for ago := 48 * time.Hour; ago >= 0; ago -= time.Hour {
		h := contract.HistoryHour{
			Hour: now.Add(-ago), UsedMinBytes: contract.GiB / 2, UsedMaxBytes: contract.GiB, WrittenBytes: 1 << 20,
			PeakIOPS: 900, PeakMiBs: 60, BackingBytes: 4 * contract.GiB,
		}
		if h.Hour.Add(time.Hour).After(since) && w.sizes[d] > 0 {
			out.Hours = append(out.Hours, h)
		}
	}
	return out
}

func (w *world) survey(_ context.Context, in contract.SurveyInput) (out contract.SurveyResult, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range in.Disks {
		m := w.measured(d.Disk)
		s := contract.DiskSurvey{Disk: d.Disk, Measurement: &m}
		if in.Hours {
			s.Hours = contract.PackHours(w.hours(d.Disk, in.Since).Hours)
		}
		out.Disks = append(out.Disks, s)
	}
	return out, nil
}

func (w *world) put(_ context.Context, f contract.DiskFacts, size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disks[f.Disk] = f
	if size > 0 {
		w.sizes[f.Disk] = size
	}
	return nil
}

func (w *world) drop(_ context.Context, d contract.DiskID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.disks, d)
	return nil
}

// evacuate copies 10 GiB that do not exist.
func (w *world) evacuate(ctx context.Context, in contract.MoveInput) (contract.EvacuateResult, error) {
	const total = 10 * contract.GiB
	for percent := int64(0); percent <= 100; {
		activity.RecordHeartbeat(ctx, contract.CopyProgress{
			Phase: contract.PhaseCopy, DoneBytes: total / 100 * percent, TotalBytes: total, RateMiBs: 250, ETASeconds: float64(100-percent) / 50,
		})
		select {
		case <-ctx.Done():
			return contract.EvacuateResult{}, ctx.Err()
		case <-time.After(15 * time.Millisecond):
		}
		w.mu.Lock()
		t := w.throttle[in.Disk]
		w.mu.Unlock()
		if percent < 30 || (t.MiBs != 1 && !t.Paused) {
			percent++
		}
	}
	return contract.EvacuateResult{CopiedBytes: total, UsedBytes: total, SwapPausesMS: []float64{1.5, 2}}, nil
}

// operation is what the stubs share: progress, signals.
type operation struct {
	p         contract.Progress
	cancelled bool
	throttle  contract.ThrottleMoveInput
	late      bool   // a rehome is carried out after the end of the work
	to        string // where to
}

func begin(ctx workflow.Context, disk contract.DiskID, name string, steps int) (workflow.Context, *operation, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute, HeartbeatTimeout: 10 * time.Second,
		RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
	})
	o := &operation{p: contract.Progress{Disk: disk, Operation: name, Phase: contract.PhaseCheck, Step: 1, Steps: steps, Node: nodeA}}
	o.throttle.Disk = disk
	err := workflow.SetQueryHandler(ctx, contract.QueryProgress, func() (contract.Progress, error) { return o.p, nil })
	work, cancel := workflow.WithCancel(ctx)
	workflow.Go(ctx, func(ctx workflow.Context) {
		sel := workflow.NewSelector(ctx)
		apply := func() {
			_ = workflow.ExecuteActivity(ctx, string(contract.ThrottleMove), o.throttle).Get(ctx, nil)
		}
		on := func(signal string, do func(workflow.ReceiveChannel)) {
			sel.AddReceive(workflow.GetSignalChannel(ctx, signal), func(c workflow.ReceiveChannel, _ bool) { do(c) })
		}
		on(contract.SignalPause, func(c workflow.ReceiveChannel) {
			c.Receive(ctx, nil)
			o.p.Paused, o.throttle.Paused = true, true
			apply()
		})
		on(contract.SignalResume, func(c workflow.ReceiveChannel) {
			c.Receive(ctx, nil)
			o.p.Paused, o.throttle.Paused = false, false
			apply()
		})
		on(contract.SignalCancel, func(c workflow.ReceiveChannel) {
			c.Receive(ctx, nil)
			o.cancelled = true
			cancel()
		})
		on(contract.SignalThrottle, func(c workflow.ReceiveChannel) {
			var t contract.Throttle
			c.Receive(ctx, &t)
			o.throttle.MiBs = t.MiBs
			apply()
		})
		on(contract.SignalRehome, func(c workflow.ReceiveChannel) {
			var in contract.RehomeInput
			c.Receive(ctx, &in)
			if in.Node == nodeElsewhere {
				o.p.Refusal = contract.Refuse(contract.ZoneMismatch, "node %s is in another zone", in.Node)
				return
			}
			if o.to = in.Node; !o.late {
				o.p.Node = in.Node
			}
		})
		for {
			sel.Select(ctx)
		}
	})
	return work, o, err
}

func (o *operation) step(phase contract.Phase) {
	o.p.Phase = phase
	o.p.Step++
}

func refuse(disk contract.DiskID, name string, r *contract.Refusal) contract.Result {
	return contract.Result{Disk: disk, Operation: name, Outcome: contract.Refused, Refusal: r.WithDisk(disk)}
}

// known describes the disk, or refuses.
func known(ctx workflow.Context, disk contract.DiskID) (contract.DiskFacts, *contract.Refusal, error) {
	f, err := contract.DescribeDisk.Execute(ctx, contract.DescribeDiskInput{Disk: disk})
	if err == nil && len(f.Volumes) == 0 {
		return f, contract.Refuse(contract.DiskUnknown, "EC2 has no volume of this disk").WithDisk(disk).WithNext("ebb disk list"), nil
	}
	return f, nil, err
}

func (w *world) createDisk(ctx workflow.Context, in contract.CreateDiskInput) (contract.Result, error) {
	result := contract.Result{Disk: in.Disk, Operation: contract.CreateDiskWorkflow, Outcome: contract.Done, Node: in.Node, AfterGiB: 4}
	if in.DryRun {
		result.Outcome, result.Steps = contract.Planned, []string{"create a volume of 4 GiB", "format it"}
		return result, nil
	}
	ctx, _, err := begin(ctx, in.Disk, contract.CreateDiskWorkflow, 3)
	if err != nil {
		return result, err
	}
	result.Volumes = []string{"vol-00000001"}
	f := contract.DiskFacts{Disk: in.Disk, Name: in.Name, Volumes: []contract.VolumeFacts{{
		ID: "vol-00000001", State: "in-use", SizeGiB: 4, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125, Zone: "us-east-1a",
		Role: contract.RoleActive, Generation: 1, Node: in.Node, AttachState: "attached", Tags: in.Volume.Tags,
	}}}
	return result, workflow.ExecuteActivity(ctx, "put", f, in.SizeBytes).Get(ctx, nil)
}

func (w *world) grow(ctx workflow.Context, in contract.GrowInput) (contract.Result, error) {
	ctx, _, err := begin(ctx, in.Disk, contract.GrowWorkflow, 2)
	if err != nil {
		return contract.Result{}, err
	}
	_, r, err := known(ctx, in.Disk)
	if r != nil || err != nil {
		return refuse(in.Disk, contract.GrowWorkflow, r), err
	}
	if in.Reason == "fail" {
		return contract.Result{}, temporal.NewNonRetryableApplicationError("the stub was told to", "Test", nil)
	}
	return contract.Result{Disk: in.Disk, Operation: contract.GrowWorkflow, Outcome: contract.Done, BeforeGiB: 4, AfterGiB: in.ToGiB}, nil
}

func (w *world) retype(ctx workflow.Context, in contract.RetypeInput) (contract.Result, error) {
	ctx, _, err := begin(ctx, in.Disk, contract.RetypeWorkflow, 2)
	if err != nil {
		return contract.Result{}, err
	}
	f, r, err := known(ctx, in.Disk)
	if r != nil || err != nil {
		return refuse(in.Disk, contract.RetypeWorkflow, r), err
	}
	result := contract.Result{Disk: in.Disk, Operation: contract.RetypeWorkflow, Outcome: contract.Done, BeforeGiB: 4, AfterGiB: 4}
	v := &f.Volumes[0]
	switch {
	case in.IOPS == v.IOPS:
		return refuse(in.Disk, contract.RetypeWorkflow, contract.Refuse(contract.NothingToRetype, "the volume is so already").WithNext("ask for more")), nil
	case in.DryRun:
		result.Outcome, result.Steps = contract.Planned, []string{"modify volume " + v.ID + " in place"}
		return result, nil
	}
	v.IOPS = in.IOPS
	return result, workflow.ExecuteActivity(ctx, "put", f, w.sizes[in.Disk]).Get(ctx, nil)
}

func (w *world) shrink(ctx workflow.Context, in contract.ShrinkInput) (contract.Result, error) {
	name := contract.ShrinkWorkflow
	work, o, err := begin(ctx, in.Disk, name, 5)
	if err != nil {
		return contract.Result{}, err
	}
	f, r, err := known(work, in.Disk)
	if r != nil || err != nil {
		return refuse(in.Disk, name, r), err
	}
	if in.ToGiB == 1 {
		return refuse(in.Disk, name, contract.Refuse(contract.BelowUsed, "1 GiB is less than the 1.2 GiB needed").WithNext("ask for at least 2GiB")), nil
	}
	result := contract.Result{Disk: in.Disk, Operation: name, Outcome: contract.Done, BeforeGiB: 4, AfterGiB: 2, Node: f.Node(), Generation: 2}
	if in.DryRun {
		result.Outcome, result.Steps = contract.Planned, []string{"snapshot", "create a volume of 2 GiB", "copy 1 GiB"}
		return result, nil
	}
	if in.ToGiB == lateMove || in.ToGiB == lostMove {
		o.late = true
		if err := workflow.Await(work, func() bool { return o.to != "" }); err != nil {
			return result, err
		}
		if in.ToGiB == lateMove {
			f.Volumes[0].Node = o.to
		}
		err := workflow.ExecuteActivity(work, "put", f, 0).Get(work, nil)
		return refuse(in.Disk, name, contract.Refuse(contract.NodeUnknown, "instance %s is stopped", nodeA)), err
	}
	o.p.FromGiB, o.p.ToGiB = 4, 2
	o.throttle.MiBs = in.ThrottleMiBs
	if _, err := contract.ThrottleMove.Execute(work, o.throttle); err != nil {
		return result, err
	}
	o.step(contract.PhaseCreate)
	o.step(contract.PhaseCopy)
	copied, err := contract.EvacuateDisk.Execute(work, contract.MoveInput{Disk: in.Disk, Move: "m"})
	if o.cancelled {
		result.Outcome = contract.Cancelled
		return result, nil
	}
	if err != nil {
		return result, err
	}
	o.step(contract.PhaseCommit)
	result.CopiedBytes, result.SwapPausesMS = copied.CopiedBytes, copied.SwapPausesMS
	f.Volumes[0].SizeGiB = 2
	return result, workflow.ExecuteActivity(work, "put", f, 0).Get(work, nil)
}

func (w *world) expand(ctx workflow.Context, in contract.ExpandInput) (contract.Result, error) {
	ctx, _, err := begin(ctx, in.Disk, contract.ExpandWorkflow, 2)
	if err != nil {
		return contract.Result{}, err
	}
	f, r, err := known(ctx, in.Disk)
	if r != nil || err != nil {
		return refuse(in.Disk, contract.ExpandWorkflow, r), err
	}
	return contract.Result{Disk: in.Disk, Operation: contract.ExpandWorkflow, Outcome: contract.Done},
		workflow.ExecuteActivity(ctx, "put", f, in.SizeBytes).Get(ctx, nil)
}

func (w *world) rehome(ctx workflow.Context, in contract.RehomeInput) (contract.Result, error) {
	ctx, _, err := begin(ctx, in.Disk, contract.RehomeWorkflow, 2)
	if err != nil {
		return contract.Result{}, err
	}
	f, r, err := known(ctx, in.Disk)
	if r != nil || err != nil {
		return refuse(in.Disk, contract.RehomeWorkflow, r), err
	}
	result := contract.Result{Disk: in.Disk, Operation: contract.RehomeWorkflow, Outcome: contract.Done, Node: in.Node}
	if in.DryRun {
		result.Outcome, result.Steps = contract.Planned, []string{"take it down on " + f.Node(), "attach it to " + in.Node}
		return result, nil
	}
	f.Volumes[0].Node = in.Node
	return result, workflow.ExecuteActivity(ctx, "put", f, 0).Get(ctx, nil)
}

func (w *world) deleteDisk(ctx workflow.Context, in contract.DeleteDiskInput) (contract.Result, error) {
	ctx, _, err := begin(ctx, in.Disk, contract.DeleteDiskWorkflow, 2)
	if err != nil {
		return contract.Result{}, err
	}
	_, r, err := known(ctx, in.Disk)
	if r != nil || err != nil {
		return refuse(in.Disk, contract.DeleteDiskWorkflow, r), err
	}
	return contract.Result{Disk: in.Disk, Operation: contract.DeleteDiskWorkflow, Outcome: contract.Done},
		workflow.ExecuteActivity(ctx, "drop", in.Disk).Get(ctx, nil)
}
