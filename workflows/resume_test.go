package workflows_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

// asItIs is the volume that made's disk has.
var asItIs = contract.VolumeSpec{Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}

// left is a disk with a move that no operation carries on: its node was away for too
// long. By now it is back.
func left(t *testing.T, in contract.ShrinkInput) *world {
	t.Helper()
	w := made(t)
	w.hook = func(name string, _ int, after bool) error {
		if name == "EvacuateDisk" && !after {
			w.gone(nodeA, true)
			return errors.New("power cut")
		}
		return nil
	}
	in.Settings.NodePatience = 2 * time.Hour
	_, err := w.try(contract.ShrinkWorkflow, in)
	require.ErrorContains(t, err, "no agent has answered")
	w.dead[nodeA], w.hook = false, nil
	w.newEnv()
	w.run(contract.RehomeWorkflow, contract.RehomeInput{Disk: disk, Node: nodeA})
	w.newEnv()
	return w
}

// A move is taken up by whoever asks for just such a volume.
func TestShrinkTakesUpAMoveToTheSameVolume(t *testing.T) {
	in := contract.ShrinkInput{Disk: disk, ToGiB: 6, Volume: asItIs}
	w := left(t, in)
	r := w.run(contract.ShrinkWorkflow, in)
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Zero(t, w.count("CreateVolume"), "the move was taken up")
	w.intact(nodeA)

	w = left(t, in)
	in.Volume.ThroughputMiBs = 150
	r = w.run(contract.ShrinkWorkflow, in)
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Equal(t, 1, w.count("CreateVolume"), "it was to another volume")
	w.intact(nodeA)
}

// A move that changes nothing is none.
func TestShrinkToWhatThereIs(t *testing.T) {
	w := made(t)
	r := w.run(contract.ShrinkWorkflow, contract.ShrinkInput{Disk: disk, ToGiB: 20, Volume: asItIs})
	require.Equal(t, contract.Refused, r.Outcome)
	require.Equal(t, contract.NoRoomToShrink, r.Refusal.Code)
}

// Taking a move up ends with the move, or without one: what else the disk may need the
// next run decides.
func TestShrinkThatOnlyResumes(t *testing.T) {
	only := contract.ShrinkInput{Disk: disk, ResumeOnly: true}
	t.Run("the move", func(t *testing.T) {
		w := left(t, shrinkIn)
		r := w.run(contract.ShrinkWorkflow, only)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Zero(t, w.count("CreateVolume"))
		require.Equal(t, []int64{20, 6}, []int64{r.BeforeGiB, r.AfterGiB})
		w.intact(nodeA)
	})
	t.Run("no move", func(t *testing.T) {
		w := made(t)
		r := w.run(contract.ShrinkWorkflow, only)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Zero(t, w.count("CreateVolume")+w.count("SnapshotDisk")+w.count("RetireBacking"))
		require.Equal(t, []int64{20, 20}, []int64{r.BeforeGiB, r.AfterGiB})
		w.intact(nodeA)
	})
	t.Run("a move that cannot go on", func(t *testing.T) {
		w := left(t, shrinkIn)
		w.nodes.With(disk, func(d *stubnode.Disk) { d.Move.Failure = "the new volume failed" })
		r := w.run(contract.ShrinkWorkflow, only)
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Zero(t, w.count("CreateVolume")+w.count("SnapshotDisk"))
		require.Equal(t, []int64{20, 20}, []int64{r.BeforeGiB, r.AfterGiB})
		require.Len(t, w.vols, 1, "what the move made is gone")
		w.intact(nodeA)
	})
}
