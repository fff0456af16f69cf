package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TestNoMoveBeginsAfterItsWindow: what waits for a budget when the window closes is for
// the next one, and keeps no other move from beginning.
func TestNoMoveBeginsAfterItsWindow(t *testing.T) {
	h := fleetOf(t)
	h.takes = 20 * time.Minute
	r := h.rightsize(contract.RightsizeInput{Feed: 2 * time.Hour, Policy: header + `
budgets: {moves: 1}
defaults: {mode: enforce}
rules:
- name: by day
  match: {namespaces: [ns0, ns1]}
  windows: [{from: "11:00", to: "12:30", zone: UTC}]
`})
	var late int
	for _, in := range h.shrinks {
		if n := in.Disk[len(in.Disk)-1]; n != '2' && n != '5' { // those of ns2 may begin at any time
			late++
		}
	}
	require.LessOrEqual(t, late, 2, "at 12:00 and at 12:20")
	require.Len(t, r.Started, 1+late+2, "the growth, and those of ns2")
	held := 0
	for _, b := range r.Held {
		if b.Outcome == "the maintenance window closed at 2026-11-22T12:30:00Z" {
			held++
		}
	}
	require.Equal(t, 4-late, held)
}
