package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// dies makes a node's agent answer no more from the first call of an activity on.
// A call to the agent itself fails with it.
func (w *world) dies(activity, node string) {
	w.hook = func(name string, _ int, after bool) error {
		if name != activity || after || w.count(name) > 1 {
			return nil
		}
		w.gone(node, true)
		if name == string(contract.FormatDisk) {
			return errors.New("power cut")
		}
		return nil
	}
}

// gone says whether a node's agent answers. What was assembled there is not.
func (w *world) gone(node string, away bool) {
	w.mu.Lock()
	w.dead[node] = away
	w.mu.Unlock()
	if away {
		w.nodes.Off(node)
	}
}

func (w *world) state(node, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.instances[node].State = state
}

// asked is what the operation says of itself while it runs.
func (w *world) asked() (p contract.Progress) {
	v, err := w.env.QueryWorkflow(contract.QueryProgress)
	require.NoError(w.t, err)
	require.NoError(w.t, v.Get(&p))
	return p
}

// The node a disk shall go to is asked before anything changes.
func TestTargetMustAnswerFirst(t *testing.T) {
	broken := contract.Check{Name: "thin-pool", Detail: "the kernel has no dm-thin-pool", Next: "load dm_thin_pool"}
	for _, tt := range []struct {
		name string
		prep func(*world)
		code contract.RefusalCode
		next string
	}{
		{"no agent", func(w *world) { w.dead[nodeB] = true }, contract.NodeUnreachable, "node agent"},
		{"unfit", func(w *world) { w.nodes.Unfit(nodeB, broken) }, contract.NodeUnsupported, "load dm_thin_pool"},
	} {
		refused := func(t *testing.T, w *world, r contract.Result) {
			t.Helper()
			require.Equal(t, contract.Refused, r.Outcome)
			require.Equal(t, tt.code, r.Refusal.Code, r.Refusal.Error())
			require.Contains(t, r.Refusal.Message, nodeB)
			require.Contains(t, r.Refusal.Next, tt.next)
			require.Equal(t, disk, r.Refusal.Disk)
			for _, name := range []string{"DisassembleDisk", "DetachVolume", "AttachVolume", "CreateVolume", "FormatDisk"} {
				require.Zero(t, w.count(name), name)
			}
		}
		t.Run("rehome, "+tt.name, func(t *testing.T) {
			for _, dry := range []bool{false, true} {
				w := made(t)
				tt.prep(w)
				began := w.env.Now()
				r := w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeB, DryRun: dry})
				refused(t, w, r)
				require.Less(t, w.env.Now().Sub(began), time.Minute)
				w.intact(nodeA)
			}
		})
		t.Run("rehome of a dead node's disk, "+tt.name, func(t *testing.T) {
			w := made(t)
			tt.prep(w)
			w.gone(nodeA, true)
			w.state(nodeA, "stopped")
			r := w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeB, Dead: true})
			refused(t, w, r)
			require.Equal(t, nodeA, w.vols["vol-00000001"].Node)
		})
		t.Run("rehome of a running shrink, "+tt.name, func(t *testing.T) {
			w := made(t)
			tt.prep(w)
			w.at("VerifyMove", contract.SignalRehome, contract.RehomeInput{Node: nodeB})
			r := w.run(contract.ShrinkWorkflow, shrinkIn)
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			require.Zero(t, w.count("DisassembleDisk"))
			w.intact(nodeA)
		})
		t.Run("create, "+tt.name, func(t *testing.T) {
			for _, dry := range []bool{false, true} {
				w := newWorld(t)
				tt.prep(w)
				r := w.run(contract.CreateDiskWorkflow, contract.CreateDiskInput{Disk: disk, Node: nodeB, SizeBytes: 64 * contract.GiB, DryRun: dry})
				refused(t, w, r)
				require.Empty(t, w.vols)
			}
		})
	}
}

// What a node lacks for new disks alone keeps no disk from it.
func TestTargetThatCanMakeNoDisk(t *testing.T) {
	for _, name := range []string{"tools", "temporal"} {
		c := contract.Check{Name: name, Detail: "neither mkfs.xfs nor mkfs.ext4 is there", Next: "install xfsprogs"}
		w := made(t)
		w.nodes.Unfit(nodeB, c)
		r := w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeB})
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		w.intact(nodeB)

		w = newWorld(t)
		w.nodes.Unfit(nodeB, c)
		r = w.run(contract.CreateDiskWorkflow, contract.CreateDiskInput{Disk: disk, Node: nodeB, SizeBytes: 64 * contract.GiB})
		if name == "tools" {
			require.Equal(t, contract.NodeUnsupported, r.Refusal.Code)
			require.Empty(t, w.vols)
		} else {
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		}
	}
}

// A node that answered and then does not any more, with the disk attached to it.
func TestCancelWhileTheNewNodeIsAway(t *testing.T) {
	in := contract.RehomeInput{Disk: disk, Node: nodeB}
	// cancelled runs a rehome whose target dies, cancelled after five minutes;
	// prep adds what happens then. said is what it said a minute after the cancel.
	cancelled := func(t *testing.T, prep func(*world)) (w *world, r contract.Result, said contract.Progress) {
		t.Helper()
		w = made(t)
		w.dies("AttachVolume", nodeB)
		w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(contract.SignalCancel, nil) }, 5*time.Minute)
		w.env.RegisterDelayedCallback(func() { said = w.asked() }, 6*time.Minute)
		prep(w)
		return w, w.run(contract.RehomeWorkflow, in), said
	}
	t.Run("it is off", func(t *testing.T) {
		w := made(t)
		w.dies("AttachVolume", nodeB)
		began := w.env.Now()
		w.env.RegisterDelayedCallback(func() {
			w.state(nodeB, "stopped")
			w.env.SignalWorkflow(contract.SignalCancel, nil)
		}, 5*time.Minute)
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, nodeA, r.Node)
		require.Less(t, w.env.Now().Sub(began), 7*time.Minute, "at once")
		w.intact(nodeA)
	})
	t.Run("it runs, and is stopped later", func(t *testing.T) {
		w, r, said := cancelled(t, func(w *world) {
			w.env.RegisterDelayedCallback(func() { w.state(nodeB, "terminated") }, 2*time.Hour)
		})
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Contains(t, said.Waiting, "cancelled")
		require.Contains(t, said.Waiting, "stop")
		require.Contains(t, said.Waiting, nodeB)
		require.Contains(t, said.Waiting, nodeA)
		w.intact(nodeA)
	})
	t.Run("it runs, and comes back", func(t *testing.T) {
		w, r, said := cancelled(t, func(w *world) {
			w.env.RegisterDelayedCallback(func() { w.gone(nodeB, false) }, 2*time.Hour)
		})
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Contains(t, said.Waiting, "cancelled")
		w.intact(nodeB)
	})
	t.Run("there is no way back", func(t *testing.T) {
		w, r, said := cancelled(t, func(w *world) {
			w.env.RegisterDelayedCallback(func() {
				w.state(nodeB, "stopped")
				w.gone(nodeA, true)
			}, time.Minute)
			w.env.RegisterDelayedCallback(func() { w.gone(nodeA, false) }, time.Hour)
		})
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Contains(t, said.Waiting, "no agent answers on node "+nodeA)
		w.intact(nodeA)
	})
	t.Run("it is off, after another node was refused", func(t *testing.T) {
		w, r, said := cancelled(t, func(w *world) {
			w.env.RegisterDelayedCallback(func() {
				w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeC})
			}, 4*time.Minute)
			w.env.RegisterDelayedCallback(func() { w.state(nodeB, "stopped") }, time.Hour)
		})
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Contains(t, said.Waiting, "goes back to "+nodeA)
		w.intact(nodeA)
	})
	t.Run("a shrink is rehomed", func(t *testing.T) {
		w := made(t)
		release := w.nodes.Hold()
		defer release()
		w.hook = func(name string, _ int, after bool) error {
			if name == "EvacuateDisk" && !after && w.count(name) == 1 {
				w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeB})
			}
			if name == "DetachVolume" && !after && w.count(name) == 1 {
				w.gone(nodeB, true)
			}
			return nil
		}
		w.env.RegisterDelayedCallback(func() {
			w.state(nodeB, "stopped")
			w.env.SignalWorkflow(contract.SignalCancel, nil)
		}, 5*time.Minute)
		r := w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Len(t, w.vols, 1)
		w.intact(nodeA)
	})
	t.Run("the old node is away", func(t *testing.T) {
		w := made(t)
		w.dies("Preflight", nodeA) // the disk is not taken down: nothing is between two nodes
		w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(contract.SignalCancel, nil) }, 5*time.Minute)
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, nodeA, w.vols["vol-00000001"].Node)
		require.Zero(t, w.count("DetachVolume"))
	})
}

// A disk that was never finished holds nothing: what was made for it goes,
// whether its node answers or not.
func TestCreateDiskWhenItsNodeDies(t *testing.T) {
	in := contract.CreateDiskInput{Disk: disk, Node: nodeA, SizeBytes: 64 * contract.GiB}
	for _, at := range []string{"AttachVolume", "FormatDisk", "TagVolume"} {
		t.Run("cancelled, dead at "+at, func(t *testing.T) {
			w := newWorld(t)
			w.dies(at, nodeA)
			if dies := w.hook; at == "TagVolume" {
				w.hook = func(name string, n int, after bool) error {
					if name == at && !after {
						_ = dies(name, n, after)
						return contract.Refuse(contract.PermissionMissing, "ec2:CreateTags")
					}
					return nil
				}
			}
			began := w.env.Now()
			w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(contract.SignalCancel, nil) }, 5*time.Minute)
			r := w.run(contract.CreateDiskWorkflow, in)
			if at == "TagVolume" {
				require.Equal(t, contract.PermissionMissing, r.Refusal.Code)
			} else {
				require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
			}
			require.Less(t, w.env.Now().Sub(began), 10*time.Minute)
			require.Empty(t, w.vols, "%v", w.calls)
		})
	}
	t.Run("waited for in vain", func(t *testing.T) {
		w := newWorld(t)
		w.dies("FormatDisk", nodeA)
		r := w.run(contract.CreateDiskWorkflow, in)
		require.Equal(t, contract.Refused, r.Outcome)
		require.Equal(t, contract.NodeUnreachable, r.Refusal.Code)
		require.Contains(t, r.Refusal.Message, nodeA)
		require.NotEmpty(t, r.Refusal.Next)
		require.Empty(t, w.vols, "%v", w.calls)
	})
	t.Run("it comes back", func(t *testing.T) {
		w := newWorld(t)
		w.dies("FormatDisk", nodeA)
		w.env.RegisterDelayedCallback(func() { w.gone(nodeA, false) }, time.Hour)
		r := w.run(contract.CreateDiskWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		w.intact(nodeA)
	})
}
