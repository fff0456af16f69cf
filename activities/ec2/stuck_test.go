package ec2_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

const impatient = 150 * time.Millisecond

// TestStuckAttach: an attachment that hangs is given up in time, the volume is
// free again, and the next try uses another device name.
func TestStuckAttach(t *testing.T) {
	f := start(t)
	v := f.create(5)
	f.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", Hang: true})
	in := contract.AttachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA, Try: 1, Patience: impatient}
	_, err := f.AttachVolume(t.Context(), in)
	r := refused(t, err, contract.AttachStuck)
	require.Contains(t, r.Message, nodeA)
	require.Equal(t, v.ID, r.Volume)
	require.Equal(t, disk, r.Disk)
	got, _ := f.sim.Volume(v.ID)
	require.Nil(t, got.Attachment, "nothing of it is left")

	in.Try = 2
	_, err = f.AttachVolume(t.Context(), in)
	require.NoError(t, err)
	var devices []string
	for _, c := range f.sim.Calls("AttachVolume") {
		if c.Effect {
			devices = append(devices, c.Params["Device"])
		}
	}
	require.Len(t, devices, 2)
	require.NotEqual(t, devices[0], devices[1])
	require.Empty(t, forced(f))
}

// TestStuckAttachIsForcedOffOnlyWhenFresh: where asking does not end it, only a
// volume that holds nothing is taken off by force.
func TestStuckAttachIsForcedOffOnlyWhenFresh(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fresh bool
		role  contract.Role
		force int
		code  contract.RefusalCode
	}{
		{"fresh", true, contract.RoleIncoming, 1, contract.AttachStuck},
		{"not said to be fresh", false, contract.RoleIncoming, 0, contract.DetachStuck},
		{"said to be fresh, but active", true, contract.RoleActive, 0, contract.DetachStuck},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t)
			v := f.create(5)
			_, err := f.TagVolume(t.Context(), contract.TagVolumeInput{Disk: disk, Volume: v.ID, Role: tt.role, Generation: 3})
			require.NoError(t, err)
			f.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", Hang: true})
			f.sim.AddFault(ec2sim.Fault{Action: "DetachVolume", Hang: true})
			_, err = f.AttachVolume(t.Context(), contract.AttachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA, Fresh: tt.fresh, Patience: impatient})
			r := refused(t, err, tt.code)
			require.Contains(t, r.Message, nodeA)
			require.Len(t, forced(f), tt.force)
			got, _ := f.sim.Volume(v.ID)
			require.Equal(t, tt.force == 1, got.Attachment == nil)
		})
	}
}

// TestBusyDetach: a volume the instance does not let go of is reported, again
// and again, until it has gone; it is never forced.
func TestBusyDetach(t *testing.T) {
	f := start(t)
	v := f.create(5)
	_, err := f.TagVolume(t.Context(), contract.TagVolumeInput{Disk: disk, Volume: v.ID, Role: contract.RoleActive, Generation: 3})
	require.NoError(t, err)
	f.attach(v.ID, nodeA)
	f.sim.AddFault(ec2sim.Fault{Action: "DetachVolume", Hang: true})
	in := contract.DetachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeA, Patience: impatient}
	for range 2 {
		_, err = f.DetachVolume(t.Context(), in)
		r := refused(t, err, contract.DetachStuck)
		require.Contains(t, r.Message, nodeA)
	}
	require.Empty(t, forced(f))
	// A volume on its way off does not get attached either.
	_, err = f.AttachVolume(t.Context(), contract.AttachVolumeInput{Disk: disk, Volume: v.ID, Node: nodeB, Patience: impatient})
	refused(t, err, contract.DetachStuck)
}

func forced(f fixture) []ec2sim.Call {
	var out []ec2sim.Call
	for _, c := range f.sim.Calls("DetachVolume") {
		if c.Params["Force"] == "true" {
			out = append(out, c)
		}
	}
	return out
}
