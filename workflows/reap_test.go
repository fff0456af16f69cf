package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

// leftover makes a volume of disk 2 that its tags say nothing needs.
func (h *herd) leftover(n int, role contract.Role, generation uint64, node string) contract.Leftover {
	id := contract.DiskID("d-00000000000000002")
	v := contract.VolumeFacts{
		ID: fmt.Sprintf("vol-%017x", 0x900+n), State: "available", SizeGiB: 10, Type: "gp3", Zone: zone, Role: role, Generation: generation, Node: node,
	}
	d := h.Disks[id]
	d.Volumes = append(d.Volumes, v)
	h.Disks[id] = d
	l := contract.Leftover{Disk: id, Volume: v.ID, GiB: 10, Role: role, Generation: generation, Zone: zone, Node: node, Reason: "tests left it"}
	h.Found = append(h.Found, l)
	return l
}

func (h *herd) reap(del bool) contract.ReapResult {
	h.t.Helper()
	h.ec2()
	h.env.ExecuteWorkflow(contract.ReapWorkflow, contract.ReapInput{Delete: del})
	require.True(h.t, h.env.IsWorkflowCompleted())
	require.NoError(h.t, h.env.GetWorkflowError())
	var r contract.ReapResult
	require.NoError(h.t, h.env.GetWorkflowResult(&r))
	return r
}

// ec2 is what Clean asks of EC2.
func (h *herd) ec2() {
	edit := func(id contract.DiskID, volume string, fn func(*contract.VolumeFacts)) {
		for i := range h.Disks[id].Volumes {
			if v := &h.Disks[id].Volumes[i]; v.ID == volume {
				fn(v)
			}
		}
	}
	contract.DescribeDisk.Register(h.env, func(_ context.Context, in contract.DescribeDiskInput) (contract.DiskFacts, error) {
		return h.Disks[in.Disk], nil
	})
	contract.AttachVolume.Register(h.env, func(_ context.Context, in contract.AttachVolumeInput) (contract.VolumeFacts, error) {
		require.False(h.t, in.Fresh, "what is on it may count")
		edit(in.Disk, in.Volume, func(v *contract.VolumeFacts) { v.Node = in.Node })
		return contract.VolumeFacts{}, nil
	})
	contract.DetachVolume.Register(h.env, func(_ context.Context, in contract.DetachVolumeInput) (contract.VolumeFacts, error) {
		edit(in.Disk, in.Volume, func(v *contract.VolumeFacts) { v.Node = "" })
		return contract.VolumeFacts{}, nil
	})
	contract.DeleteVolume.Register(h.env, func(_ context.Context, in contract.DeleteVolumeInput) (struct{}, error) {
		d := h.Disks[in.Disk]
		d.Volumes = slices.DeleteFunc(slices.Clone(d.Volumes), func(v contract.VolumeFacts) bool {
			if v.ID == in.Volume {
				require.Empty(h.t, v.Node, "deleted while attached")
				require.Equal(h.t, []contract.Role{v.Role}, in.Roles)
			}
			return v.ID == in.Volume
		})
		h.Disks[in.Disk] = d
		return struct{}{}, nil
	})
}

func TestReapDeletesWhatAllAgreeOn(t *testing.T) {
	h := fleetOf(t)
	blank := h.leftover(1, contract.RoleIncoming, 2, "")
	retired := h.leftover(2, contract.RoleRetired, 0, "")
	attached := h.leftover(3, contract.RoleIncoming, 2, h.Disks["d-00000000000000002"].Node())
	h.Nodes.With(blank.Disk, func(d *stubnode.Disk) { d.Retired[0] = []string{retired.Volume} })
	snap := contract.Leftover{Disk: blank.Disk, Snapshot: "snap-1", GiB: 5}
	h.Found = append(h.Found, snap)

	r := h.reap(false)
	require.Equal(t, 4, r.Found)
	require.Zero(t, r.Deleted)
	require.Len(t, h.Disks[blank.Disk].Volumes, 4)
	require.Empty(t, h.Deleted)

	h.fresh()
	r = h.reap(true)
	require.Equal(t, 4, r.Deleted, "%+v", r.Fates)
	require.EqualValues(t, 35, r.FreedGiB)
	require.Len(t, h.Disks[blank.Disk].Volumes, 1)
	require.Equal(t, []string{"snap-1"}, h.Deleted)
	require.NotContains(t, volumesOf(h, blank.Disk), attached.Volume)
}

func volumesOf(h *herd, d contract.DiskID) (out []string) {
	for _, v := range h.Disks[d].Volumes {
		out = append(out, v.ID)
	}
	return out
}

// TestReapKeepsWhatSomethingSpeaksFor: each of these volumes is a leftover by its
// tags, and something else says that it is not.
func TestReapKeepsWhatSomethingSpeaksFor(t *testing.T) {
	const id = contract.DiskID("d-00000000000000002")
	for name, c := range map[string]struct {
		role  contract.Role
		gen   uint64
		given func(*herd, contract.Leftover)
		why   string
	}{
		"header says active": {contract.RoleRetired, 0, func(h *herd, l contract.Leftover) {
			h.Nodes.Put(stubnode.Disk{ID: "d-00000000000000abc", Members: []contract.Member{{Volume: l.Volume}}})
		}, "belongs to disk d-00000000000000abc"},
		"a member whatever its tags say": {contract.RoleRetired, 1, func(h *herd, l contract.Leftover) {
			d := h.Disks[id]
			d.Volumes[1].Node = d.Volumes[0].Node
			h.Nodes.With(id, func(d *stubnode.Disk) { d.Members = append(d.Members, contract.Member{Volume: l.Volume}) })
		}, "uses it"},
		"part of a running move": {contract.RoleIncoming, 2, func(h *herd, l contract.Leftover) {
			h.Nodes.With(id, func(d *stubnode.Disk) {
				d.Move = &contract.MoveState{Move: "m", Generation: 2, Members: []contract.Member{{Volume: l.Volume}}}
			})
		}, "uses it"},
		"retired, but blank": {contract.RoleRetired, 0, func(*herd, contract.Leftover) {}, "it is blank"},
		"header of another role": {contract.RoleIncoming, 3, func(h *herd, l contract.Leftover) {
			h.Nodes.With(id, func(d *stubnode.Disk) { d.Retired[2] = []string{l.Volume} })
		}, "its header says generation 2, its tags 3"},
		"disk is down": {contract.RoleIncoming, 2, func(h *herd, _ contract.Leftover) {
			h.Disks[id].Volumes[0].Node = ""
			h.Nodes.With(id, func(d *stubnode.Disk) { d.Node = "" })
		}, "may go on with the move"},
		"tags say something else by now": {contract.RoleIncoming, 2, func(h *herd, _ contract.Leftover) {
			h.Disks[id].Volumes[1].Role = contract.RoleActive
		}, "its tags say active"},
		"nobody in its zone": {contract.RoleRetired, 0, func(h *herd, _ contract.Leftover) {
			h.Disks[id].Volumes[0].Node, h.Disks[id].Volumes[1].Zone = "", "us-east-1z"
			h.Nodes.With(id, func(d *stubnode.Disk) { d.Node = "" })
		}, "no node in zone us-east-1z"},
		"the active volume is gone by now": {contract.RoleRetired, 0, func(h *herd, l contract.Leftover) {
			d := h.Disks[id]
			d.Volumes = d.Volumes[1:]
			h.Disks[id] = d
			h.Nodes.With(id, func(d *stubnode.Disk) { d.Node, d.Retired[0] = "", []string{l.Volume} })
		}, "may be the last copy"},
		"its node does not answer": {contract.RoleRetired, 0, func(h *herd, _ contract.Leftover) {
			h.Nodes.SetHook(func(name, _ string, after bool) error {
				if name == string(contract.ReadHeaders) && !after {
					return temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
				}
				return nil
			})
		}, "header was not read"},
	} {
		t.Run(name, func(t *testing.T) {
			h := fleetOf(t)
			l := h.leftover(1, c.role, c.gen, "")
			c.given(h, l)
			r := h.reap(true)
			require.Zero(t, r.Deleted)
			require.Len(t, r.Fates, 1)
			require.Contains(t, r.Fates[0].Why, c.why)
			require.Contains(t, volumesOf(h, id), l.Volume)
		})
	}
}

func TestReapReportsSuspects(t *testing.T) {
	h := fleetOf(t)
	l := h.leftover(1, contract.RoleActive, 1, "")
	h.Found[0].Suspect = true
	r := h.reap(true)
	require.Zero(t, r.Deleted)
	require.Contains(t, r.Fates[0].Why, "reported only")
	require.Contains(t, volumesOf(h, l.Disk), l.Volume)
}

// TestReapLeavesToRetireWhatItKeeps: a policy may keep retired volumes for longer
// than Reap would.
func TestReapLeavesToRetireWhatItKeeps(t *testing.T) {
	h := fleetOf(t)
	l := h.leftover(1, contract.RoleRetired, 0, "")
	h.Nodes.With(l.Disk, func(d *stubnode.Disk) { d.Retired[0] = []string{l.Volume} })
	h.retiring = map[string]bool{l.Volume: true}
	h.fresh()
	r := h.reap(true)
	require.Zero(t, r.Found)
	require.Contains(t, volumesOf(h, l.Disk), l.Volume)
}

// TestReapTellsThatThereIsMore: the first thousand come again as long as they are there.
func TestReapTellsThatThereIsMore(t *testing.T) {
	h := fleetOf(t)
	for n := range 1001 {
		h.Found = append(h.Found, contract.Leftover{Disk: "d-00000000000000002", Volume: fmt.Sprintf("vol-%017x", n), Reason: "tests left it"})
	}
	r := h.reap(false)
	require.Equal(t, 1000, r.Found)
	require.Equal(t, []string{"there are more than 1000 leftovers: these are the first, and the others are looked at when some of these are gone"}, r.Problems)
}
