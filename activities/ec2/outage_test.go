package ec2_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// A wait goes on when EC2 does not answer for a while: one run is enough.
func TestWaitsBearAnOutage(t *testing.T) {
	for _, code := range []string{"RequestLimitExceeded", "InternalError", "Unavailable"} {
		t.Run(code, func(t *testing.T) {
			f := start(t)
			id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{vol(disk, contract.RoleIncoming, 1, 0, "")}})[0]
			f.sim.AddFault(ec2sim.Fault{Action: "DescribeVolumes", Code: code, Skip: 1, Count: 5})
			f.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", Code: code})
			v, err := f.AttachVolume(t.Context(), contract.AttachVolumeInput{Disk: disk, Volume: id, Node: nodeA})
			require.NoError(t, err)
			require.Equal(t, "attached", v.AttachState)
			require.Equal(t, 1, f.calls("AttachVolume"))
		})
	}
	t.Run("connections are cut", func(t *testing.T) {
		f := start(t)
		id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{vol(disk, contract.RoleActive, 1, 0, nodeA)}})[0]
		f.sim.AddFault(ec2sim.Fault{Action: "DescribeVolumes", LoseAnswer: true, Count: 4})
		_, err := f.DetachVolume(t.Context(), contract.DetachVolumeInput{Disk: disk, Volume: id, Node: nodeA})
		require.NoError(t, err)
	})
}

func TestOutagesEnd(t *testing.T) {
	f := start(t)
	id := f.seed(ec2sim.Seed{Volumes: []ec2sim.Volume{vol(disk, contract.RoleIncoming, 1, 0, "")}})[0]
	a := ec2.New(f.api, ec2.Options{PollMin: 5 * time.Millisecond, PollMax: 20 * time.Millisecond, Settle: 100 * time.Millisecond, Outage: 100 * time.Millisecond})
	f.sim.AddFault(ec2sim.Fault{Action: "DescribeVolumes", Code: "Unavailable", Count: -1})
	attach := contract.AttachVolumeInput{Disk: disk, Volume: id, Node: nodeA}
	for name, call := range map[string]func(context.Context) error{
		"AttachVolume": func(ctx context.Context) error { _, err := a.AttachVolume(ctx, attach); return err },
		"Fleet":        func(ctx context.Context) error { _, err := a.Fleet(ctx); return err },
		"Leftovers":    func(ctx context.Context) error { _, err := a.Leftovers(ctx, 0, 0, 0); return err },
	} {
		err := call(t.Context())
		require.ErrorContains(t, err, "Unavailable", name)
		_, final := contract.AsRefusal(err)
		require.False(t, final, "%s: it may be tried again", name)
	}

	// Cancelling does not wait for EC2.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := f.Fleet(ctx)
	require.Error(t, err)
	require.Less(t, time.Since(begin), 10*time.Second)

	// What cannot pass is not waited for.
	f.sim.ClearFaults()
	f.sim.AddFault(ec2sim.Fault{Action: "DescribeVolumes", Code: "UnauthorizedOperation", Count: -1})
	_, err = f.Fleet(t.Context())
	refused(t, err, contract.PermissionMissing)
	require.LessOrEqual(t, f.countCode("UnauthorizedOperation"), 3, "no more than retryClosed repeats")
}

func (f fixture) countCode(code string) int {
	n := 0
	for _, c := range f.sim.Calls("") {
		if c.Code == code {
			n++
		}
	}
	return n
}
