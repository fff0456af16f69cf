package chaos

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/lab"
)

// What a scenario's disk is like. The throttle makes a copy that is to be struck
// last some seconds. The timeouts are shorter than by default; a node that is cut
// off boots within nodeTimeout, one that is dead is not waited for as long.
const (
	diskSize     = "8GiB"
	fillBytes    = 100 << 20
	fillFile     = 1 << 20 // each file of those, give or take half
	throttleMiBs = 16
	pressureFill = 500 << 20
	nodeTimeout  = 15 * time.Second
	deadTimeout  = 5 * time.Second
	limit        = 7 * time.Minute // of a scenario
	opLimit      = 5 * time.Minute // of its operation
)

// world is one lane: its scenarios run one after the other on the same lab. One
// that fails leaves its lab to be looked at; the next one gets a new one.
type world struct {
	dir    string
	seed   int64
	report *report
	labs   int      // made so far
	lab    *lab.Lab // nil: none yet, or it was given up
}

// row of the table of what was run.
type row struct {
	scenario string
	outcome  contract.Outcome
	prepare  time.Duration
	took     time.Duration // the operation
	check    time.Duration
	remove   time.Duration
	stall    time.Duration // longest write
	acked    uint64
	failed   bool
}

// stage is one scenario under way.
type stage struct {
	w      *world
	disk   contract.DiskID
	name   string
	node   int   // where the disk is to be
	dead   []int // nodes that were killed
	fs     string
	run    client.WorkflowRun
	writer *writer
	before contract.Measurement
	broken string // the volume that a strike broke, if any
	lost   string // the file that it made unreadable, if any
}

// run plays one scenario.
func (w *world) run(t *testing.T, sc scenario) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	require.NoError(t, w.whole(ctx))
	s := &stage{w: w, name: fmt.Sprintf("c%d", sc.number), fs: []string{"xfs", "ext4"}[sc.number%2]}
	r := row{scenario: sc.String(), failed: true}
	defer func() {
		w.report.add(r)
		if t.Failed() {
			s.explain(t)
			require.NoError(t, w.close())
			return
		}
		w.lab.EC2.ClearFaults()
		w.lab.EC2.SetStaleDescribe(0)
	}()
	began := time.Now()
	lap := func(d *time.Duration) { *d, began = time.Since(began), time.Now() }
	require.NoError(t, s.prepare(ctx, sc))
	lap(&r.prepare)
	if sc.op.appends() {
		w.lab.EC2.AddFault(refuseModify)
	}
	if sc.what.arm != nil {
		sc.what.arm(s)
	}
	if m, ok := sc.when.(inCall); ok {
		m.arm(s)
	}
	require.NoError(t, s.begin(ctx, sc))
	if sc.what.do != nil {
		require.NoError(t, sc.when.wait(ctx, s), "the moment did not come")
		require.NoError(t, sc.what.do(ctx, s))
	}
	result, err := s.result(ctx)
	require.NoError(t, err)
	if sc.op.byItself() {
		require.NoError(t, s.filled(ctx))
	}
	lap(&r.took)
	r.outcome = result.Outcome
	require.Contains(t, sc.outcomes(), result.Outcome, "%+v", result)
	if result.Outcome == contract.Refused {
		require.Equal(t, sc.code(), result.Refusal.Code, "%+v", result)
		if s.broken != "" {
			require.Equal(t, s.broken, result.Refusal.Volume, "%+v", result)
		}
	}
	if sc.ends != "" {
		require.NoError(t, s.endedIn(ctx, sc.op, sc.ends))
	}
	if sc.what.mend != nil {
		require.NoError(t, sc.what.mend(ctx, s))
	}
	err = s.check(ctx, sc, result)
	lap(&r.check)
	r.stall, r.acked = time.Duration(s.writer.total.LongestStallMS)*time.Millisecond, s.writer.total.Acked
	require.NoError(t, err)
	require.True(t, s.met(), "the call that was to go wrong was not made")
	w.lab.EC2.ClearFaults()
	require.NoError(t, s.remove(ctx))
	lap(&r.remove)
	r.failed = false
}

// prepare makes the scenario's disk, fills it and starts the writer.
func (s *stage) prepare(ctx context.Context, sc scenario) error {
	l := s.w.lab
	mount := "/tmp/" + s.name
	backing := "2GiB"
	if sc.op != shrinkOp { // foldOp's is grown below
		backing = "1GiB"
	}
	var r contract.Result
	err := l.EbbJSON(ctx, &r, "disk", "create", s.name, "--size", diskSize, "--backing", backing, "--fs", s.fs,
		"--node", lab.NodeID(s.node), "--mount", mount)
	if err != nil {
		return err
	}
	s.disk = r.Disk
	s.writer = newWriter(l, s.name, mount)
	fill := fillBytes
	if sc.op.byItself() {
		fill, s.writer.bytes, s.writer.pause = pressureFill, "1048576", "10ms"
	}
	if _, err := l.Sh(ctx, s.node, fmt.Sprintf("%s write %s %s -bytes %d -until %d", l.Bin("ackwriter"), mount, s.writer.journal, fillFile, fill)); err != nil {
		return err
	}
	if sc.op == foldOp {
		if err := s.unfold(ctx); err != nil {
			return err
		}
	}
	if s.before, err = s.measure(ctx); err != nil {
		return err
	}
	return s.writer.start(ctx, s.node)
}

// unfold brings the disk from one volume to two.
func (s *stage) unfold(ctx context.Context) error {
	c, err := s.w.lab.Client(ctx)
	if err != nil {
		return err
	}
	s.w.lab.EC2.AddFault(refuseModify)
	defer s.w.lab.EC2.ClearFaults()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: contract.WorkflowID(s.disk), TaskQueue: contract.ControlQueue},
		contract.GrowWorkflow, contract.GrowInput{Disk: s.disk, ToGiB: 2, Reason: "a second volume"})
	if err != nil {
		return err
	}
	var r contract.Result
	if err := run.Get(ctx, &r); err != nil || r.Outcome != contract.Done || len(r.Volumes) != 2 {
		return fmt.Errorf("give the disk a second volume: %+v, %w", r, err)
	}
	return nil
}

// begin starts the operation. Its node is missed sooner than by default.
func (s *stage) begin(ctx context.Context, sc scenario) error {
	c, err := s.w.lab.Client(ctx)
	if err != nil {
		return err
	}
	s.w.lab.EC2.ResetCalls()
	if sc.op.byItself() {
		return s.pressed(ctx, c)
	}
	set := contract.Settings{NodeTimeout: nodeTimeout, HeartbeatTimeout: contract.LeastHeartbeat}
	if sc.what.name == nodeDies.name {
		set.NodeTimeout = deadTimeout
	}
	var in any
	switch sc.op {
	case shrinkOp, foldOp:
		shrink := contract.ShrinkInput{Disk: s.disk, ToGiB: 1, GracePeriod: time.Second, Settings: set}
		if sc.inCopy() {
			shrink.ThrottleMiBs = throttleMiBs
		}
		in = shrink
	default:
		in = contract.GrowInput{Disk: s.disk, ToGiB: 2, Reason: "chaos", Settings: set}
	}
	s.run, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: contract.WorkflowID(s.disk), TaskQueue: contract.ControlQueue,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
	}, sc.op.workflow(), in)
	return err
}

// pressed waits until the agent has asked for growth.
func (s *stage) pressed(ctx context.Context, c client.Client) error {
	return s.w.lab.Until(ctx, 2*time.Minute, "the agent asks for growth", func(ctx context.Context) error {
		d, err := c.DescribeWorkflowExecution(ctx, contract.WorkflowID(s.disk), "")
		if err != nil {
			return err
		}
		info := d.GetWorkflowExecutionInfo()
		if name := info.GetType().GetName(); name != contract.GrowWorkflow {
			return fmt.Errorf("the last operation is %s", name)
		}
		s.run = c.GetWorkflow(ctx, info.GetExecution().GetWorkflowId(), info.GetExecution().GetRunId())
		return nil
	})
}

// filled waits until the writer has filled more than the first backing, and no
// growth is under way.
func (s *stage) filled(ctx context.Context) error {
	return s.w.lab.Until(ctx, 3*time.Minute, "the disk holds more than its first backing", func(ctx context.Context) error {
		m, err := s.measure(ctx)
		if err != nil || m.PoolUsedBytes > s.before.BackingBytes {
			return err
		}
		return fmt.Errorf("%d bytes are used", m.PoolUsedBytes)
	})
}

// result waits for the operation's end. Temporal may be away meanwhile.
func (s *stage) result(ctx context.Context) (contract.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, opLimit)
	defer cancel()
	for {
		var r contract.Result
		err := s.run.Get(ctx, &r)
		var failed *temporal.WorkflowExecutionError
		if err == nil || errors.As(err, &failed) || ctx.Err() != nil {
			return r, err
		}
		if sleep(ctx, 200*time.Millisecond) != nil {
			return r, err
		}
	}
}

func (s *stage) measure(ctx context.Context) (contract.Measurement, error) {
	v, err := s.show(ctx)
	if err == nil && v.Measurement == nil {
		err = fmt.Errorf("disk %s was not measured: %s", s.disk, v.Unmeasured)
	}
	if err != nil {
		return contract.Measurement{}, err
	}
	return *v.Measurement, nil
}

// view is what "ebb disk show -o json" prints.
type view struct {
	Node        string                 `json:"node"`
	Volumes     []contract.VolumeFacts `json:"volumes"`
	Measurement *contract.Measurement  `json:"measurement"`
	Unmeasured  string                 `json:"unmeasured"`
}

func (s *stage) show(ctx context.Context) (view, error) {
	var v view
	err := s.w.lab.EbbJSON(ctx, &v, "disk", "show", string(s.disk))
	return v, err
}

// remove deletes the disk and its snapshots.
func (s *stage) remove(ctx context.Context) error {
	if _, err := s.w.lab.Ebb(ctx, "disk", "delete", string(s.disk), "--yes", "--no-snapshot"); err != nil {
		return err
	}
	if err := s.w.lab.Until(ctx, time.Minute, "every volume of the disk is gone", func(context.Context) error {
		if v := s.volumes(); len(v) > 0 {
			return fmt.Errorf("EC2 has %+v", v)
		}
		return nil
	}); err != nil {
		return err
	}
	return s.deleteSnapshots(ctx)
}
