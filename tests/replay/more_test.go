package replay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/stubnode"
)

// tellMore is the part of TestStories about what happens rarely.
func tellMore(story func(string, func(*testing.T, *bench, contract.DiskID))) {
	story("expand", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		r := b.run(d, contract.ExpandWorkflow, contract.ExpandInput{Disk: d, SizeBytes: 128 * contract.GiB}, "expand")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		b.nodes.With(d, func(k *stubnode.Disk) { require.Equal(t, 128*contract.GiB, k.SizeBytes) })
		require.EqualValues(t, 20, b.volumes(d)[contract.RoleActive][0].SizeGiB, "the backing stays")
	})

	story("create cancelled, its node silent", func(t *testing.T, b *bench, d contract.DiskID) {
		b.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", DelayAfter: ec2sim.Duration(2 * time.Second)})
		in := newDisk(d, nodeB)
		in.Settings = quick
		run := b.start(d, contract.CreateDiskWorkflow, in)
		b.phase(d, contract.PhaseAttach)
		b.down(nodeB)
		defer b.up(nodeB)
		b.waiting(d)
		require.Contains(t, b.shown(run).details, "no agent answers on node "+nodeB)
		require.NoError(t, b.c.SignalWorkflow(t.Context(), run.GetID(), "", contract.SignalCancel, nil))
		r := b.end(run, "create-cancelled")
		b.sim.ClearFaults()
		require.Equal(t, contract.Cancelled, r.Outcome)
		require.Empty(t, b.volumes(d))
	})

	story("create refused by a silent node", func(t *testing.T, b *bench, d contract.DiskID) {
		b.down(nodeB)
		defer b.up(nodeB)
		r := b.run(d, contract.CreateDiskWorkflow, newDisk(d, nodeB), "create-unreachable")
		require.Equal(t, contract.NodeUnreachable, r.Refusal.Code)
		require.Empty(t, b.volumes(d))
	})

	story("attachment stuck", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		in := contract.ShrinkInput{Disk: d, SkipSnapshot: true, Settings: contract.Settings{AttachPatience: 2 * time.Second}}
		b.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", Hang: true, Count: -1})
		r := b.run(d, contract.ShrinkWorkflow, in, "attach-stuck")
		b.sim.ClearFaults()
		require.Equal(t, contract.Refused, r.Outcome)
		require.Equal(t, contract.AttachStuck, r.Refusal.Code)
		require.Empty(t, b.volumes(d)[contract.RoleIncoming])
		require.NoError(t, b.nodes.Verify(d, nodeA))

		b.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", Hang: true})
		r = b.run(d, contract.ShrinkWorkflow, in, "attach-stuck-once")
		b.sim.ClearFaults()
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("dead node's disk rehomed", func(t *testing.T, b *bench, d contract.DiskID) {
		b.createAs(newDisk(d, nodeC), "create-c")
		b.down(nodeC)
		b.sim.SetStaleDescribe(0) // an answer from before the stop would refuse the move, and rightly
		defer b.sim.SetStaleDescribe(stale)
		require.NoError(t, b.sim.SetInstanceState(nodeC, ec2sim.StateStopped))
		in := contract.RehomeInput{Disk: d, Node: nodeB, Dead: true}
		b.down(nodeB)
		r := b.run(d, contract.RehomeWorkflow, in, "rehome-dead-unreachable")
		b.up(nodeB)
		require.Equal(t, contract.NodeUnreachable, r.Refusal.Code)
		require.Equal(t, nodeC, b.volumes(d)[contract.RoleActive][0].Attachment.InstanceID, "nothing changed")

		r = b.run(d, contract.RehomeWorkflow, in, "rehome-dead")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, nodeB, r.Node)
		require.NoError(t, b.nodes.Verify(d, nodeB))
	})

	story("rehome cancelled, its new node silent", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		b.sim.AddFault(ec2sim.Fault{Action: "AttachVolume", DelayAfter: ec2sim.Duration(2 * time.Second)})
		run := b.start(d, contract.RehomeWorkflow, contract.RehomeInput{Disk: d, Node: nodeB, Settings: quick})
		require.Eventually(t, func() bool {
			at := b.volumes(d)[contract.RoleActive][0].Attachment
			return at != nil && at.InstanceID == nodeB
		}, 20*time.Second, 20*time.Millisecond)
		b.sim.ClearFaults()
		b.down(nodeB)
		defer b.up(nodeB)
		b.waiting(d)
		require.NoError(t, b.c.CancelWorkflow(t.Context(), run.GetID(), ""))
		require.Eventually(t, func() bool {
			return strings.Contains(b.shown(run).details, "stop it, and the disk goes back to "+nodeA)
		}, 20*time.Second, 50*time.Millisecond)
		require.NoError(t, b.sim.SetInstanceState(nodeB, ec2sim.StateStopped))
		defer func() { require.NoError(t, b.sim.SetInstanceState(nodeB, ec2sim.StateRunning)) }()
		r := b.end(run, "rehome-cancelled")
		require.Equal(t, contract.Cancelled, r.Outcome, "%+v", r.Refusal)
		require.Equal(t, nodeA, r.Node)
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("gp2, encrypted", func(t *testing.T, b *bench, d contract.DiskID) {
		in := newDisk(d, nodeA)
		in.SizeBytes, in.BackingGiB = 4096*contract.GiB, 2000
		in.Volume = contract.VolumeSpec{
			Type: "gp2", Encrypted: aws.Bool(true), KMSKeyID: "1234abcd-12ab-34cd-56ef-1234567890ab",
			Tags: map[string]string{"team": "a", "cost-center": "42"},
		}
		b.createAs(in, "create-gp2")
		old := b.volumes(d)[contract.RoleActive][0]
		require.Equal(t, "gp2", old.Type)
		require.EqualValues(t, 6000, old.IOPS)
		require.Contains(t, old.KMSKeyID, in.Volume.KMSKeyID)

		r := b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d}, "shrink-gp2")
		require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
		require.EqualValues(t, 2000, r.BeforeGiB)
		require.EqualValues(t, 12, r.AfterGiB, "the least that gives 6000 IOPS")
		now := b.volumes(d)[contract.RoleActive][0]
		require.NotEqual(t, old.ID, now.ID)
		require.Equal(t, "gp3", now.Type)
		require.Equal(t, old.IOPS, now.IOPS)
		require.GreaterOrEqual(t, now.ThroughputMiB, old.ThroughputMiB)
		require.True(t, now.Encrypted)
		require.Equal(t, old.KMSKeyID, now.KMSKeyID)
		require.Equal(t, "a", now.Tags["team"])
		require.Equal(t, "42", now.Tags["cost-center"])
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})

	story("a backup runs", func(t *testing.T, b *bench, d contract.DiskID) {
		b.create(d)
		b.sim.SetLag(lags(time.Hour))
		_, err := b.api.CreateSnapshot(t.Context(), &awsec2.CreateSnapshotInput{VolumeId: &b.volumes(d)[contract.RoleActive][0].ID})
		b.sim.SetLag(lags(0))
		require.NoError(t, err)

		r := b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d, BackupTimeout: 2 * time.Second}, "backup-running")
		require.Equal(t, contract.Refused, r.Outcome)
		require.Equal(t, contract.BackupRunning, r.Refusal.Code)
		require.Contains(t, r.Refusal.Message, "2s")

		run := b.start(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d})
		b.waiting(d)
		require.NoError(t, b.c.SignalWorkflow(t.Context(), run.GetID(), "", contract.SignalCancel, nil))
		r = b.end(run, "backup-cancelled")
		require.Equal(t, contract.Cancelled, r.Outcome)
		require.Len(t, b.volumes(d), 1, "nothing was made")
		require.NoError(t, b.nodes.Verify(d, nodeA))
	})
}
