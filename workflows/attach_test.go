package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// stick refuses the first n calls of an activity, and shows each next one what
// the operation says it waits for.
func (w *world) stick(activity string, code contract.RefusalCode, n int) *[]string {
	var said []string
	w.hook = func(name string, _ int, after bool) error {
		if name != activity || after {
			return nil
		}
		if v, err := w.env.QueryWorkflow(contract.QueryProgress); err == nil {
			var p contract.Progress
			if v.Get(&p) == nil && p.Waiting != "" {
				said = append(said, string(p.Phase)+": "+p.Waiting)
			}
		}
		if n--; n >= 0 {
			return contract.Refuse(code, "stuck on %s", nodeA).WithDisk(disk).WithVolume("vol-00000002").WithNext("reboot it")
		}
		return nil
	}
	return &said
}

func TestStuckAttachmentIsTriedAgain(t *testing.T) {
	w := made(t)
	said := w.stick("AttachVolume", contract.AttachStuck, 2)
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Equal(t, 3, w.count("AttachVolume"))
	require.Len(t, *said, 2)
	require.Contains(t, (*said)[0], "attach: volume vol-00000002")
	require.Contains(t, (*said)[0], "try 2 of 3")
	w.intact(nodeA)
}

func TestStuckAttachmentEndsTheOperation(t *testing.T) {
	w := made(t)
	w.stick("AttachVolume", contract.AttachStuck, 1000)
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Refused, r.Outcome)
	require.Equal(t, contract.AttachStuck, r.Refusal.Code)
	require.Contains(t, r.Refusal.Error(), nodeA)
	require.Contains(t, r.Refusal.Error(), "3 tries")
	require.Equal(t, "vol-00000002", r.Refusal.Volume)
	require.Equal(t, disk, r.Refusal.Disk)
	require.NotEmpty(t, r.Refusal.Next)
	require.Equal(t, 3, w.count("AttachVolume"))
	require.Len(t, w.vols, 1, "nothing is left behind")
	w.intact(nodeA)
}

func TestStuckDetachIsShownAndWaitedFor(t *testing.T) {
	w := made(t)
	said := w.stick("DetachVolume", contract.DetachStuck, 3)
	r := w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeB})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Len(t, *said, 3)
	require.Contains(t, (*said)[0], "rehome: volume vol-00000001 to come off: stuck on "+nodeA+"; next: reboot it")
	w.intact(nodeB)

	w.newEnv()
	w.stick("DetachVolume", contract.DetachStuck, 1000)
	r = w.run(contract.RehomeWorkflow, contract.RehomeInput{
		Disk: disk, Node: nodeA, Settings: contract.Settings{StepTimeout: 10 * time.Minute, AttachPatience: time.Minute},
	})
	require.Equal(t, contract.Refused, r.Outcome)
	require.Equal(t, contract.DetachStuck, r.Refusal.Code)
	require.Equal(t, 10, w.count("DetachVolume"))
	require.Equal(t, nodeB, w.vols["vol-00000001"].Node, "left as it is")

	// The next one takes it up.
	w.hook = nil
	w.newEnv()
	r = w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeA})
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	w.intact(nodeA)
}

// A retired volume that does not come off keeps no disk waiting: the shrink is
// done, and says so.
func TestStuckRetiredVolumeKeepsNothingWaiting(t *testing.T) {
	w := made(t)
	w.stick("DetachVolume", contract.DetachStuck, 1000)
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Done, r.Outcome)
	require.EqualValues(t, 2, r.Generation)
	require.Equal(t, contract.DetachStuck, r.Refusal.Code)
	require.Equal(t, 1, w.count("DetachVolume"))
	require.Equal(t, contract.RoleRetired, w.vols["vol-00000001"].Role)

	w.hook = nil
	w.use(2 * contract.GiB)
	w.newEnv()
	r = w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.Done, r.Outcome)
	require.Nil(t, r.Refusal)
	w.intact(nodeA)
}

// TestUndoOfAVolumeSeenInThePast: a new volume that describes do not show as attached
// comes off all the same, and is deleted.
func TestUndoOfAVolumeSeenInThePast(t *testing.T) {
	w := made(t)
	w.past = "vol-00000002"
	w.refuse["PrepareMove"] = contract.Refuse(contract.VolumeForeign, "other data").WithNext("use a blank volume")
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.VolumeForeign, r.Refusal.Code)
	require.Contains(t, w.deleted, w.past)
	w.intact(nodeA)
}

// TestNodeDiesBeforeAnAttach: the disk is brought to another node while the move is
// undone, with the new volume, which is then deleted there.
func TestNodeDiesBeforeAnAttach(t *testing.T) {
	w := made(t)
	died := false
	w.hook = func(name string, _ int, after bool) error {
		switch {
		case after:
		case name == "AttachVolume" && !died:
			died = true
			w.state(nodeA, "stopped")
			w.gone(nodeA, true)
			return contract.Refuse(contract.NodeUnknown, "instance %s is stopped", nodeA).WithNext("start it")
		case name == "DescribeDisk" && died && w.count("DetachVolume") == 0:
			w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeB, Dead: true})
		}
		return nil
	}
	r := w.run(contract.ShrinkWorkflow, shrinkIn)
	require.Equal(t, contract.NodeUnknown, r.Refusal.Code)
	require.Contains(t, w.deleted, "vol-00000002")
	w.intact(nodeB)
}
