package workflows_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	activity_fleet "github.com/ebb-storage/ebb/activities/fleet"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// began is when the workflows of a herd begin.
var began = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

var ada = fleet.Answer{By: "ada"}

func (h *herd) ask() (p fleet.Proposed) {
	h.t.Helper()
	v, err := h.env.QueryWorkflow(contract.QueryProposal)
	require.NoError(h.t, err)
	require.NoError(h.t, v.Get(&p))
	return p
}

// later runs fn so long after the beginning.
func (h *herd) later(when time.Duration, fn func()) { h.env.RegisterDelayedCallback(fn, when) }

// TestRejectionHolds: the proposal goes on, so that no other one is made, as long as
// the rejection holds.
func TestRejectionHolds(t *testing.T) {
	for name, c := range map[string]struct{ hold, want time.Duration }{
		"as an answer was waited for": {0, 24 * time.Hour},
		"for long":                    {30 * 24 * time.Hour, 30 * 24 * time.Hour},
		"for a moment":                {time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHerd(t)
			p, a := h.propose(time.Hour, contract.UpdateReject, fleet.Answer{By: "ada", For: c.hold})
			require.NoError(t, a.err)
			require.Equal(t, "rejected", p.Answer)
			require.Equal(t, began.Add(time.Hour+c.want), p.Until.UTC())
			require.Equal(t, p.Until.UTC(), h.env.Now().UTC())
			require.Empty(t, h.shrinks)
		})
	}
}

func TestRejectionThatCannotBe(t *testing.T) {
	h := newHerd(t)
	_, a := h.propose(time.Hour, contract.UpdateReject, fleet.Answer{By: "ada", For: contract.MaxHold + 1})
	require.ErrorContains(t, a.err, "at most 366 days")
	h.fresh()
	_, a = h.propose(time.Hour, contract.UpdateReject, fleet.Answer{By: "ada", Now: true})
	require.ErrorContains(t, a.err, "for how long it holds")
}

// TestRejectionTakenBack: somebody thinks better of it.
func TestRejectionTakenBack(t *testing.T) {
	h := newHerd(t)
	first := h.at(time.Hour, contract.UpdateReject, ada)
	longer := h.at(2*time.Hour, contract.UpdateReject, fleet.Answer{By: "bob", For: 48 * time.Hour})
	h.later(40*time.Hour, func() { require.Equal(t, "bob", h.ask().By) })
	second := h.at(49*time.Hour, contract.UpdateApprove, ada)
	late := h.at(49*time.Hour+time.Second, contract.UpdateReject, ada)
	p := h.proposed(proposalOf(h))
	require.NoError(t, first.err)
	require.NoError(t, longer.err)
	require.NoError(t, second.err)
	require.ErrorContains(t, late.err, "approved already", "the operation runs")
	require.Equal(t, "approved", p.Answer)
	require.Equal(t, contract.Done, p.Outcome.Outcome)
	require.Zero(t, p.Until)
}

// TestRejectionReplaced: another matter is asked anew, the same one is not.
func TestRejectionReplaced(t *testing.T) {
	h := newHerd(t)
	same, other := proposalOf(h), proposalOf(h)
	same.Decision.SavingUSDMonth = 36
	other.Decision.SavingUSDMonth, other.Decision.GiB = 50, 20
	h.later(time.Minute, func() { h.env.SignalWorkflow(contract.SignalReplace, other) }) // it is not answered: it stands
	h.at(time.Hour, contract.UpdateReject, ada)
	h.later(2*time.Hour, func() { h.env.SignalWorkflow(contract.SignalReplace, same) })
	h.later(3*time.Hour, func() { require.Equal(t, "rejected", h.ask().Answer) })
	h.later(4*time.Hour, func() { h.env.SignalWorkflow(contract.SignalReplace, other) })
	h.env.ExecuteWorkflow(contract.ProposeWorkflow, proposalOf(h))
	require.True(t, h.env.IsWorkflowCompleted())
	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, h.env.GetWorkflowError(), &again)
	require.Equal(t, began.Add(4*time.Hour), h.env.Now().UTC())
	var in fleet.Proposal
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &in))
	require.EqualValues(t, 20, in.Decision.GiB)
	require.True(t, in.Again)

	h.fresh()
	p := h.proposed(in)
	require.Equal(t, "expired", p.Answer)
	require.EqualValues(t, 20, p.Decision.GiB)
}

// busy has a move that runs on another disk.
func (h *herd) busy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.visible = map[contract.DiskID]activity_fleet.Operation{"d-00000000000000009": {Type: contract.ShrinkWorkflow, Node: nodeN(1)}}
}

func (h *herd) free() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.visible = nil
}

func budgeted(h *herd) fleet.Proposal {
	in := proposalOf(h)
	in.Budgets = plan.Budgets{Moves: 1}
	return in
}

// TestApprovalWaitsForBudget: it begins when there is room, and asks seldom.
func TestApprovalWaitsForBudget(t *testing.T) {
	h := newHerd(t)
	h.busy()
	h.at(time.Hour, contract.UpdateApprove, ada)
	h.later(10*time.Hour, func() {
		require.Equal(t, "a budget: 1 moves run in the fleet, 1 are allowed", h.ask().Waits)
		require.Empty(t, h.shrinks)
		h.free()
	})
	p := h.proposed(budgeted(h))
	require.Equal(t, contract.Done, p.Outcome.Outcome)
	require.Empty(t, p.Waits)
	require.Len(t, h.shrinks, 1)
	require.WithinDuration(t, began.Add(10*time.Hour), h.env.Now(), 16*time.Minute)
	require.Less(t, h.asked, 45)
}

// TestApprovalTakenBack: as long as it waits.
func TestApprovalTakenBack(t *testing.T) {
	h := newHerd(t)
	h.busy()
	h.at(time.Hour, contract.UpdateApprove, ada)
	twice := h.at(2*time.Hour, contract.UpdateApprove, ada)
	back := h.at(3*time.Hour, contract.UpdateReject, fleet.Answer{By: "ada", For: time.Hour})
	h.later(3*time.Hour+time.Minute, h.free)
	p := h.proposed(budgeted(h))
	require.ErrorContains(t, twice.err, "approved already")
	require.NoError(t, back.err)
	require.Equal(t, "rejected", p.Answer)
	require.Empty(t, h.shrinks)
}

// TestApprovalExpires: what never finds room is not begun.
func TestApprovalExpires(t *testing.T) {
	h := newHerd(t)
	h.busy()
	h.at(time.Hour, contract.UpdateApprove, ada)
	p := h.proposed(budgeted(h))
	require.Equal(t, "approved", p.Answer)
	require.Nil(t, p.Outcome)
	require.Contains(t, p.Held, "waited for a budget: 1 moves run")
	require.Empty(t, h.shrinks)
	require.WithinDuration(t, began.Add(25*time.Hour), h.env.Now(), 15*time.Minute)
}

// TestApprovalWaitsForWindow: unless it is for now. 2026-11-22 is a Sunday.
func TestApprovalWaitsForWindow(t *testing.T) {
	saturdays := plan.Window{From: 2 * time.Hour, To: 4 * time.Hour, Zone: "Europe/Berlin"}
	saturdays.Days[time.Saturday] = true
	opens := time.Date(2026, 11, 28, 1, 0, 0, 0, time.UTC)
	h := newHerd(t)
	in := proposalOf(h)
	in.Windows, in.Expiry = []plan.Window{saturdays}, 7*24*time.Hour
	h.at(time.Hour, contract.UpdateApprove, ada)
	h.later(2*time.Hour, func() {
		require.Equal(t, "a maintenance window: the next opens 2026-11-28 01:00 UTC", h.ask().Waits)
	})
	p := h.proposed(in)
	require.Equal(t, contract.Done, p.Outcome.Outcome)
	require.Equal(t, opens.Add(h.takes), h.env.Now().UTC())
	require.Equal(t, 1, h.asked, "the budgets are asked when the window is open")

	h.fresh()
	h.at(time.Hour, contract.UpdateApprove, ada)
	h.at(2*time.Hour, contract.UpdateApprove, fleet.Answer{By: "bob", Now: true})
	p = h.proposed(in)
	require.Equal(t, contract.Done, p.Outcome.Outcome)
	require.Equal(t, began.Add(2*time.Hour+h.takes), h.env.Now().UTC())

	in.Expiry = 24 * time.Hour
	h.fresh()
	h.at(time.Hour, contract.UpdateApprove, ada)
	p = h.proposed(in)
	require.Contains(t, p.Held, "maintenance window")
	require.Empty(t, h.shrinks)
}

// TestUrgentApprovalWaitsForNothing: growth that cannot wait does not.
func TestUrgentApprovalWaitsForNothing(t *testing.T) {
	h := newHerd(t)
	h.busy()
	h.at(time.Hour, contract.UpdateApprove, ada)
	in := budgeted(h)
	in.Decision.Urgent = true
	h.proposed(in)
	require.Zero(t, h.asked)
	require.Len(t, h.shrinks, 1)
}

// TestRightsizeLeavesRejectionsAlone: but asks anew when it is another matter.
func TestRightsizeLeavesRejectionsAlone(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: recommend}\n"})
	require.Len(t, r.Proposed, 7)
	rejected := func(saving float64) fleet.Proposed {
		return fleet.Proposed{
			Answer: fleet.Rejected, By: "ada", Until: began.Add(time.Hour),
			Decision: plan.Decision{Wanted: plan.Shrink, SavingUSDMonth: saving},
		}
	}
	h.answered = map[contract.DiskID]fleet.Proposed{
		"d-00000000000000002": rejected(30), "d-00000000000000003": rejected(10),
		"d-00000000000000004": {Answer: fleet.Approved, By: "ada", Waits: "a budget"},
	}
	h.fresh()
	r = h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: recommend}\n"})
	require.Len(t, r.Proposed, 5)
	for _, b := range r.Proposed {
		require.NotContains(t, []contract.DiskID{"d-00000000000000002", "d-00000000000000004"}, b.Disk)
	}
	require.Equal(t, map[string]int{"Mode": 5, "Answered": 2}, r.Totals.Held)

	h.fresh()
	r = h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: enforce}\n"})
	require.Len(t, r.Started, 7, "nobody is asked in mode enforce")
}

// TestRightsizeSharesBudgets: what others began counts, and what is urgent does not
// wait for an answer.
func TestRightsizeSharesBudgets(t *testing.T) {
	h := fleetOf(t)
	h.add(13, nodeN(1), 100, 97)
	h.ledger.Count(began, fleet.Counted{})
	h.ledger.Take(began, fleet.Ask{Want: []plan.Decision{{Disk: "d-00000000000000099", Action: plan.Shrink}}}) // somebody's move that nobody sees yet
	r := h.rightsize(contract.RightsizeInput{Policy: header + "budgets: {moves: 2, modificationsPerDay: 5}\ndefaults: {mode: enforce}\n", Feed: 30 * time.Second})
	require.Len(t, h.grows, 2)
	require.Len(t, h.shrinks, 1)
	require.Len(t, r.Held, 5)
	require.Contains(t, r.Held[0].Outcome, "2 moves run in the fleet, 2 are allowed")
}
