package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/stubnode"
	"github.com/ebb-storage/ebb/workflows"
)

const (
	disk  = contract.DiskID("d-0123456789abcdef0")
	nodeA = "i-0000000000000000a"
	nodeB = "i-0000000000000000b"
	nodeC = "i-0000000000000000c" // another zone
	zone  = "us-east-1a"
)

// world is EC2 in memory, the nodes, and one workflow in Temporal's test
// environment.
type world struct {
	t     *testing.T
	env   *testsuite.TestWorkflowEnvironment
	nodes *stubnode.Nodes

	mu        sync.Mutex
	vols      map[string]*contract.VolumeFacts
	deleted   map[string]contract.VolumeFacts
	next      int
	instances map[string]*contract.NodeFacts
	dead      map[string]bool // no agent answers there
	refuse    map[string]*contract.Refusal
	past      string // a volume that describes show as it was before it was attached
	calls     []string
	// hook may fail a call before or after its effect; n counts all calls.
	hook func(name string, n int, after bool) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, vols: map[string]*contract.VolumeFacts{}, dead: map[string]bool{}, refuse: map[string]*contract.Refusal{}, deleted: map[string]contract.VolumeFacts{}, instances: map[string]*contract.NodeFacts{}}
	for n, z := range map[string]string{nodeA: zone, nodeB: zone, nodeC: "us-east-1b"} {
		w.instances[n] = &contract.NodeFacts{Node: n, State: "running", Zone: z, FreeSlots: 20}
	}
	w.nodes = stubnode.New(w)
	w.nodes.SetHook(func(name, node string, after bool) error {
		w.mu.Lock()
		dead := w.dead[node]
		w.mu.Unlock()
		if dead && !after {
			return temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
		}
		return w.called(name, after)
	})
	w.newEnv()
	return w
}

// newEnv prepares for the next workflow on the same world.
func (w *world) newEnv() {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	w.env = suite.NewTestWorkflowEnvironment()
	w.env.SetTestTimeout(20 * time.Second)
	workflows.Register(w.env)
	w.nodes.Register(w.env)
	w.register()
	w.calls = nil
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

// called counts a call and lets the hook fail it.
func (w *world) called(name string, after bool) error {
	w.mu.Lock()
	if !after {
		w.calls = append(w.calls, name)
	}
	n, hook, r := len(w.calls), w.hook, w.refuse[name]
	w.mu.Unlock()
	if r != nil && !after {
		return r
	}
	if hook == nil {
		return nil
	}
	return hook(name, n, after)
}

func (w *world) size(volume string) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v := w.vols[volume]; v != nil {
		return v.SizeGiB
	}
	return 0
}

func (w *world) count(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, c := range w.calls {
		if c == name {
			n++
		}
	}
	return n
}

// AttachedGiB implements stubnode.EC2.
func (w *world) AttachedGiB(node string) map[string]int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int64{}
	for _, v := range w.vols {
		if v.Node == node {
			out[v.ID] = v.SizeGiB
		}
	}
	return out
}

func (w *world) register() {
	on(w, contract.DescribeDisk, func(in contract.DescribeDiskInput) (contract.DiskFacts, error) {
		f := contract.DiskFacts{Disk: in.Disk, Name: "team/data"}
		for _, v := range w.vols {
			seen := *v
			if v.ID == w.past {
				seen.Node, seen.State = "", "available"
			}
			f.Volumes = append(f.Volumes, seen)
		}
		slices.SortFunc(f.Volumes, func(a, b contract.VolumeFacts) int { return strings.Compare(a.ID, b.ID) })
		return f, nil
	})
	on(w, contract.DescribeNode, func(in contract.DescribeNodeInput) (contract.NodeFacts, error) {
		if i := w.instances[in.Node]; i != nil {
			return *i, nil
		}
		return contract.NodeFacts{}, contract.Refuse(contract.NodeUnknown, "unknown")
	})
	on(w, contract.CreateVolume, w.create)
	on(w, contract.AttachVolume, func(in contract.AttachVolumeInput) (contract.VolumeFacts, error) {
		v, err := w.vol(in.Volume)
		if err == nil && v.Node != "" && v.Node != in.Node {
			err = contract.Refuse(contract.DiskBusy, "attached to %s", v.Node)
		}
		if err == nil {
			v.Node, v.State = in.Node, "in-use"
		}
		return v, w.put(v, err)
	})
	on(w, contract.DetachVolume, func(in contract.DetachVolumeInput) (contract.VolumeFacts, error) {
		v := w.vols[in.Volume]
		if v == nil {
			return contract.VolumeFacts{}, nil
		}
		if v.Node == in.Node {
			v.Node, v.State = "", "available"
		}
		return *v, nil
	})
	on(w, contract.ModifyVolume, func(in contract.ModifyVolumeInput) (contract.VolumeFacts, error) {
		v, err := w.vol(in.Volume)
		v.SizeGiB = max(v.SizeGiB, in.SizeGiB)
		if in.Type != "" {
			v.Type, v.IOPS, v.ThroughputMiBs = in.Type, in.IOPS, in.ThroughputMiBs
		}
		return v, w.put(v, err)
	})
	on(w, contract.TagVolume, func(in contract.TagVolumeInput) (struct{}, error) {
		v, err := w.vol(in.Volume)
		v.Role, v.Generation, v.RetiredAt = in.Role, in.Generation, in.RetiredAt
		return struct{}{}, w.put(v, err)
	})
	on(w, contract.DeleteVolume, func(in contract.DeleteVolumeInput) (struct{}, error) {
		v := w.vols[in.Volume]
		if v == nil {
			return struct{}{}, nil
		}
		if !slices.Contains(in.Roles, v.Role) {
			return struct{}{}, contract.Refuse(contract.DiskBusy, "volume is %s", v.Role).WithVolume(v.ID)
		}
		if v.Node != "" {
			return struct{}{}, contract.Refuse(contract.DetachStuck, "volume is on %q", v.Node).WithVolume(v.ID)
		}
		delete(w.vols, in.Volume)
		w.deleted[in.Volume] = *v
		return struct{}{}, nil
	})
	on(w, contract.WaitForBackups, func(contract.WaitForBackupsInput) (contract.WaitForBackupsResult, error) {
		return contract.WaitForBackupsResult{}, nil
	})
	on(w, contract.SnapshotDisk, func(in contract.SnapshotDiskInput) (contract.SnapshotDiskResult, error) {
		return contract.SnapshotDiskResult{Snapshots: []string{"snap-" + in.Volumes[0]}}, nil
	})
}

func on[In, Out any](w *world, a contract.Activity[In, Out], fn func(In) (Out, error)) {
	a.Register(w.env, func(ctx context.Context, in In) (out Out, err error) {
		if q := activity.GetInfo(ctx).TaskQueue; q != contract.ControlQueue {
			return out, fmt.Errorf("BROKEN: %s on queue %s", a, q)
		}
		if err = w.called(string(a), false); err == nil {
			w.mu.Lock()
			out, err = fn(in)
			w.mu.Unlock()
		}
		if err == nil {
			err = w.called(string(a), true)
		}
		if err != nil {
			var zero Out
			return zero, contract.ActivityError(err)
		}
		return out, nil
	})
}

func (w *world) vol(id string) (contract.VolumeFacts, error) {
	v := w.vols[id]
	if v == nil {
		return contract.VolumeFacts{}, contract.Refuse(contract.DiskIncomplete, "no volume").WithVolume(id)
	}
	return *v, nil
}

func (w *world) put(v contract.VolumeFacts, err error) error {
	if err == nil {
		w.vols[v.ID] = &v
	}
	return err
}

func (w *world) create(in contract.CreateVolumeInput) (contract.VolumeFacts, error) {
	for _, v := range w.vols {
		if v.Move == in.Move && v.Index == in.Index && v.Generation == in.Generation {
			return *v, nil
		}
	}
	w.next++
	v := contract.VolumeFacts{
		ID: fmt.Sprintf("vol-%08x", w.next), State: "available", SizeGiB: in.SizeGiB, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125,
		Zone: in.Zone, Role: in.Role, Generation: in.Generation, Index: in.Index, Move: in.Move,
	}
	return v, w.put(v, nil)
}

// made makes a disk of 64 GiB with a backing of 20 GiB on nodeA.
func made(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	r := w.run(contract.CreateDiskWorkflow, contract.CreateDiskInput{
		Disk: disk, Name: "team/data", Node: nodeA, SizeBytes: 64 * contract.GiB, BackingGiB: 20, MountPath: "/data",
	})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	w.use(4 * contract.GiB)
	w.newEnv()
	return w
}

func (w *world) use(bytes int64) {
	w.nodes.With(disk, func(d *stubnode.Disk) { d.UsedBytes = bytes })
}

// run runs a workflow to its end; it must not fail.
func (w *world) run(name string, in any) contract.Result {
	w.t.Helper()
	r, err := w.try(name, in)
	require.NoError(w.t, err)
	return r
}

func (w *world) try(name string, in any) (contract.Result, error) {
	w.t.Helper()
	w.env.ExecuteWorkflow(name, in)
	require.True(w.t, w.env.IsWorkflowCompleted(), "calls: %v", w.calls)
	if err := w.env.GetWorkflowError(); err != nil {
		return contract.Result{}, err
	}
	var r contract.Result
	require.NoError(w.t, w.env.GetWorkflowResult(&r))
	return r, nil
}

// at sends a signal when the activity is called the first time.
func (w *world) at(name, signal string, payload any) {
	sent := false
	w.hook = func(called string, _ int, after bool) error {
		if called == name && !after && !sent {
			sent = true
			w.env.SignalWorkflow(signal, payload)
		}
		return nil
	}
}

// intact checks what must hold after every end: the disk is up on node with all
// its members, nothing of it was deleted, no move is left, and every volume is
// the disk's, or retired.
func (w *world) intact(node string) {
	w.t.Helper()
	require.NoError(w.t, w.nodes.Verify(disk, node), "calls: %v", w.calls)
	w.nodes.With(disk, func(d *stubnode.Disk) {
		for _, m := range d.Members {
			v := w.vols[m.Volume]
			require.NotNil(w.t, v, "member %s was deleted", m.Volume)
			require.Equal(w.t, contract.RoleActive, v.Role, "member %s; calls %v", v.ID, w.calls)
			require.Equal(w.t, d.Generation, v.Generation)
		}
		for _, v := range w.vols {
			member := slices.ContainsFunc(d.Members, func(m contract.Member) bool { return m.Volume == v.ID })
			require.True(w.t, member || v.Role == contract.RoleRetired && v.Node == "", "volume left behind: %+v; calls %v", *v, w.calls)
		}
	})
}
