package workflows_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

// left makes a volume of the disk, attached nowhere, that its tags say nothing
// needs.
func (w *world) left(n int, role contract.Role, generation uint64) contract.Leftover {
	v := contract.VolumeFacts{
		ID: fmt.Sprintf("vol-%08x", 0x900+n), State: "available", SizeGiB: 10, Type: "gp3", Zone: zone, Role: role, Generation: generation,
	}
	w.vols[v.ID] = &v
	if role == contract.RoleRetired {
		w.nodes.With(disk, func(d *stubnode.Disk) { d.Retired[generation] = append(d.Retired[generation], v.ID) })
	}
	return contract.Leftover{Disk: disk, Volume: v.ID, GiB: 10, Role: role, Generation: generation, Zone: zone, Reason: "tests left it"}
}

// TestCleanLooksAgainAfterARehome: the assembly on the other node goes on with a
// move that the old node knew nothing of.
func TestCleanLooksAgainAfterARehome(t *testing.T) {
	w := made(t)
	l := w.left(1, contract.RoleIncoming, 2)
	sent := false
	w.hook = func(name string, _ int, after bool) error {
		switch {
		case name == string(contract.MeasureDisk) && !sent:
			sent = true
			w.env.SignalWorkflow(contract.SignalRehome, contract.RehomeInput{Node: nodeB})
		case name == string(contract.AssembleDisk) && after:
			w.nodes.With(disk, func(d *stubnode.Disk) {
				d.Move = &contract.MoveState{Move: "m", Generation: 2, Members: []contract.Member{{Volume: l.Volume}}}
			})
		}
		return nil
	}
	r := w.run(contract.CleanWorkflow, contract.CleanInput{Disk: disk, Leftovers: []contract.Leftover{l}})
	require.Len(t, r.Fates, 1)
	require.False(t, r.Fates[0].Deleted)
	require.Contains(t, r.Fates[0].Why, "node "+nodeB+" uses it")
	require.Equal(t, nodeB, w.vols[l.Volume].Node, "a volume in use is not detached")
}

// TestCleanDetachesNothingInUse: an agent may take up a volume as soon as it is
// attached.
func TestCleanDetachesNothingInUse(t *testing.T) {
	w := made(t)
	l := w.left(1, contract.RoleIncoming, 2)
	w.hook = func(name string, _ int, after bool) error {
		if name == string(contract.AttachVolume) && after {
			w.nodes.With(disk, func(d *stubnode.Disk) {
				d.Move = &contract.MoveState{Move: "m", Generation: 2, Members: []contract.Member{{Volume: l.Volume}}}
			})
		}
		return nil
	}
	r := w.run(contract.CleanWorkflow, contract.CleanInput{Disk: disk, Leftovers: []contract.Leftover{l}})
	require.Contains(t, r.Fates[0].Why, "has it open")
	require.Zero(t, w.count(string(contract.DetachVolume)))
}

// TestCleanMakesRoom: a disk does not fill up while what it does not need is
// looked at.
func TestCleanMakesRoom(t *testing.T) {
	w := made(t)
	in := contract.CleanInput{Disk: disk}
	for n := range 3 {
		in.Leftovers = append(in.Leftovers, w.left(n, contract.RoleRetired, 0))
	}
	w.use(19 * contract.GiB)
	w.at(string(contract.AttachVolume), contract.SignalPressure, contract.Pressure{Generation: 1, BackingBytes: 20 * contract.GiB})
	press, grows := w.hook, make(chan struct{})
	w.hook = func(name string, n int, after bool) error {
		switch {
		case name == string(contract.ModifyVolume) && !after:
			close(grows)
		case name == string(contract.AttachVolume) && !after && w.count(name) == len(in.Leftovers):
			select { // the last volume waits for the growth, which is to need none of the others
			case <-grows:
			case <-time.After(10 * time.Second):
			}
		}
		return press(name, n, after)
	}
	r := w.run(contract.CleanWorkflow, in)
	for _, f := range r.Fates {
		require.True(t, f.Deleted, f.Why)
	}
	grown := slices.Index(w.calls, string(contract.ModifyVolume))
	require.Positive(t, grown, "calls: %v", w.calls)
	require.Contains(t, w.calls[grown:], string(contract.DeleteVolume), "before the last is done: %v", w.calls)
	w.intact(nodeA)
}

// TestCleanDoesNotWaitForADeadNode: it holds the disk's lock, and Reap waits for it.
func TestCleanDoesNotWaitForADeadNode(t *testing.T) {
	w := made(t)
	l := w.left(1, contract.RoleRetired, 0)
	w.dead[nodeA] = true
	begun := w.env.Now()
	r, err := w.try(contract.CleanWorkflow, contract.CleanInput{Disk: disk, Leftovers: []contract.Leftover{l}})
	require.NoError(t, err)
	require.NotNil(t, r.Refusal)
	require.Equal(t, contract.NodeUnreachable, r.Refusal.Code)
	require.Less(t, w.env.Now().Sub(begun), 10*time.Minute)
	require.NotNil(t, w.vols[l.Volume])
}

// TestCleanKeepsTheFallback: while the node does not have the disk up, an older
// generation may be all there is.
func TestCleanKeepsTheFallback(t *testing.T) {
	w := made(t)
	l := w.left(1, contract.RoleRetired, 0)
	w.refuse[string(contract.MeasureDisk)] = contract.Refuse(contract.VolumeDamaged, "both headers are damaged").WithNext("restore it")
	r := w.run(contract.CleanWorkflow, contract.CleanInput{Disk: disk, Leftovers: []contract.Leftover{l}})
	require.Len(t, r.Fates, 1)
	require.False(t, r.Fates[0].Deleted)
	require.Contains(t, r.Fates[0].Why, "both headers are damaged")
	require.NotNil(t, w.vols[l.Volume])
}
