package replay_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

// quick settings: a lost node is noticed within seconds.
var quick = contract.Settings{NodeTimeout: time.Second}

// TestStories runs each story on a disk of its own, against the real Temporal
// server and the EC2 simulator. Each history is replayed at once.
func TestStories(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	b := newBench(t)
	var n atomic.Int64
	story := func(name string, fn func(t *testing.T, b *bench, d contract.DiskID)) {
		t.Run(name, func(t *testing.T) {
			sub := &bench{t: t, sim: b.sim, nodes: b.nodes, c: b.c, api: b.api, agents: b.agents, restart: b.restart}
			fn(t, sub, contract.DiskID(fmt.Sprintf("d-%017x", n.Add(1))))
			require.Empty(t, sub.sim.Faults())
		})
	}

	story("shrink", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		r := b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d}, "shrink")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.EqualValues(t, 6, r.AfterGiB)
		require.NotEmpty(t, r.Snapshot)
		require.NoError(t, b.nodes.Verify(d, nodeA))
		vs := b.volumes(d)
		require.Len(t, vs[contract.RoleActive], 1)
		require.Equal(t, r.Volumes[0], vs[contract.RoleActive][0].ID)
		require.Equal(t, "a", vs[contract.RoleActive][0].Tags["team"], "user tags are carried")
		require.Len(t, vs[contract.RoleRetired], 1)
		require.Nil(t, vs[contract.RoleRetired][0].Attachment)
		require.Empty(t, vs[contract.RoleIncoming])

		// Its Retire workflow waits; one with a short grace deletes.
		id := contract.RetireWorkflowID(r.Retired[0])
		desc, err := b.c.DescribeWorkflowExecution(t.Context(), id, "")
		require.NoError(t, err)
		require.Equal(t, "Running", desc.WorkflowExecutionInfo.Status.String())
		require.NoError(t, b.c.TerminateWorkflow(t.Context(), id, "", "the test goes on"))
		run, err := b.c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: contract.ControlQueue},
			contract.RetireWorkflow, contract.RetireInput{Disk: d, Volume: r.Retired[0], Generation: 1, Grace: time.Millisecond})
		require.NoError(t, err)
		require.Equal(t, contract.Done, b.end(run, "retire").Outcome)
		require.Empty(t, b.volumes(d)[contract.RoleRetired])
	})

	story("grow", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		b.use(d, 19*contract.GiB)
		r := b.run(d, contract.GrowWorkflow, contract.GrowInput{Disk: d}, "grow")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.EqualValues(t, 25, r.AfterGiB)

		// EBS refuses the next one: the volume is still optimizing.
		b.use(d, 24*contract.GiB)
		run, err := b.c.SignalWithStartWorkflow(t.Context(), contract.WorkflowID(d), contract.SignalPressure,
			contract.Pressure{Node: nodeA, Generation: 1, BackingBytes: 25 * contract.GiB},
			client.StartWorkflowOptions{TaskQueue: contract.ControlQueue}, contract.GrowWorkflow, contract.GrowInput{Disk: d})
		require.NoError(t, err)
		r = b.end(run, "grow-append")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Len(t, r.Volumes, 2)
		require.Len(t, b.volumes(d)[contract.RoleActive], 2)

		// A shrink folds both into one.
		b.use(d, 4*contract.GiB)
		r = b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d}, "shrink-two")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Len(t, r.Volumes, 1)
		require.Len(t, r.Retired, 2)
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("a retired volume that is kept", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		r := b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d}, "")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		id := contract.RetireWorkflowID(r.Retired[0])
		require.NoError(t, b.c.CancelWorkflow(t.Context(), id, ""))
		var kept contract.Result
		require.NoError(t, b.c.GetWorkflow(t.Context(), id, "").Get(t.Context(), &kept))
		require.Equal(t, contract.Cancelled, kept.Outcome)

		// The next move finds it retired, and its grace over.
		r = b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d, Volume: contract.VolumeSpec{ThroughputMiBs: 250}, GracePeriod: time.Millisecond}, "")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		desc, err := b.c.DescribeWorkflowExecution(t.Context(), id, "")
		require.NoError(t, err)
		require.Equal(t, "Completed", desc.WorkflowExecutionInfo.Status.String())
		require.NoError(t, b.c.GetWorkflow(t.Context(), id, "").Get(t.Context(), &kept))
		require.Equal(t, contract.Cancelled, kept.Outcome, "no second one was begun")
	})

	story("refused", func(t *testing.T, b *bench, d contract.DiskID) {
		run := b.start(d, contract.ShrinkWorkflow, map[string]string{"disk": string(d)})
		r := b.end(run, "refused")
		require.Equal(t, contract.Refused, r.Outcome)
		require.Equal(t, contract.DiskUnknown, r.Refusal.Code)
		require.Contains(t, b.shown(run).details, "- refused: "+r.Refusal.Error())
	})

	for _, how := range []string{"signal", "temporal"} {
		story("cancelled by "+how, func(t *testing.T, b *bench, d contract.DiskID) {
			b.create(d)
			release := b.nodes.Hold()
			defer release()
			run := b.start(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d})
			b.phase(d, contract.PhaseCopy)
			if how == "signal" {
				require.NoError(t, b.c.SignalWorkflow(t.Context(), run.GetID(), run.GetRunID(), contract.SignalCancel, nil))
			} else {
				require.NoError(t, b.c.CancelWorkflow(t.Context(), run.GetID(), run.GetRunID()))
			}
			r := b.end(run, "cancelled-"+how)
			require.Equal(t, contract.Cancelled, r.Outcome)
			require.NoError(t, b.nodes.Verify(d, nodeA))
			require.Len(t, b.volumes(d)[contract.RoleActive], 1)
			require.Empty(t, b.volumes(d)[contract.RoleIncoming])
		})
	}

	story("node restarts in the copy", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		release := b.nodes.Hold()
		run := b.start(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d, Settings: quick})
		b.phase(d, contract.PhaseCopy)
		b.down(nodeA)
		b.waiting(d)
		release()
		b.up(nodeA)
		r := b.end(run, "node-restart")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("rehomed in the copy", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		release := b.nodes.Hold()
		run := b.start(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d})
		b.phase(d, contract.PhaseCopy)
		require.NoError(t, b.c.SignalWorkflow(t.Context(), run.GetID(), "", contract.SignalRehome, contract.RehomeInput{Node: nodeB}))
		require.Eventually(t, func() bool {
			at := ""
			b.nodes.With(d, func(k *stubnode.Disk) { at = k.Node })
			return at == nodeB
		}, 20*time.Second, 20*time.Millisecond)
		release()
		r := b.end(run, "rehomed")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.NoError(t, b.nodes.Verify(d, nodeB))

		r = b.run(d, contract.RehomeWorkflow, contract.RehomeInput{Disk: d, Node: nodeA}, "rehome")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("paused, throttled, pressed", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		release := b.nodes.Hold()
		run := b.start(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d})
		b.phase(d, contract.PhaseCopy)
		b.showsCopy(run, d)
		signal := func(name string, v any) {
			require.NoError(t, b.c.SignalWorkflow(t.Context(), run.GetID(), "", name, v))
		}
		signal(contract.SignalThrottle, contract.Throttle{MiBs: 7})
		signal(contract.SignalPause, nil)
		require.Eventually(t, func() (ok bool) {
			b.nodes.With(d, func(k *stubnode.Disk) { ok = k.Throttle.Paused && k.Throttle.MiBs == 7 })
			return ok
		}, 10*time.Second, 20*time.Millisecond)
		signal(contract.SignalPressure, contract.Pressure{Generation: 2, BackingBytes: 6 * contract.GiB})
		require.Eventually(t, func() (ok bool) {
			b.nodes.With(d, func(k *stubnode.Disk) { ok = k.Move != nil && k.Move.Members[0].Bytes == 8*contract.GiB })
			return ok
		}, 20*time.Second, 20*time.Millisecond)
		release()
		b.waiting(d)
		require.Contains(t, b.shown(run).details, "- paused\n- waiting: paused: resume it to go on")
		signal(contract.SignalResume, nil)
		r := b.end(run, "signals")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.EqualValues(t, 8, r.AfterGiB)
		require.NoError(t, b.nodes.Verify(d, nodeA))
		require.Equal(t, string(contract.PhaseDone), b.shown(run).attributes[contract.AttrPhase])
	})

	story("EC2 faults", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		for _, f := range []ec2sim.Fault{
			{Action: "CreateVolume", FailAsync: "vanish"},
			{Action: "AttachVolume", LoseAnswer: true},
			{Action: "CreateTags", Code: "RequestLimitExceeded"},
			{Action: "DetachVolume", Code: "InternalError", After: true},
		} {
			f.Count = 1
			b.sim.AddFault(f)
		}
		r := b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d, SkipSnapshot: true, Verify: contract.VerifyNone}, "ec2-faults")
		b.sim.ClearFaults()
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.NoError(t, b.nodes.Verify(d, nodeA))
		vs := b.volumes(d)
		require.Len(t, vs[contract.RoleActive], 1)
		require.Len(t, vs[contract.RoleRetired], 1)
		require.Empty(t, vs[contract.RoleIncoming])
	})

	story("worker restarts", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		release := b.nodes.Hold()
		run := b.start(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d})
		b.phase(d, contract.PhaseCopy)
		b.restart()
		release()
		r := b.end(run, "worker-restart")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("EBS is slow", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		b.use(d, 19*contract.GiB)
		b.sim.AddFault(ec2sim.Fault{Action: "ModifyVolume", DelayBefore: ec2sim.Duration(5 * time.Second)})
		r := b.run(d, contract.GrowWorkflow, contract.GrowInput{Disk: d, Settings: contract.Settings{ModifyPatience: time.Second}}, "grow-slow")
		b.sim.ClearFaults()
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Len(t, r.Volumes, 2)
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("missing permission", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		b.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", Code: "UnauthorizedOperation", Count: 100})
		r := b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d}, "permission")
		b.sim.ClearFaults()
		require.Equal(t, contract.PermissionMissing, r.Refusal.Code)
		require.Contains(t, r.Refusal.Next, "ec2:AttachVolume")
		require.Empty(t, b.volumes(d)[contract.RoleIncoming])
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("delete", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		r := b.run(d, contract.DeleteDiskWorkflow, contract.DeleteDiskInput{Disk: d}, "delete")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.NotEmpty(t, r.Snapshot)
		require.Empty(t, b.volumes(d))
	})
	tellMore(story)
}

func (b *bench) progress(d contract.DiskID) (p contract.Progress) {
	v, err := b.c.QueryWorkflow(b.t.Context(), contract.WorkflowID(d), "", contract.QueryProgress)
	if err == nil {
		err = v.Get(&p)
	}
	if err != nil {
		b.t.Logf("progress: %v", err)
	}
	return p
}

func (b *bench) phase(d contract.DiskID, want contract.Phase) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return b.progress(d).Phase == want }, 30*time.Second, 20*time.Millisecond)
}

func (b *bench) waiting(d contract.DiskID) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return b.progress(d).Waiting != "" }, 60*time.Second, 50*time.Millisecond)
}
