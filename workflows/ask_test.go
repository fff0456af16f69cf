package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

// TestOnlySavingsWaitForAWindow: a change for the policy's least performance is proposed
// without one, even if it saves.
func TestOnlySavingsWaitForAWindow(t *testing.T) {
	h := newHerd(t)
	lacks, saves := h.add(1, nodeN(1), 100, 75), h.add(2, nodeN(1), 100, 75)
	for _, id := range []contract.DiskID{lacks, saves} {
		v := &h.Disks[id].Volumes[0]
		v.Type, v.IOPS, v.ThroughputMiBs = "io2", 3000, 0
	}
	windows := map[contract.DiskID]int{}
	h.env.RegisterWorkflowWithOptions(func(_ workflow.Context, in fleet.Proposal) (fleet.Proposed, error) {
		require.Equal(t, contract.RetypeWorkflow, in.Workflow)
		require.Positive(t, in.Decision.SavingUSDMonth)
		windows[in.Decision.Disk] = len(in.Windows)
		return fleet.Proposed{}, nil
	}, workflow.RegisterOptions{Name: contract.ProposeWorkflow, DisableAlreadyRegisteredCheck: true})
	r := h.rightsize(contract.RightsizeInput{Policy: header + `
defaults:
  mode: recommend
  windows: [{from: "11:00", to: "12:30", zone: UTC}]
  performance: {types: [io2, gp3]}
rules:
- name: more
  match: {namespaces: ns1}
  performance: {minIOPS: 4000}
`})
	require.Len(t, r.Proposed, 2)
	require.Equal(t, map[contract.DiskID]int{lacks: 0, saves: 1}, windows)
}
