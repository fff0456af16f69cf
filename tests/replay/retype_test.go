package replay_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

// TestRetype tells the story of volumes that are changed in place: by hand, by
// approval, and by policy.
func TestRetype(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	b := newBench(t)
	const byHand, asked, enforcedDisk = contract.DiskID("d-000000000000000e1"), contract.DiskID("d-000000000000000e2"), contract.DiskID("d-000000000000000e3")
	for _, d := range []contract.DiskID{byHand, asked, enforcedDisk} {
		in := newDisk(d, nodeA)
		in.Volume.Type = "gp2"
		b.createAs(in, "retype-create")
		b.use(d, 14*contract.GiB) // neither to grow nor to shrink
	}
	shape := func(d contract.DiskID) []any {
		v := b.volumes(d)[contract.RoleActive][0]
		require.NotEmpty(t, v.Tags[contract.TagModified])
		return []any{v.SizeGiB, v.Type, v.IOPS, v.ThroughputMiB}
	}
	gp3 := []any{int32(20), "gp3", int32(3000), int32(128)}

	in := contract.RetypeInput{Disk: byHand, Type: "gp3"}
	in.DryRun = true
	r := b.run(byHand, contract.RetypeWorkflow, in, "retype-dry-run")
	require.Equal(t, contract.Planned, r.Outcome)
	in.DryRun = false
	r = b.run(byHand, contract.RetypeWorkflow, in, "retype")
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Equal(t, gp3, shape(byHand))
	r = b.run(byHand, contract.RetypeWorkflow, in, "retype-again")
	require.Equal(t, contract.NothingToRetype, r.Refusal.Code)
	// EBS works on it: a growth takes another volume.
	b.use(byHand, 19*contract.GiB)
	r = b.run(byHand, contract.GrowWorkflow, contract.GrowInput{Disk: byHand}, "retype-grow")
	require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
	require.Len(t, r.Volumes, 2)

	b.use(byHand, 4*contract.GiB)
	res := b.rightsize("retype-recommend", contract.RightsizeInput{
		Policy: enforced, Switches: []contract.Switch{{Mode: contract.Observe}, {Mode: contract.Recommend, Disk: string(asked)}},
	})
	require.Equal(t, map[string]int{"retype": 2, "shrink": 1}, res.Totals.Wanted)
	require.Len(t, res.Proposed, 1)
	b.approve(asked, "retype-propose")
	require.Equal(t, gp3, shape(asked))

	res = b.rightsize("retype-enforce", contract.RightsizeInput{
		Policy: enforced, Switches: []contract.Switch{{Mode: contract.Observe}, {Mode: contract.Enforce, Disk: string(enforcedDisk)}},
	})
	require.Equal(t, map[string]int{"retype": 1, "shrink": 1}, res.Totals.Wanted, "what was changed is as it should be")
	require.Len(t, res.Started, 1)
	require.Equal(t, "retype", res.Started[0].Operation)
	require.Equal(t, contract.Done, ended[contract.Result](b, b.c.GetWorkflow(t.Context(), contract.WorkflowID(enforcedDisk), ""), "begun-retype").Outcome)
	require.Equal(t, gp3, shape(enforcedDisk))
	for _, d := range []contract.DiskID{asked, enforcedDisk} {
		require.NoError(t, b.nodes.Verify(d, nodeA))
		b.nodes.With(d, func(s *stubnode.Disk) { require.Len(t, s.Members, 1) })
	}
}
