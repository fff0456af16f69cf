package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TestCancelledRightsizeLeavesOperationsAlone: what it began goes on when it ends,
// however it ends.
func TestCancelledRightsizeLeavesOperationsAlone(t *testing.T) {
	h := fleetOf(t)
	h.takes = time.Hour
	cancelled := 0
	h.env.SetOnChildWorkflowCanceledListener(func(*workflow.Info) { cancelled++ })
	h.env.RegisterDelayedCallback(h.env.CancelWorkflow, 5*time.Minute)
	h.env.ExecuteWorkflow(contract.RightsizeWorkflow, contract.RightsizeInput{
		Policy:   header + "budgets: {moves: 2}\ndefaults: {mode: enforce}\n",
		Switches: []contract.Switch{{Mode: contract.Recommend, Disk: "ns2/data-2"}},
	})
	require.True(t, h.env.IsWorkflowCompleted())
	require.Len(t, h.shrinks, 2)
	require.Zero(t, cancelled)
}

// TestRightsizeTellsWhatItDoesNotAsk: what one run has no room for is not left
// silently.
func TestRightsizeTellsWhatItDoesNotAsk(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: recommend}\n", MaxStarts: 3})
	require.Len(t, r.Proposed, 3)
	require.Len(t, r.Held, 4)
	require.Contains(t, r.Held[0].Outcome, "3 approvals at most")
}

// TestRightsizeHearsOfEveryEnd: a move that ends while others are begun makes room,
// too.
func TestRightsizeHearsOfEveryEnd(t *testing.T) {
	h := fleetOf(t)
	h.takes = 0
	r := h.rightsize(contract.RightsizeInput{Policy: header + "budgets: {moves: 2}\ndefaults: {mode: enforce}\n"})
	require.Len(t, h.shrinks, 6)
	require.Empty(t, r.Held)
}
