package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.uber.org/goleak"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/tests/devserver"
)

func TestAgentWithTemporal(t *testing.T) {
	address := freeAddress(t)
	c := startServer(t, address)
	calls := worker.New(c, callQueue, worker.Options{})
	calls.RegisterWorkflow(call)
	require.NoError(t, calls.Start())
	leak := goleak.IgnoreCurrent()

	d := newFakeDisks(testDisk)
	a := startAgent(t, d, address, nil)
	a.waitReady()
	require.Equal(t, 1, d.called("Reconcile"))

	t.Run("every activity", func(t *testing.T) { everyActivity(t, c, d) })
	t.Run("bad input", func(t *testing.T) { badInput(t, c, d) })
	t.Run("refusal", func(t *testing.T) {
		_, err := do(t, c, contract.MeasureDisk, contract.MeasureDiskInput{Disk: otherDisk})
		ref, ok := contract.AsRefusal(err)
		require.True(t, ok, "%v", err)
		require.Equal(t, contract.DiskUnknown, ref.Code)
		require.Equal(t, otherDisk, ref.Disk)
	})
	t.Run("panic is retried", func(t *testing.T) {
		n := 0
		d.handle(func(_ context.Context, call string, _ func(contract.CopyProgress)) error {
			if call == "CommitMove" {
				if n++; n == 1 {
					panic("a defect")
				}
			}
			return nil
		})
		defer d.handle(nil)
		var raw json.RawMessage
		require.NoError(t, startCall(t, c, contract.CommitMove, contract.MoveInput{Disk: testDisk, Move: "m-1"}, 3).Get(context.Background(), &raw))
		require.Equal(t, 2, n)
	})
	t.Run("cancellation arrives without progress", func(t *testing.T) { cancellation(t, c, d, a) })
	t.Run("pressure", func(t *testing.T) { pressure(t, c, d) })
	t.Run("metrics", func(t *testing.T) {
		code, text := a.get("/metrics")
		require.Equal(t, http.StatusOK, code)
		for _, want := range []string{
			`ebb_activities_total{activity="FormatDisk",outcome="ok"} 1`,
			`ebb_activity_errors_total{code="DiskUnknown"} 1`,
			`ebb_activity_errors_total{code="BadInput"}`,
			`ebb_disk_used_bytes{disk="` + string(testDisk) + `"}`,
			`ebb_pressure_signals_total{disk="` + string(testDisk) + `",kind="pressure"}`,
			`ebb_agent_ready 1`,
			`ebb_build_info{`,
		} {
			require.Contains(t, text, want)
		}
		require.NotContains(t, text, "ebb_move_done_bytes{", "no copy runs any more")
		code, _ = a.get("/healthz")
		require.Equal(t, http.StatusOK, code)
	})

	require.NoError(t, a.stop())
	calls.Stop() // its pollers come and go
	goleak.VerifyNone(t, leak)
}

func (f *fakeDisks) handle(on func(context.Context, string, func(contract.CopyProgress)) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = on
}

func everyActivity(t *testing.T, c client.Client, d *fakeDisks) {
	move := contract.MoveInput{Disk: testDisk, Move: "m-1"}
	m, err := do(t, c, contract.FormatDisk, contract.FormatDiskInput{
		Disk: testDisk, Name: "team/data", SizeBytes: 64 * contract.GiB, Volumes: []string{testVol}, Filesystem: contract.XFS, MountPath: "/mnt/data",
	})
	require.NoError(t, err)
	require.Equal(t, testDisk, m.Disk)
	_, err = do(t, c, contract.AssembleDisk, contract.AssembleDiskInput{Disk: testDisk, Volumes: []string{testVol}})
	require.NoError(t, err)
	m, err = do(t, c, contract.MeasureDisk, contract.MeasureDiskInput{Disk: testDisk})
	require.NoError(t, err)
	require.Equal(t, contract.GiB, m.PoolUsedBytes)
	past, err := do(t, c, contract.ReadHistory, contract.ReadHistoryInput{Disk: testDisk})
	require.NoError(t, err)
	require.Equal(t, []contract.HistoryHour{{Hour: time.Unix(500_000*3600, 0).UTC(), UsedMaxBytes: contract.GiB}}, past.Hours)
	survey, err := do(t, c, contract.SurveyNode, contract.SurveyInput{Disks: []contract.SurveyDisk{
		{Disk: testDisk, LookBack: time.Hour, Guide: &contract.Guide{CeilingGiB: 60}}, {Disk: otherDisk},
	}})
	require.NoError(t, err)
	require.Equal(t, contract.GiB, survey.Disks[0].Measurement.PoolUsedBytes)
	require.NotEmpty(t, survey.Disks[1].Problem)
	headers, err := do(t, c, contract.ReadHeaders, contract.ReadHeadersInput{Volumes: []string{testVol}})
	require.NoError(t, err)
	require.Equal(t, testVol, headers.Headers[0].Volume)
	trim, err := do(t, c, contract.TrimDisk, contract.TrimDiskInput{Disk: testDisk})
	require.NoError(t, err)
	require.EqualValues(t, 1, trim.TrimmedBytes)
	_, err = do(t, c, contract.GrowBacking, contract.GrowBackingInput{Disk: testDisk, Volume: testVol, Bytes: 8 * contract.GiB})
	require.NoError(t, err)
	_, err = do(t, c, contract.AppendVolume, contract.AppendVolumeInput{Disk: testDisk, Volume: testVol})
	require.NoError(t, err)
	_, err = do(t, c, contract.ExpandDisk, contract.ExpandDiskInput{Disk: testDisk, SizeBytes: 128 * contract.GiB})
	require.NoError(t, err)
	_, err = do(t, c, contract.PrepareMove, contract.PrepareMoveInput{Disk: testDisk, Move: "m-1", Generation: 2, Volumes: []string{testVol}})
	require.NoError(t, err)
	_, err = do(t, c, contract.ThrottleMove, contract.ThrottleMoveInput{Disk: testDisk, Move: "m-1", MiBs: 50})
	require.NoError(t, err)
	ev, err := do(t, c, contract.EvacuateDisk, move)
	require.NoError(t, err)
	require.EqualValues(t, 7, ev.CopiedBytes)
	v, err := do(t, c, contract.VerifyMove, move)
	require.NoError(t, err)
	require.EqualValues(t, 7, v.VerifiedBytes)
	cm, err := do(t, c, contract.CommitMove, move)
	require.NoError(t, err)
	require.EqualValues(t, 2, cm.Generation)
	rb, err := do(t, c, contract.RetireBacking, move)
	require.NoError(t, err)
	require.Equal(t, []string{testVol}, rb.Volumes)
	_, err = do(t, c, contract.AbortMove, move)
	require.NoError(t, err)
	_, err = do(t, c, contract.DisassembleDisk, contract.DisassembleDiskInput{Disk: testDisk})
	require.NoError(t, err)
	pf, err := do(t, c, contract.Preflight, contract.PreflightInput{})
	require.NoError(t, err)
	require.True(t, pf.OK)
	require.Equal(t, testNode, pf.Node)

	d.mu.Lock()
	defer d.mu.Unlock()
	require.Equal(t, contract.ThrottleMoveInput{Disk: testDisk, Move: "m-1", MiBs: 50}, d.inputs["Throttle"])
	for _, name := range []string{
		"Format", "Assemble", "Measure", "History", "Trim", "GrowBacking", "Append", "Expand", "PrepareMove", "Throttle",
		"Evacuate", "VerifyMove", "CommitMove", "RetireBacking", "AbortMove", "Disassemble",
	} {
		require.Contains(t, d.calls, name)
	}
}

func badInput(t *testing.T, c client.Client, d *fakeDisks) {
	before := d.called("Assemble") + d.called("Format") + d.called("PrepareMove") + d.called("GrowBacking")
	check := func(err error) {
		t.Helper()
		ref, ok := contract.AsRefusal(err)
		require.True(t, ok, "%v", err)
		require.Equal(t, contract.BadInput, ref.Code)
		require.NotEmpty(t, ref.Next)
	}
	_, err := do(t, c, contract.AssembleDisk, contract.AssembleDiskInput{Disk: "../../etc"})
	check(err)
	_, err = do(t, c, contract.AssembleDisk, contract.AssembleDiskInput{Disk: testDisk, Volumes: []string{"/dev/sda"}})
	check(err)
	_, err = do(t, c, contract.AssembleDisk, contract.AssembleDiskInput{Disk: testDisk, Volumes: []string{testVol, testVol}})
	check(err)
	_, err = do(t, c, contract.FormatDisk, contract.FormatDiskInput{Disk: testDisk, SizeBytes: 1, Volumes: nil, Filesystem: "btrfs", MountPath: "relative"})
	check(err)
	_, err = do(t, c, contract.PrepareMove, contract.PrepareMoveInput{Disk: testDisk, Move: "m 1; rm", Generation: 0})
	check(err)
	_, err = do(t, c, contract.GrowBacking, contract.GrowBackingInput{Disk: testDisk, Volume: testVol, Bytes: -1})
	check(err)
	require.Equal(t, before, d.called("Assemble")+d.called("Format")+d.called("PrepareMove")+d.called("GrowBacking"), "nothing was touched")
}

// cancellation of a copy that reports once and then hangs.
func cancellation(t *testing.T, c client.Client, d *fakeDisks, a *running) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	d.handle(func(ctx context.Context, call string, report func(contract.CopyProgress)) error {
		if call != "Evacuate" {
			return nil
		}
		report(contract.CopyProgress{DoneBytes: 5, TotalBytes: 10})
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	defer d.handle(nil)
	run := startCall(t, c, contract.EvacuateDisk, contract.MoveInput{Disk: testDisk, Move: "m-2"}, 1)
	var details contract.CopyProgress
	require.Eventually(t, func() bool {
		desc, err := c.DescribeWorkflowExecution(ctx, run.GetID(), "")
		if err != nil || len(desc.PendingActivities) == 0 {
			return false
		}
		hb := desc.PendingActivities[0].HeartbeatDetails
		return hb != nil && converter.GetDefaultDataConverter().FromPayloads(hb, &details) == nil && details.TotalBytes == 10
	}, 20*time.Second, 50*time.Millisecond, "progress arrives in a heartbeat")
	require.Equal(t, contract.PhaseCopy, details.Phase)
	_, text := a.get("/metrics")
	require.Contains(t, text, `ebb_move_done_bytes{disk="`+string(testDisk)+`",phase="copy"} 5`)

	require.NoError(t, c.CancelWorkflow(ctx, run.GetID(), ""))
	require.ErrorIs(t, <-ended, context.Canceled)
	var raw json.RawMessage
	err := run.Get(ctx, &raw)
	require.True(t, temporal.IsCanceledError(err), "%v", err)
}

// pressure starts Grow on a namespace that does not know Ebb's search
// attributes, and signals it while it runs.
func pressure(t *testing.T, c client.Client, d *fakeDisks) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	<-d.ready
	id := contract.WorkflowID(testDisk)
	began := time.Now()
	d.pressure(testDisk, disk.EventPressure)
	require.Eventually(t, func() bool {
		_, err := c.DescribeWorkflowExecution(ctx, id, "")
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
	require.Less(t, time.Since(began), time.Second)

	desc, err := c.DescribeWorkflowExecution(ctx, id, "")
	require.NoError(t, err)
	require.Equal(t, contract.GrowWorkflow, desc.WorkflowExecutionInfo.Type.Name)
	require.Equal(t, contract.ControlQueue, desc.ExecutionConfig.TaskQueue.Name)
	first := desc.WorkflowExecutionInfo.Execution.RunId

	// While it runs, a full pool is a signal to it, not a second one.
	d.pressure(testDisk, disk.EventFull)
	signals := func() (n int, last contract.Pressure) {
		h := c.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for h.HasNext() {
			ev, err := h.Next()
			require.NoError(t, err)
			if s := ev.GetWorkflowExecutionSignaledEventAttributes(); s != nil && s.SignalName == contract.SignalPressure {
				n++
				require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(s.Input, &last))
			}
		}
		return n, last
	}
	require.Eventually(t, func() bool { n, _ := signals(); return n == 2 }, 10*time.Second, 20*time.Millisecond)
	_, last := signals()
	require.Equal(t, testNode, last.Node)
	require.Equal(t, 4*contract.GiB, last.BackingBytes)
	desc, err = c.DescribeWorkflowExecution(ctx, id, "")
	require.NoError(t, err)
	require.Equal(t, first, desc.WorkflowExecutionInfo.Execution.RunId)
}

func TestAgentBootsWhileTemporalIsAway(t *testing.T) {
	devserver.Need(t)
	address := freeAddress(t)
	d := newFakeDisks(testDisk)
	a := startAgent(t, d, address, nil)
	<-d.ready // the disks are up and watched
	require.Equal(t, 1, d.called("Reconcile"))
	require.Eventually(t, func() bool {
		code, text := a.get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(text, "temporal is not reachable") && !strings.Contains(text, "reconcile:")
	}, 20*time.Second, 20*time.Millisecond)
	d.pressure(testDisk, disk.EventPressure) // must not be lost

	var known []string // as `ebb setup` registers them
	for _, name := range []string{contract.AttrDisk, contract.AttrNode, contract.AttrOperation, contract.AttrPhase} {
		known = append(known, "--search-attribute", name+"=Keyword")
	}
	c := startServer(t, address, known...)
	a.waitReady()
	var desc *workflowservice.DescribeWorkflowExecutionResponse
	require.Eventually(t, func() bool {
		var err error
		desc, err = c.DescribeWorkflowExecution(context.Background(), contract.WorkflowID(testDisk), "")
		return err == nil
	}, 15*time.Second, 50*time.Millisecond)
	attributes := desc.WorkflowExecutionInfo.SearchAttributes.GetIndexedFields()
	for name, want := range map[string]string{
		contract.AttrDisk: string(testDisk), contract.AttrNode: testNode, contract.AttrOperation: contract.GrowWorkflow,
	} {
		require.Equal(t, `"`+want+`"`, string(attributes[name].GetData()))
	}
	require.Contains(t, string(desc.ExecutionConfig.UserMetadata.GetSummary().GetData()), string(testDisk))

	// A copy that runs when the agent stops is picked up by the next agent.
	calls := worker.New(c, callQueue, worker.Options{})
	calls.RegisterWorkflow(call)
	require.NoError(t, calls.Start())
	defer calls.Stop()
	copying := make(chan struct{})
	d.handle(func(ctx context.Context, call string, report func(contract.CopyProgress)) error {
		if call == "Evacuate" {
			close(copying)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	run := startCall(t, c, contract.EvacuateDisk, contract.MoveInput{Disk: testDisk, Move: "m-1"}, 5)
	<-copying
	began := time.Now()
	require.NoError(t, a.stop())
	require.Less(t, time.Since(began), 10*time.Second, "a copy does not hold a stop up")

	d2 := newFakeDisks(testDisk)
	b := startAgent(t, d2, address, nil)
	var raw json.RawMessage
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, run.Get(ctx, &raw))
	require.Equal(t, 1, d2.called("Evacuate"))
	require.NoError(t, b.stop())
}

func TestAgentRefusesAnUnfitNode(t *testing.T) {
	d := newFakeDisks()
	a := startAgent(t, d, "127.0.0.1:1", func(o *Options) { o.Prober.Targets = fakeTargets{have: map[string]string{"linear": "1"}} })
	err := <-a.done
	ref, ok := contract.AsRefusal(err)
	require.True(t, ok, "%v", err)
	require.Equal(t, contract.NodeUnsupported, ref.Code)
	require.Zero(t, d.called("Reconcile"), "nothing was touched")
}

func TestAgentServesDisksWhenOneIsBroken(t *testing.T) {
	d := newFakeDisks(testDisk)
	d.handle(func(_ context.Context, call string, _ func(contract.CopyProgress)) error {
		if call == "Reconcile" {
			return contract.Refuse(contract.VolumeDamaged, "pool metadata is damaged").WithDisk(otherDisk)
		}
		return nil
	})
	a := startAgent(t, d, "127.0.0.1:1", nil)
	<-d.ready
	_, text := a.get("/readyz")
	require.Contains(t, text, "VolumeDamaged")
	require.NoError(t, a.stop())
}

func TestIdentityIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := NewUsage()
		n := 0
		a := New(Options{Logger: quiet(), Usage: u, Metrics: NewMetrics(u, "test"), Identity: func(context.Context) (string, error) {
			if n++; n < 5 {
				return "", errors.New("no route to host")
			}
			return testNode, nil
		}})
		node, err := a.identify(context.Background())
		require.NoError(t, err)
		require.Equal(t, testNode, node)

		a.options.Identity = func(context.Context) (string, error) { return "", errors.New("no route to host") }
		_, err = a.identify(context.Background())
		ref, ok := contract.AsRefusal(err)
		require.True(t, ok)
		require.Contains(t, ref.Next, "EBB_NODE")
	})
}

func TestAgentStopsWhileItStarts(t *testing.T) {
	for name, change := range map[string]func(*Options, *fakeDisks, chan struct{}){
		"identity": func(o *Options, _ *fakeDisks, reached chan struct{}) {
			o.Identity = func(ctx context.Context) (string, error) {
				close(reached)
				<-ctx.Done()
				return "", ctx.Err()
			}
		},
		"reconcile": func(_ *Options, d *fakeDisks, reached chan struct{}) {
			d.handle(func(ctx context.Context, _ string, _ func(contract.CopyProgress)) error {
				close(reached)
				<-ctx.Done()
				return ctx.Err()
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			leak := goleak.IgnoreCurrent()
			d, reached := newFakeDisks(testDisk), make(chan struct{})
			a := startAgent(t, d, "127.0.0.1:1", func(o *Options) { change(o, d, reached) })
			<-reached
			require.NoError(t, a.stop())
			goleak.VerifyNone(t, leak)
		})
	}
}

func TestAgentNeedsItsAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	a := startAgent(t, newFakeDisks(), "127.0.0.1:1", func(o *Options) { o.Listen = l.Addr().String() })
	require.ErrorContains(t, <-a.done, "address already in use")
}
