package replay_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

const enforced = `
apiVersion: ebb.io/v1alpha1
kind: Policy
defaults:
  mode: enforce
  move: {snapshot: false}
`

// TestFleet tells the story of a fleet: watched, asked about, held, tidied up.
func TestFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	b := newBench(t)
	const full, empty, third = contract.DiskID("d-000000000000000f1"), contract.DiskID("d-000000000000000f2"), contract.DiskID("d-000000000000000f3")
	for _, d := range []contract.DiskID{full, empty, third} {
		b.create(d)
	}
	b.use(full, 19*contract.GiB)
	look, err := b.c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "ebb-inspect", TaskQueue: contract.ControlQueue},
		contract.InspectWorkflow, contract.InspectInput{Disk: full, History: true})
	require.NoError(t, err)
	require.Len(t, ended[contract.InspectResult](b, look, "inspect").Disks, 1)

	r := b.rightsize("rightsize-observe", contract.RightsizeInput{})
	require.Empty(t, r.Started)
	require.Equal(t, map[string]int{"grow": 1, "shrink": 2}, r.Totals.Wanted)

	// One is asked about and approved.
	r = b.rightsize("rightsize-recommend", contract.RightsizeInput{
		Policy: enforced, Switches: []contract.Switch{{Mode: contract.Observe}, {Mode: contract.Recommend, Disk: string(empty)}},
	})
	require.Len(t, r.Proposed, 1)
	p := b.approve(empty, "propose")
	require.Len(t, b.volumes(empty)[contract.RoleActive], 1)
	require.EqualValues(t, p.Decision.GiB, b.volumes(empty)[contract.RoleActive][0].SizeGiB)

	// The others are held at their target.
	r = b.rightsize("rightsize-enforce", contract.RightsizeInput{Policy: enforced})
	require.Len(t, r.Started, 2)
	require.Equal(t, full, r.Started[0].Disk, "growth goes first")
	for _, s := range r.Started {
		require.Equal(t, contract.Done, ended[contract.Result](b, b.c.GetWorkflow(t.Context(), contract.WorkflowID(s.Disk), ""), "begun-"+s.Operation).Outcome)
		require.NoError(t, b.nodes.Verify(s.Disk, nodeA))
	}

	// A move that failed has left a volume; a crash left a retired one for good.
	out, err := b.api.CreateVolume(t.Context(), &awsec2.CreateVolumeInput{
		AvailabilityZone: aws.String(zone), Size: aws.Int32(5), VolumeType: types.VolumeTypeGp3,
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{
			{Key: aws.String(contract.TagDisk), Value: aws.String(string(third))},
			{Key: aws.String(contract.TagRole), Value: aws.String(string(contract.RoleIncoming))},
			{Key: aws.String(contract.TagGeneration), Value: aws.String("7")},
			{Key: aws.String(contract.TagCluster), Value: aws.String("bench")},
			{Key: aws.String(contract.TagMove), Value: aws.String("lost")},
		}}},
	})
	require.NoError(t, err)
	reap := func(story string, del bool) contract.ReapResult {
		t.Helper()
		run, err := b.c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "ebb-" + story, TaskQueue: contract.ControlQueue},
			contract.ReapWorkflow, contract.ReapInput{Delete: del, MinAge: time.Millisecond, Grace: 1000 * time.Hour})
		require.NoError(t, err)
		return ended[contract.ReapResult](b, run, story)
	}
	require.Eventually(t, func() bool { return reap("", false).Found == 1 }, time.Minute, time.Millisecond, "EC2's describes catch up")
	rep := reap("reap-report", false)
	require.Equal(t, 1, rep.Found, "%+v", rep.Fates)
	require.Zero(t, rep.Deleted)
	rep = reap("reap-delete", true)
	require.Equal(t, 1, rep.Deleted, "%+v", rep.Fates)
	require.EqualValues(t, 5, rep.FreedGiB)
	_, there := b.sim.Volume(*out.VolumeId)
	require.False(t, there)
	ended[contract.Result](b, b.c.GetWorkflow(t.Context(), contract.WorkflowID(third), ""), "clean")
	b.nodes.With(third, func(d *stubnode.Disk) { require.Len(t, d.Members, 1) })
}

// rightsize is one run over the fleet, its part and it ended.
func (b *bench) rightsize(story string, in contract.RightsizeInput) contract.RightsizeResult {
	b.t.Helper()
	run, err := b.c.ExecuteWorkflow(b.t.Context(), client.StartWorkflowOptions{ID: "ebb-" + story, TaskQueue: contract.ControlQueue}, contract.RightsizeWorkflow, in)
	require.NoError(b.t, err)
	r := ended[contract.RightsizeResult](b, run, story)
	ended[fleet.ShardResult](b, b.c.GetWorkflow(b.t.Context(), run.GetID()+"/shard-001", ""), story+"-shard")
	require.Empty(b.t, r.Problems)
	return r
}

// approve approves what is proposed for a disk, and sees it done.
func (b *bench) approve(d contract.DiskID, story string) fleet.Proposed {
	b.t.Helper()
	id := contract.ProposeWorkflowID(d)
	h, err := b.c.UpdateWorkflow(b.t.Context(), client.UpdateWorkflowOptions{
		WorkflowID: id, UpdateName: contract.UpdateApprove, Args: []any{fleet.Answer{By: "ada"}}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	require.NoError(b.t, err)
	require.NoError(b.t, h.Get(b.t.Context(), nil))
	p := ended[fleet.Proposed](b, b.c.GetWorkflow(b.t.Context(), id, ""), story)
	require.Equal(b.t, contract.Done, p.Outcome.Outcome, "%+v", p.Outcome.Refusal)
	return p
}
