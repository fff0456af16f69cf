package enforce_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/acked"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/lab"
	"github.com/ebb-storage/ebb/tests/node"
)

// policy lets a disk follow what it holds within minutes. With days instead it
// would do the same in weeks.
const policy = `
apiVersion: ebb.io/v1alpha1
kind: Policy
metadata: {name: enforce-test}
budgets: {moves: 4, movesPerNode: 2}
defaults:
  mode: enforce
  target: 80%
  headroom: {bytes: 192MiB, percent: 10%, fillTime: 1s}
  grow: {minStep: STEP}
  shrink: {min: 1GiB, minPercent: 10%, lookBack: 0s, quiet: 20s, payback: 3650d}
  move: {snapshot: false, grace: 15s}
`

const gib = float64(contract.GiB)

// plan is how a test runs.
type plan struct {
	nodes, each int
	stagger     time.Duration // between the loads of two disks
	hold        time.Duration // at each level
	settle      time.Duration // for the last level
	levels      []float64     // GiB held, one after the other
	last        []float64     // of disk i: last[i%len(last)]
	lasts       time.Duration // in all, at least
	least       float64       // utilization at the end
	backing     string        // of a new disk: too much
	step        string        // of a growth, at least
	impatient   bool          // runs begin by hand, every 10 s, as well
}

func TestEnforce(t *testing.T) {
	p := plan{
		nodes: 1, each: 2, stagger: 5 * time.Second, hold: 50 * time.Second, settle: 5 * time.Minute, impatient: true,
		// A step of one GiB is coarse for disks so small.
		levels: []float64{0.5, 2.2, 0.8}, last: []float64{1.5, 2.35}, least: 0.45, backing: "4GiB", step: "1GiB",
	}
	if os.Getenv("EBB_TEST_FULL") != "" {
		p = plan{
			nodes: 2, each: 5, stagger: 12 * time.Second, hold: 3 * time.Minute, settle: 5 * time.Minute, lasts: 20 * time.Minute,
			// A disk grows in whole GiB and has four growths a day, each larger than the one
			// before. These loads need none or one, and end where whole GiB fit. A pool has 0.1
			// GiB less than xfs counts, which has not written all of its log, and 0.35 more than
			// ext4 does, which does not count its journal: 1.6 of 2 GiB and 2.25 of 3 are used.
			levels: []float64{1, 1.5, 0.8}, last: []float64{1.68, 1.9}, least: 0.75, backing: "6GiB", step: "1GiB",
		}
	}
	run(t, p)
}

// disk is one disk with its load.
type disk struct {
	n     int // which
	node  int
	id    contract.DiskID
	mount string
	live  node.Process
	out   bytes.Buffer
}

func (d *disk) journal(l *lab.Lab, set string) string {
	return filepath.Join(l.Nodes[d.node].Dir(), fmt.Sprintf("%s-%d.journal", set, d.n))
}

// summary is what a run saw.
type summary struct {
	Disks            int     `json:"disks"`
	Minutes          float64 `json:"minutes"`
	UtilizationStart float64 `json:"utilization_start"`
	UtilizationEnd   float64 `json:"utilization_end"`
	Grows            int     `json:"grows"`
	Shrinks          int     `json:"shrinks"`
	OtherOutcomes    int     `json:"refused_or_failed"`
	Runs             int     `json:"rightsize_runs"`
	Acked            uint64  `json:"acknowledged_writes"`
	Lost             uint64  `json:"lost_writes"`
	Wrong            uint64  `json:"wrong_checksums"`
	Failed           uint64  `json:"failed_writes"`
	LongestStallMS   int64   `json:"longest_write_stall_ms"`
	FullSamples      int     `json:"samples_full"`
	Samples          int     `json:"samples"`
	VolumesAtEnd     int     `json:"volumes_at_end"`

	mu sync.Mutex
}

func run(t *testing.T, p plan) {
	if err := node.OwnKernel(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Minute)
	defer cancel()
	dir := t.TempDir()
	l, err := lab.Start(ctx, lab.Options{Dir: dir, Nodes: p.nodes, EC2: ec2sim.Options{NoSnapshotData: true}})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			keepLogs(t, dir)
		}
		require.NoError(t, l.Close())
	})
	began := time.Now()
	say := func(format string, a ...any) {
		t.Logf("%6.1f s  %s", time.Since(began).Seconds(), fmt.Sprintf(format, a...))
	}

	// Over-provisioned disks, a quarter used.
	var disks []*disk
	for n := range p.nodes * p.each {
		d := &disk{n: n, node: n % p.nodes, mount: fmt.Sprintf("/tmp/d%d", n)}
		var r contract.Result
		fs := "xfs"
		if n%2 == 1 {
			fs = "ext4"
		}
		require.NoError(t, l.EbbJSON(ctx, &r, "disk", "create", fmt.Sprintf("team/data-%d", n), "--size", "32GiB", "--backing", p.backing,
			"--fs", fs, "--node", lab.NodeID(d.node), "--mount", d.mount))
		d.id = r.Disk
		disks = append(disks, d)
	}
	for _, d := range disks {
		require.NoError(t, d.begin(ctx, l))
	}
	require.NoError(t, each(disks, func(d *disk) error { return d.hold(ctx, l, p.levels[0]) }))
	s := &summary{Disks: len(disks)}
	s.UtilizationStart = utilization(ctx, t, l, s)
	say("%d disks hold %.1f GiB each, utilization %.0f%%; policy on", len(disks), p.levels[0], 100*s.UtilizationStart)

	file := filepath.Join(dir, "policy.yaml")
	require.NoError(t, os.WriteFile(file, []byte(strings.Replace(policy, "STEP", p.step, 1)), 0o644))
	_, err = l.Ebb(ctx, "schedule", "apply", "--policy", file, "--every", "1m", "--jitter", "1s", "--feed", "30s")
	require.NoError(t, err)
	enforced := time.Now()

	// The load changes; somebody looks all the time.
	watching, stop := context.WithCancel(ctx)
	var seen sync.WaitGroup
	seen.Go(func() {
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-watching.Done():
				return
			case <-tick.C:
				if p.impatient {
					_, _ = l.Ebb(watching, "schedule", "run", "rightsize")
				}
				if u, err := look(watching, l, s); err == nil {
					say("utilization %.0f%%", 100*u)
				}
			}
		}
	})
	err = each(disks, func(d *disk) error {
		if err := wait(ctx, time.Duration(d.n)*p.stagger); err != nil {
			return err
		}
		for i, level := range p.levels[1:] {
			if err := wait(ctx, p.hold); err != nil {
				return err
			}
			if err := d.hold(ctx, l, level); err != nil {
				return err
			}
			say("disk %d holds %.1f GiB (level %d)", d.n, level, i+1)
		}
		if err := wait(ctx, p.hold); err != nil {
			return err
		}
		return d.hold(ctx, l, p.last[d.n%len(p.last)])
	})
	require.NoError(t, err)
	say("the load has its last level")

	// It settles where it should, and stays there.
	err = wait(ctx, p.lasts-time.Since(enforced))
	require.NoError(t, err)
	err = l.Until(ctx, p.settle, fmt.Sprintf("utilization is at least %.0f%%", 100*p.least), func(ctx context.Context) error {
		u, err := look(ctx, l, s)
		if err == nil && u < p.least {
			err = fmt.Errorf("utilization %.1f%%", 100*u)
		}
		return err
	})
	stop()
	seen.Wait()
	require.NoError(t, err)
	require.NoError(t, pause(ctx, l), "no operation is left running")
	s.UtilizationEnd = utilization(ctx, t, l, s)
	s.Minutes = time.Since(enforced).Minutes()

	require.NoError(t, each(disks, func(d *disk) error { return d.end(ctx, l, s) }))
	operations(ctx, t, l, s)
	require.NoError(t, l.Until(ctx, time.Minute, "retired volumes are gone", func(context.Context) error {
		if s.VolumesAtEnd = len(l.EC2.Volumes()); s.VolumesAtEnd > len(disks)+s.Disks/2 {
			return fmt.Errorf("%d volumes", s.VolumesAtEnd)
		}
		return nil
	}))
	write(t, s)
	require.Zero(t, s.Failed)
	require.Zero(t, s.Lost+s.Wrong)
	require.Positive(t, s.Shrinks)
	require.Positive(t, s.Grows)
	require.GreaterOrEqual(t, s.UtilizationEnd, p.least)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// each does the same with every disk at the same time.
func each(disks []*disk, do func(*disk) error) error {
	errs := make(chan error, len(disks))
	for _, d := range disks {
		go func() { errs <- do(d) }()
	}
	var first error
	for range disks {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// begin starts the writer that never stops. A node of ours has one thread for all
// flushes of all its disks: ten a second of each would leave a move little.
func (d *disk) begin(ctx context.Context, l *lab.Lab) (err error) {
	if _, err := l.Sh(ctx, d.node, fmt.Sprintf("mkdir %s/bulk %[1]s/live", d.mount)); err != nil {
		return err
	}
	d.live, err = l.Nodes[d.node].Start(context.WithoutCancel(ctx), node.Command{
		Path: l.Bin("ackwriter"), Args: []string{"write", d.mount + "/live", d.journal(l, "live"), "-bytes", "16384", "-pause", "500ms"},
		Stdout: &d.out, Stderr: &d.out,
	})
	return err
}

// hold writes or deletes until so much is used.
func (d *disk) hold(ctx context.Context, l *lab.Lab, level float64) error {
	out, err := l.Sh(ctx, d.node, "sync; df -B1 --output=used "+d.mount+" | tail -1")
	if err != nil {
		return err
	}
	used, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil {
		return err
	}
	script := fmt.Sprintf("%s write %s/bulk %s -bytes 2097152 -until %.0f", l.Bin("ackwriter"), d.mount, d.journal(l, "bulk"), level*gib-used)
	if level*gib < used {
		script = fmt.Sprintf("%s delete %s/bulk %s -keep %.0f", l.Bin("ackwriter"), d.mount, d.journal(l, "bulk"), used/(level*gib)+0.5)
	}
	_, err = l.Sh(ctx, d.node, script)
	return err
}

// end stops the writer and reads everything back.
func (d *disk) end(ctx context.Context, l *lab.Lab, s *summary) error {
	if err := d.live.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if code, err := d.live.Wait(); err != nil || code != 0 {
		return fmt.Errorf("disk %d: the writer ended with %d (%w): %s", d.n, code, err, d.out.String())
	}
	var st acked.Stats
	if err := json.Unmarshal(d.out.Bytes(), &st); err != nil {
		return err
	}
	s.mu.Lock()
	s.Failed += st.Failed
	s.LongestStallMS = max(s.LongestStallMS, st.LongestStallMS)
	s.mu.Unlock()
	for _, set := range []string{"bulk", "live"} {
		out, err := l.Sh(ctx, d.node, fmt.Sprintf("echo 3 > /proc/sys/vm/drop_caches; %s check %s/%s %s || true", l.Bin("ackwriter"), d.mount, set, d.journal(l, set)))
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(out, "\n")
		var r acked.Report
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return fmt.Errorf("disk %d: %w: %s", d.n, err, out)
		}
		s.mu.Lock()
		s.Acked += r.Acked
		s.Lost += r.Lost
		s.Wrong += r.Wrong
		s.mu.Unlock()
	}
	return nil
}

// look measures all disks once: used by what is paid for.
func look(ctx context.Context, l *lab.Lab, s *summary) (float64, error) {
	var list struct {
		Disks []struct {
			Measurement *contract.Measurement `json:"measurement"`
		} `json:"disks"`
	}
	if err := l.EbbJSON(ctx, &list, "disk", "list"); err != nil {
		return 0, err
	}
	var used, backing int64
	for _, d := range list.Disks {
		if d.Measurement == nil {
			return 0, fmt.Errorf("a disk was not measured")
		}
		if d.Measurement.Full {
			s.FullSamples++
		}
		s.Samples++
		used += d.Measurement.PoolUsedBytes
		backing += d.Measurement.BackingBytes
	}
	if backing == 0 {
		return 0, fmt.Errorf("no disk")
	}
	return float64(used) / float64(backing), nil
}

func utilization(ctx context.Context, t *testing.T, l *lab.Lab, s *summary) float64 {
	t.Helper()
	u, err := look(ctx, l, s)
	require.NoError(t, err)
	return u
}

// pause ends the schedule and waits until nothing runs on any disk.
func pause(ctx context.Context, l *lab.Lab) error {
	if _, err := l.Ebb(ctx, "schedule", "pause", "all"); err != nil {
		return err
	}
	c, err := l.Client(ctx)
	if err != nil {
		return err
	}
	return l.Until(ctx, 5*time.Minute, "all operations have ended", func(ctx context.Context) error {
		n, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Namespace: "default", Query: `WorkflowId STARTS_WITH "disk/" AND ExecutionStatus = "Running"`,
		})
		if err == nil && n.GetCount() > 0 {
			err = fmt.Errorf("%d operations run", n.GetCount())
		}
		return err
	})
}

// operations counts what was done.
func operations(ctx context.Context, t *testing.T, l *lab.Lab, s *summary) {
	t.Helper()
	c, err := l.Client(ctx)
	require.NoError(t, err)
	var page []byte
	for {
		res, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Namespace: "default", PageSize: 500, NextPageToken: page})
		require.NoError(t, err)
		for _, w := range res.GetExecutions() {
			id, typ := w.GetExecution().GetWorkflowId(), w.GetType().GetName()
			if typ == contract.RightsizeWorkflow {
				s.Runs++
			}
			if !strings.HasPrefix(id, "disk/") || typ == contract.CreateDiskWorkflow {
				continue
			}
			var r contract.Result
			err := c.GetWorkflow(ctx, id, w.GetExecution().GetRunId()).Get(ctx, &r)
			switch {
			case err != nil || w.GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED || r.Outcome != contract.Done:
				s.OtherOutcomes++
				t.Logf("%s %s: %v %+v %v", typ, id, r.Outcome, r.Refusal, err)
			case typ == contract.GrowWorkflow:
				s.Grows++
			case typ == contract.ShrinkWorkflow:
				s.Shrinks++
			}
		}
		if page = res.GetNextPageToken(); len(page) == 0 {
			return
		}
	}
}

func write(t *testing.T, s *summary) {
	t.Helper()
	b, err := json.MarshalIndent(s, "", "  ")
	require.NoError(t, err)
	t.Logf("%s", b)
	if to := os.Getenv("EBB_ENFORCE_SUMMARY"); to != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
		require.NoError(t, os.WriteFile(to, append(b, '\n'), 0o644))
	}
}

func keepLogs(t *testing.T, dir string) {
	names, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && !strings.HasSuffix(name, "temporal.log") {
			t.Logf("%s:\n%s", filepath.Base(name), b[max(0, len(b)-5000):])
		}
	}
}
