package replay_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// TestEC2Faults runs a Shrink with every EC2 action failing before its effect,
// losing its answer after it, and being throttled longer than the SDK retries.
func TestEC2Faults(t *testing.T) {
	if os.Getenv("EBB_TEST_FULL") == "" {
		t.Skip("takes minutes: set EBB_TEST_FULL=1")
	}
	b := newBench(t)
	n := 1000
	for _, action := range []string{
		"DescribeVolumes", "DescribeInstances", "DescribeInstanceTypes", "DescribeSnapshots",
		"CreateSnapshot", "CreateVolume", "AttachVolume", "CreateTags", "DetachVolume",
	} {
		for _, f := range []ec2sim.Fault{
			{Action: action, Code: "InternalError"},
			{Action: action, LoseAnswer: true},
			{Action: action, Code: "RequestLimitExceeded", Count: 5},
			{Action: action, DelayAfter: ec2sim.Duration(2 * time.Second)},
		} {
			n++
			d := contract.DiskID(fmt.Sprintf("d-%017x", n))
			t.Run(fmt.Sprintf("%s %s lose=%v late=%v", action, f.Code, f.LoseAnswer, f.DelayAfter != 0), func(t *testing.T) {
				b := &bench{t: t, sim: b.sim, nodes: b.nodes, c: b.c}
				b.create(d)
				b.sim.AddFault(f)
				r := b.run(d, contract.ShrinkWorkflow, contract.ShrinkInput{Disk: d}, "fault")
				b.sim.ClearFaults()
				require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
				require.NoError(t, b.nodes.Verify(d, nodeA))
				vs := b.volumes(d)
				require.Len(t, vs[contract.RoleActive], 1)
				require.Len(t, vs[contract.RoleRetired], 1)
				require.Empty(t, vs[contract.RoleIncoming])
				// Attachment slots are kept free for the next ones.
				r = b.run(d, contract.DeleteDiskWorkflow, contract.DeleteDiskInput{Disk: d, SkipSnapshot: true}, "fault-delete")
				require.Equal(t, contract.Done, r.Outcome, "%+v", r.Refusal)
				require.Empty(t, b.volumes(d))
			})
		}
	}
}
