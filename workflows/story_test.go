package workflows_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

func TestGrow(t *testing.T) {
	grow := contract.GrowInput{Disk: disk}
	full := contract.Pressure{Node: nodeA, Generation: 1, BackingBytes: 20 * contract.GiB}
	size := func(w *world) int64 { return w.vols["vol-00000001"].SizeGiB }

	t.Run("by usage", func(t *testing.T) {
		w := made(t)
		w.use(19 * contract.GiB)
		r := w.run(contract.GrowWorkflow, grow)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.EqualValues(t, 20, r.BeforeGiB)
		require.EqualValues(t, 25, r.AfterGiB)
		require.EqualValues(t, 25, size(w))
		require.Equal(t, []string{"DescribeDisk", "MeasureDisk", "ModifyVolume", "GrowBacking"}, w.calls)
		w.intact(nodeA)
	})
	t.Run("to a size", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.GrowWorkflow, contract.GrowInput{Disk: disk, ToGiB: 33})
		require.Equal(t, contract.Done, r.Outcome)
		require.EqualValues(t, 33, r.AfterGiB)
	})
	t.Run("enough", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.GrowWorkflow, grow)
		require.Equal(t, contract.Refused, r.Outcome)
		require.Equal(t, contract.NothingToGrow, r.Refusal.Code)
	})
	t.Run("beyond the ceiling", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.GrowWorkflow, contract.GrowInput{Disk: disk, ToGiB: 100})
		require.Equal(t, contract.AtCeiling, r.Refusal.Code)
	})
	t.Run("dry run", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.GrowWorkflow, contract.GrowInput{Disk: disk, ToGiB: 30, DryRun: true})
		require.Equal(t, contract.Planned, r.Outcome)
		require.NotEmpty(t, r.Steps)
		require.Zero(t, w.count("ModifyVolume"))
	})
	// The agent's SignalWithStart: one growth, however the signal is ordered.
	for _, delay := range []time.Duration{0, time.Millisecond} {
		t.Run(fmt.Sprint("started by pressure ", delay), func(t *testing.T) {
			w := made(t)
			w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(contract.SignalPressure, full) }, delay)
			if delay > 0 {
				w.use(19 * contract.GiB)
			}
			r := w.run(contract.GrowWorkflow, grow)
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			require.Equal(t, 1, w.count("ModifyVolume"), "%v", w.calls)
			require.EqualValues(t, 25, size(w))
		})
	}
	t.Run("pressure again", func(t *testing.T) {
		w := made(t)
		w.env.RegisterDelayedCallback(func() { w.env.SignalWorkflow(contract.SignalPressure, full) }, 0)
		w.at("GrowBacking", contract.SignalPressure, contract.Pressure{Generation: 1, BackingBytes: 25 * contract.GiB})
		r := w.run(contract.GrowWorkflow, grow)
		require.Equal(t, contract.Done, r.Outcome)
		require.Equal(t, 2, w.count("ModifyVolume"))
		require.EqualValues(t, 32, size(w))
	})
	for _, code := range []contract.RefusalCode{contract.ModificationLimit, contract.SizeLimit} {
		t.Run("another volume, "+string(code), func(t *testing.T) {
			w := made(t)
			w.refuse["ModifyVolume"] = contract.Refuse(code, "no")
			w.use(19 * contract.GiB)
			r := w.run(contract.GrowWorkflow, grow)
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			require.EqualValues(t, 25, r.AfterGiB)
			require.Len(t, r.Volumes, 2)
			require.EqualValues(t, 5, w.vols["vol-00000002"].SizeGiB)
			w.intact(nodeA)
		})
	}
	t.Run("another volume, refused by the node", func(t *testing.T) {
		w := made(t)
		w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "no")
		w.refuse["AppendVolume"] = contract.Refuse(contract.VolumeForeign, "data on it")
		w.use(19 * contract.GiB)
		r := w.run(contract.GrowWorkflow, grow)
		require.Equal(t, contract.VolumeForeign, r.Refusal.Code)
		require.Len(t, w.vols, 1)
		w.intact(nodeA)
	})
	t.Run("another volume, refused after it became part of the backing", func(t *testing.T) {
		w := made(t)
		w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "no")
		w.hook = func(name string, _ int, after bool) error {
			if name == "AppendVolume" && after {
				return contract.Refuse(contract.VolumeDamaged, "the pool is read-only")
			}
			return nil
		}
		w.use(19 * contract.GiB)
		r := w.run(contract.GrowWorkflow, grow)
		require.Equal(t, contract.VolumeDamaged, r.Refusal.Code)
		require.Len(t, w.vols, 2)
		w.intact(nodeA)
	})
	t.Run("a modification that came late", func(t *testing.T) {
		w := made(t)
		w.vols["vol-00000001"].SizeGiB = 30
		w.use(19 * contract.GiB)
		r := w.run(contract.GrowWorkflow, grow)
		require.Equal(t, contract.Done, r.Outcome)
		require.EqualValues(t, 30, r.AfterGiB)
		require.Zero(t, w.count("ModifyVolume"))
	})
	t.Run("another refusal", func(t *testing.T) {
		w := made(t)
		w.refuse["ModifyVolume"] = contract.Refuse(contract.PermissionMissing, "ec2:ModifyVolume")
		w.use(19 * contract.GiB)
		r := w.run(contract.GrowWorkflow, grow)
		require.Equal(t, contract.PermissionMissing, r.Refusal.Code)
		w.intact(nodeA)
	})
	// A move whose workflow is gone fills its new backing: it is given up when
	// EBS does not help, and its volume deleted.
	t.Run("orphan move", func(t *testing.T) {
		for _, refuse := range []bool{false, true} {
			w := orphanMove(t)
			if refuse {
				w.refuse["ModifyVolume"] = contract.Refuse(contract.ModificationLimit, "no")
			}
			w.env.RegisterDelayedCallback(func() {
				w.env.SignalWorkflow(contract.SignalPressure, contract.Pressure{Generation: 2, BackingBytes: 6 * contract.GiB})
			}, 0)
			r := w.run(contract.GrowWorkflow, grow)
			require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
			if refuse {
				w.intact(nodeA)
				require.Len(t, w.vols, 1)
			} else {
				require.EqualValues(t, 8, w.vols["vol-00000002"].SizeGiB)
			}
		}
	})
}

// orphanMove leaves a move in the copy phase whose workflow ended.
func orphanMove(t *testing.T) *world {
	t.Helper()
	w := made(t)
	w.hook = func(name string, _ int, after bool) error {
		if !after && (name == "EvacuateDisk" || name == "AbortMove") {
			w.mu.Lock()
			w.dead[nodeA] = true
			w.mu.Unlock()
			return errors.New("away")
		}
		return nil
	}
	_, err := w.try(contract.ShrinkWorkflow, contract.ShrinkInput{Disk: disk, Settings: contract.Settings{NodePatience: time.Minute}})
	require.Error(t, err)
	w.hook = nil
	w.dead[nodeA] = false
	w.newEnv()
	w.nodes.With(disk, func(d *stubnode.Disk) { require.NotNil(t, d.Move) })
	return w
}

func TestShrinkDropsAnOrphanMoveThatDoesNotFit(t *testing.T) {
	w := orphanMove(t)
	r := w.run(contract.ShrinkWorkflow, contract.ShrinkInput{Disk: disk, ToGiB: 9})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.EqualValues(t, 9, r.AfterGiB)
	require.Contains(t, w.deleted, "vol-00000002")
	w.intact(nodeA)
}

func TestCreateDisk(t *testing.T) {
	in := contract.CreateDiskInput{Disk: disk, Node: nodeA, SizeBytes: 64 * contract.GiB}
	t.Run("defaults", func(t *testing.T) {
		w := newWorld(t)
		r := w.run(contract.CreateDiskWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.EqualValues(t, 4, r.AfterGiB)
		w.intact(nodeA)
		n := len(w.calls)
		require.Equal(t, []string{"DescribeDisk", "DescribeNode", "Preflight", "CreateVolume", "AttachVolume", "FormatDisk", "TagVolume"}, w.calls)

		// Refused at every call: nothing is left.
		for i := 1; i < n; i++ {
			w := newWorld(t)
			w.hook = func(_ string, at int, after bool) error {
				if at == i && !after {
					return contract.Refuse(contract.EC2Refused, "call %d", i)
				}
				return nil
			}
			r := w.run(contract.CreateDiskWorkflow, in)
			require.Equal(t, contract.Refused, r.Outcome)
			require.Empty(t, w.vols, "refused at %d: %v", i, w.calls)
		}
		// Cancelled at every call: nothing is left, or it is done.
		for i := 1; i <= n; i++ {
			w := newWorld(t)
			w.hook = func(_ string, at int, after bool) error {
				if at == i && !after {
					w.env.SignalWorkflow(contract.SignalCancel, nil)
					time.Sleep(10 * time.Millisecond)
				}
				return nil
			}
			r := w.run(contract.CreateDiskWorkflow, in)
			if r.Outcome == contract.Cancelled {
				require.Empty(t, w.vols, "cancelled at %d: %v", i, w.calls)
			} else {
				w.nodes.With(disk, func(d *stubnode.Disk) { require.NotNil(t, d) })
				require.Len(t, w.vols, 1)
			}
		}
	})
	t.Run("too little for the filesystem itself", func(t *testing.T) {
		for fs, least := range map[contract.Filesystem]int64{"": 3, contract.XFS: 3, contract.Ext4: 1} {
			in := in
			in.Filesystem, in.SizeBytes, in.DryRun = fs, 4<<40, true
			for in.BackingGiB = 1; in.BackingGiB <= least; in.BackingGiB++ {
				r := newWorld(t).run(contract.CreateDiskWorkflow, in)
				if in.BackingGiB == least {
					require.Equal(t, contract.Planned, r.Outcome, "%+v", r.Refusal)
					continue
				}
				require.Equal(t, contract.BadInput, r.Refusal.Code)
				require.Contains(t, r.Refusal.Message, "want 3 at least")
				require.NotEmpty(t, r.Refusal.Next)
			}
		}
	})
	t.Run("again", func(t *testing.T) {
		w := newWorld(t)
		in := in
		in.Name = "team/data"
		w.run(contract.CreateDiskWorkflow, in)
		w.newEnv()
		r := w.run(contract.CreateDiskWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "the same disk is fine")
		w.newEnv()
		in.SizeBytes *= 2
		r = w.run(contract.CreateDiskWorkflow, in)
		require.Equal(t, contract.DiskExists, r.Refusal.Code)
		w.intact(nodeA)
	})
	t.Run("finishes what an earlier one began", func(t *testing.T) {
		w := newWorld(t)
		w.hook = func(name string, _ int, after bool) error {
			if !after && (name == "TagVolume" || name == "DeleteVolume") { // nor can it be undone
				return contract.Refuse(contract.PermissionMissing, "ec2")
			}
			return nil
		}
		_, err := w.try(contract.CreateDiskWorkflow, in)
		require.ErrorContains(t, err, "what is left stays for the next operation")
		require.Len(t, w.vols, 1)
		w.hook = nil
		w.newEnv()
		r := w.run(contract.CreateDiskWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		w.intact(nodeA)
	})
	for _, tt := range []struct {
		name string
		edit func(*contract.CreateDiskInput)
		code contract.RefusalCode
	}{
		{"odd size", func(in *contract.CreateDiskInput) { in.SizeBytes++ }, contract.BadInput},
		{"bad node", func(in *contract.CreateDiskInput) { in.Node = "node-1" }, contract.BadInput},
		{"unknown node", func(in *contract.CreateDiskInput) { in.Node = "i-00000000000000099" }, contract.NodeUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			in := in
			tt.edit(&in)
			r := w.run(contract.CreateDiskWorkflow, in)
			require.Equal(t, tt.code, r.Refusal.Code)
			require.Empty(t, w.vols)
		})
	}
}

func TestRehome(t *testing.T) {
	in := contract.RehomeInput{Disk: disk, Node: nodeB}
	t.Run("alive", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, nodeB, r.Node)
		w.intact(nodeB)
	})
	t.Run("dead", func(t *testing.T) {
		w := made(t)
		w.dead[nodeA], w.instances[nodeA].State = true, "stopped"
		w.nodes.Off(nodeA)
		r := w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeB, Dead: true})
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Zero(t, w.count("DisassembleDisk"))
		w.intact(nodeB)
	})
	t.Run("dead, but EC2 says it runs", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeB, Dead: true})
		require.Equal(t, contract.DiskBusy, r.Refusal.Code)
		w.intact(nodeA)
	})
	t.Run("in use", func(t *testing.T) {
		w := made(t)
		w.nodes.With(disk, func(d *stubnode.Disk) { d.Busy = true })
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.DiskBusy, r.Refusal.Code)
		w.intact(nodeA)
	})
	t.Run("another zone", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeC})
		require.Equal(t, contract.ZoneMismatch, r.Refusal.Code)
		w.intact(nodeA)
	})
	t.Run("the new node refuses", func(t *testing.T) {
		w := made(t)
		w.hook = func(name string, _ int, after bool) error {
			if name == "AssembleDisk" && !after && w.count(name) == 1 {
				return contract.Refuse(contract.NodeUnsupported, "no dm-thin")
			}
			return nil
		}
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.NodeUnsupported, r.Refusal.Code)
		require.Equal(t, nodeA, r.Node)
		w.intact(nodeA)
	})
	t.Run("it may not be detached: it is up where it was", func(t *testing.T) {
		w := made(t)
		w.refuse["DetachVolume"] = contract.Refuse(contract.PermissionMissing, "ec2:DetachVolume").WithNext("allow it")
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.PermissionMissing, r.Refusal.Code)
		require.Equal(t, 1, w.count("DisassembleDisk"))
		w.intact(nodeA)
	})
	t.Run("a cancel does not leave it between", func(t *testing.T) {
		w := made(t)
		w.at("AttachVolume", contract.SignalCancel, nil)
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome)
		w.intact(nodeB)
	})
	t.Run("the new node is away, another is named", func(t *testing.T) {
		w := made(t)
		w.dies("AttachVolume", nodeB)
		w.env.RegisterDelayedCallback(func() {
			w.env.SignalWorkflow(contract.SignalCancel, nil)
			w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeA, Dead: true})
		}, time.Minute)
		w.env.RegisterDelayedCallback(func() {
			w.mu.Lock()
			w.instances[nodeB].State = "stopped"
			w.mu.Unlock()
			w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeA, Dead: true})
		}, 2*time.Minute)
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, nodeA, r.Node)
		w.intact(nodeA)
	})
	t.Run("a running move comes along", func(t *testing.T) {
		w := orphanMove(t)
		r := w.run(contract.RehomeWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome)
		require.Equal(t, nodeB, w.vols["vol-00000002"].Node)
		w.newEnv()
		r = w.run(contract.ShrinkWorkflow, shrinkIn)
		require.Equal(t, contract.Done, r.Outcome)
		w.intact(nodeB)
	})
	t.Run("dry run", func(t *testing.T) {
		w := made(t)
		dry := in
		dry.DryRun = true
		r := w.run(contract.RehomeWorkflow, dry)
		require.Equal(t, contract.Planned, r.Outcome)
		require.Contains(t, strings.Join(r.Steps, "\n"), "bring volume vol-00000001 to "+nodeB)
		w.intact(nodeA)
	})
	t.Run("lost answers", func(t *testing.T) {
		for n := 1; n <= 8; n++ {
			w := made(t)
			failed := false
			w.hook = func(_ string, i int, after bool) error {
				if i == n && after && !failed {
					failed = true
					return errors.New("the answer was lost")
				}
				return nil
			}
			r := w.run(contract.RehomeWorkflow, in)
			require.Equal(t, contract.Done, r.Outcome, "%d: %+v", n, r.Refusal)
			w.intact(nodeB)
		}
	})
}

func TestExpand(t *testing.T) {
	w := made(t)
	r := w.run(contract.ExpandWorkflow, contract.ExpandInput{Disk: disk, SizeBytes: 128 * contract.GiB})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	w.nodes.With(disk, func(d *stubnode.Disk) { require.Equal(t, 128*contract.GiB, d.SizeBytes) })
	w.newEnv()
	r = w.run(contract.ExpandWorkflow, contract.ExpandInput{Disk: disk, SizeBytes: 64 * contract.GiB})
	require.Equal(t, contract.BadInput, r.Refusal.Code)
	w.intact(nodeA)
}

func TestDeleteDisk(t *testing.T) {
	in := contract.DeleteDiskInput{Disk: disk}
	t.Run("with a snapshot", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.DeleteDiskWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, "snap-vol-00000001", r.Snapshot)
		require.Empty(t, w.vols)
	})
	t.Run("dry run", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.DeleteDiskWorkflow, contract.DeleteDiskInput{Disk: disk, DryRun: true})
		require.Equal(t, contract.Planned, r.Outcome)
		w.intact(nodeA)
	})
	t.Run("in use", func(t *testing.T) {
		w := made(t)
		w.nodes.With(disk, func(d *stubnode.Disk) { d.Busy = true })
		r := w.run(contract.DeleteDiskWorkflow, in)
		require.Equal(t, contract.DiskBusy, r.Refusal.Code)
		w.intact(nodeA)
	})
	t.Run("no snapshot possible", func(t *testing.T) {
		w := made(t)
		w.refuse["SnapshotDisk"] = contract.Refuse(contract.PermissionMissing, "ec2:CreateSnapshot")
		r := w.run(contract.DeleteDiskWorkflow, in)
		require.Equal(t, contract.PermissionMissing, r.Refusal.Code)
		w.intact(nodeA)
	})
	t.Run("cancelled", func(t *testing.T) {
		w := made(t)
		w.at("SnapshotDisk", contract.SignalCancel, nil)
		r := w.run(contract.DeleteDiskWorkflow, in)
		require.Equal(t, contract.Cancelled, r.Outcome)
		w.intact(nodeA)
	})
	t.Run("a move in it", func(t *testing.T) {
		w := orphanMove(t)
		r := w.run(contract.DeleteDiskWorkflow, in)
		require.Equal(t, contract.Done, r.Outcome)
		require.Empty(t, w.vols)
	})
	t.Run("unknown", func(t *testing.T) {
		w := newWorld(t)
		r := w.run(contract.DeleteDiskWorkflow, in)
		require.Equal(t, contract.DiskUnknown, r.Refusal.Code)
	})
}
