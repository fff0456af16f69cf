package workflows_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	activity_fleet "github.com/ebb-storage/ebb/activities/fleet"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/tests/stubnode"
	"github.com/ebb-storage/ebb/workflows"
)

// herd is many disks, whose operations are recorded instead of carried out.
type herd struct {
	*stubnode.Herd
	t      *testing.T
	env    *testsuite.TestWorkflowEnvironment
	prices plan.Prices

	mu        sync.Mutex
	dead      map[string]bool
	visible   map[contract.DiskID]activity_fleet.Operation
	retiring  map[string]bool
	answered  map[contract.DiskID]fleet.Proposed
	ledger    fleet.Ledger
	asked     int // for budgets
	grows     []contract.GrowInput
	shrinks   []contract.ShrinkInput
	now, most int // moves under way
	takes     time.Duration
}

func newHerd(t *testing.T) *herd {
	h := &herd{Herd: stubnode.NewHerd(), t: t, dead: map[string]bool{}, takes: time.Minute}
	h.Nodes.SetHook(func(_, node string, after bool) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.dead[node] && !after {
			return temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
		}
		return nil
	})
	h.prices, _ = price.BuiltIn().In(price.DefaultRegion)
	h.fresh()
	return h
}

// fresh prepares for the next workflow.
func (h *herd) fresh() {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	h.env = suite.NewTestWorkflowEnvironment()
	h.env.SetTestTimeout(30 * time.Second)
	h.env.SetStartTime(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	reg := func(name string, fn any) { h.env.RegisterWorkflowWithOptions(fn, workflow.RegisterOptions{Name: name}) }
	reg(contract.RightsizeWorkflow, workflows.Rightsize)
	reg(contract.RightsizeShardWorkflow, workflows.RightsizeShard)
	reg(contract.ProposeWorkflow, workflows.Propose)
	reg(contract.ReapWorkflow, workflows.Reap)
	reg(contract.CleanWorkflow, workflows.Clean)
	reg(contract.GrowWorkflow, h.grow)
	reg(contract.ShrinkWorkflow, h.shrink)
	h.Nodes.Register(h.env)
	activity_fleet.New(activity_fleet.Options{
		World: h, Prices: h.prices,
		Operations: func(context.Context) (map[contract.DiskID]activity_fleet.Operation, error) { return h.visible, nil },
		Retiring:   func(context.Context) (map[string]bool, error) { return h.retiring, nil },
		Answered:   func(context.Context) (map[contract.DiskID]fleet.Proposed, error) { return h.answered, nil },
		Take:       h.take,
	}).Register(h.env)
	h.grows, h.shrinks = nil, nil
}

// take is Budgets, whose count is of what is visible.
func (h *herd) take(_ context.Context, ask fleet.Ask) (fleet.Room, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	if h.ledger.Stale(ask.At) {
		var c fleet.Counted
		for d, op := range h.visible {
			c.Moves = append(c.Moves, fleet.Move{Disk: d, Node: op.Node, Zone: stubnode.HerdZone})
		}
		h.ledger.Count(ask.At, c)
	}
	return h.ledger.Take(ask.At, ask), nil
}

func (h *herd) grow(_ workflow.Context, in contract.GrowInput) (contract.Result, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.grows = append(h.grows, in)
	return contract.Result{Disk: in.Disk, Outcome: contract.Done}, nil
}

func (h *herd) shrink(ctx workflow.Context, in contract.ShrinkInput) (contract.Result, error) {
	h.mu.Lock()
	h.shrinks = append(h.shrinks, in)
	h.now++
	h.most = max(h.most, h.now)
	h.mu.Unlock()
	err := workflow.Sleep(ctx, h.takes)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
	return contract.Result{Disk: in.Disk, Outcome: contract.Done}, err
}

// add makes disk n, of three namespaces in turn.
func (h *herd) add(n int, node string, backingGiB, usedGiB int64) contract.DiskID {
	return h.Add(n, fmt.Sprintf("ns%d/data-%d", n%3, n), node, backingGiB, usedGiB)
}

func (h *herd) rightsize(in contract.RightsizeInput) contract.RightsizeResult {
	h.t.Helper()
	h.env.ExecuteWorkflow(contract.RightsizeWorkflow, in)
	require.True(h.t, h.env.IsWorkflowCompleted())
	require.NoError(h.t, h.env.GetWorkflowError())
	var r contract.RightsizeResult
	require.NoError(h.t, h.env.GetWorkflowResult(&r))
	return r
}

func nodeN(n int) string { return fmt.Sprintf("i-%017x", n) }

const header = "apiVersion: ebb.io/v1alpha1\nkind: Policy\n"

// fleetOf is 12 disks on three nodes: one must grow, six should shrink, five are
// fine.
func fleetOf(t *testing.T) *herd {
	h := newHerd(t)
	h.add(1, nodeN(1), 100, 99)
	for n := 2; n <= 7; n++ {
		h.add(n, nodeN(1+n%3), 500, 40)
	}
	for n := 8; n <= 12; n++ {
		h.add(n, nodeN(1+n%3), 100, 78)
	}
	return h
}

func TestRightsizeObservesByDefault(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{})
	require.Nil(t, r.Refusal)
	require.Empty(t, r.Started)
	require.Empty(t, r.Proposed)
	require.Empty(t, r.Problems)
	require.Equal(t, 12, r.Totals.Disks)
	require.Equal(t, 12, r.Totals.Measured)
	require.Equal(t, map[contract.Mode]int{contract.Observe: 12}, r.Totals.Modes)
	require.Equal(t, map[string]int{"grow": 1, "shrink": 6}, r.Totals.Wanted)
	require.Equal(t, map[string]int{"Mode": 7}, r.Totals.Held)
	require.Equal(t, int64(99+6*40+5*78)*contract.GiB, r.Totals.UsedBytes)
	require.Greater(t, r.Totals.SavingUSDMonth, 100.0)
	require.Nil(t, h.Nodes.Guide("d-00000000000000001"), "observing changes nothing, not even what agents are told")
}

func TestRightsizeEnforces(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{Policy: header + `
budgets: {movesPerNode: 1, moves: 2}
defaults:
  mode: enforce
  move: {verify: none, throttle: 50MiB/s}
`})
	require.Nil(t, r.Refusal, "%v", r.Refusal)
	require.Len(t, r.Started, 7)
	require.Equal(t, "grow", r.Started[0].Operation, "growth goes first")
	ended := 0
	for _, b := range r.Started[1:] {
		require.Less(t, b.ToGiB, int64(100))
		if b.Outcome == "done" {
			ended++
		}
	}
	require.GreaterOrEqual(t, ended, 4, "each end makes room for another")
	require.Len(t, h.grows, 1)
	require.Len(t, h.shrinks, 6)
	require.LessOrEqual(t, h.most, 2, "budget")
	in := h.shrinks[0]
	require.Equal(t, contract.VerifyNone, in.Verify)
	require.EqualValues(t, 50, in.ThrottleMiBs)
	require.Equal(t, 80, in.Settings.UtilizationPercent)
	require.NoError(t, in.Validate())
	require.NoError(t, h.grows[0].Validate())
	require.Greater(t, h.grows[0].ToGiB, int64(100))
	g := h.Nodes.Guide("d-00000000000000008")
	require.NotNil(t, g)
	require.NoError(t, g.Settings.Validate())
	require.Equal(t, 0.10, g.HeadroomPercent)
}

func TestRightsizeLeavesTheRestToTheNextRun(t *testing.T) {
	h := fleetOf(t)
	h.takes = time.Hour
	r := h.rightsize(contract.RightsizeInput{Policy: header + "budgets: {moves: 1}\ndefaults: {mode: enforce}\n", Feed: 5 * time.Minute})
	require.Len(t, r.Started, 2, "the growth and one move")
	require.Len(t, r.Held, 5)
	require.Contains(t, r.Held[0].Outcome, "1 moves run in the fleet")
}

func TestRightsizeMostStarts(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: enforce}\n", MaxStarts: 3})
	require.Len(t, r.Started, 3)
	require.Len(t, r.Held, 4)
}

func TestRightsizeSwitches(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{
		Policy: header + "defaults: {mode: enforce}\n",
		Switches: []contract.Switch{
			{Mode: contract.Observe},
			{Mode: contract.Enforce, Namespace: "ns0"},
			{Mode: contract.Recommend, Tags: map[string]string{"team": "t0"}},
			{Mode: contract.Enforce, Disk: "ns2/data-2"},
		},
	})
	// Disks 3 and 6 are of ns0, 6 of team 0; 2 is named; 4 is of team 0.
	var started, proposed []string
	for _, b := range r.Started {
		started = append(started, string(b.Disk[15:]))
	}
	for _, b := range r.Proposed {
		proposed = append(proposed, string(b.Disk[15:]))
	}
	require.ElementsMatch(t, []string{"0002", "0003"}, started)
	require.ElementsMatch(t, []string{"0004", "0006"}, proposed)
	require.Equal(t, 3, r.Totals.Modes[contract.Enforce]) // 2, 3, 9
}

func TestRightsizeDeadNode(t *testing.T) {
	h := fleetOf(t)
	h.dead[nodeN(2)] = true
	r := h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: enforce}\n"})
	require.Equal(t, 12, r.Totals.Disks)
	require.Positive(t, r.Totals.Unmeasured)
	require.Len(t, r.Problems, 1)
	require.Contains(t, r.Problems[0], nodeN(2))
	require.NotEmpty(t, r.Started)
	for _, in := range h.shrinks {
		require.NotEqual(t, nodeN(2), h.Disks[in.Disk].Node(), "nothing is decided without a measurement")
	}
}

func TestRightsizeDetachedAndBusy(t *testing.T) {
	h := fleetOf(t)
	d := h.Disks["d-00000000000000003"]
	d.Volumes[0].Node = ""
	h.visible = map[contract.DiskID]activity_fleet.Operation{
		"d-00000000000000004": {Type: contract.ShrinkWorkflow, Node: nodeN(2)},
	}
	r := h.rightsize(contract.RightsizeInput{Policy: header + "budgets: {moves: 1}\ndefaults: {mode: enforce}\n", Feed: time.Minute})
	require.Equal(t, 12, r.Totals.Disks)
	require.Equal(t, 1, r.Totals.Unmeasured)
	require.Equal(t, 1, r.Totals.Held["Running"])
	require.Empty(t, h.shrinks, "the move that runs is the one the budget allows")
}

func TestRightsizeExtra(t *testing.T) {
	h := fleetOf(t)
	id := contract.DiskID("d-00000000000000008") // 78 of 100 GiB used
	extra := contract.Extra{Disk: id, Bytes: 300 * contract.GiB, Until: time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC)}
	r := h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: enforce}\n", Extras: []contract.Extra{extra}})
	i := slices.IndexFunc(r.Started, func(b contract.Begun) bool { return b.Disk == id })
	require.GreaterOrEqual(t, i, 0)
	require.GreaterOrEqual(t, r.Started[i].ToGiB, int64(378))
	require.Equal(t, extra.Bytes, h.Nodes.Guide(id).ExtraBytes)

	extra.Until = time.Date(2026, 11, 22, 11, 0, 0, 0, time.UTC)
	h.fresh()
	r = h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: enforce}\n", Extras: []contract.Extra{extra}})
	require.False(t, slices.ContainsFunc(r.Started, func(b contract.Begun) bool { return b.Disk == id }), "it is over")
	require.Zero(t, h.Nodes.Guide(id).ExtraBytes)
}

func TestRightsizeRefusesABadPolicy(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: enforced}\n"})
	require.NotNil(t, r.Refusal)
	require.Equal(t, contract.BadInput, r.Refusal.Code)
	require.Contains(t, r.Refusal.Message, "line 3")
	h.fresh()
	r = h.rightsize(contract.RightsizeInput{Switches: []contract.Switch{{Mode: "on"}}})
	require.Contains(t, r.Refusal.Message, "observe, recommend or enforce")
}

func TestRightsizeDryRun(t *testing.T) {
	h := fleetOf(t)
	r := h.rightsize(contract.RightsizeInput{Policy: header + "defaults: {mode: enforce}\n", DryRun: true})
	require.Empty(t, r.Started)
	require.Equal(t, 7, r.Totals.Wanted["grow"]+r.Totals.Wanted["shrink"])
	require.Nil(t, h.Nodes.Guide("d-00000000000000008"), "a what-if tells agents nothing")
}

func TestRightsizeTakesGuidesBack(t *testing.T) {
	h := fleetOf(t)
	const policy = header + "defaults: {mode: enforce, ceiling: 200GiB, atCeiling: fail}\n"
	h.rightsize(contract.RightsizeInput{Policy: policy})
	require.True(t, h.Nodes.Guide("d-00000000000000008").FailAtCeiling)
	h.fresh()
	h.rightsize(contract.RightsizeInput{Policy: policy, DryRun: true, Switches: []contract.Switch{{Mode: contract.Observe}}})
	require.NotNil(t, h.Nodes.Guide("d-00000000000000008"), "a what-if takes nothing back either")
	h.fresh()
	h.rightsize(contract.RightsizeInput{Policy: policy, Switches: []contract.Switch{{Mode: contract.Observe}}})
	require.Nil(t, h.Nodes.Guide("d-00000000000000008"))
}

func TestShardsFitEC2AndPayloads(t *testing.T) {
	h := newHerd(t)
	n := 0
	for node := range 450 {
		for range 1 + node%4 {
			n++
			h.add(n, nodeN(node), 100, 78)
		}
	}
	r := h.rightsize(contract.RightsizeInput{})
	require.Equal(t, n, r.Totals.Measured)
	require.Empty(t, r.Problems)
}

func proposalOf(h *herd) fleet.Proposal {
	d := plan.Decision{
		Disk: "d-00000000000000002", Node: nodeN(3), Rule: "defaults", Mode: contract.Recommend, FromGiB: 500, GiB: 60, Wanted: plan.Shrink,
		Reason: "shrink from 500 to 60 GiB", SavingUSDMonth: 35,
	}
	_, in, why := fleet.Operation(d, plan.DefaultRule(), contract.Settings{})
	require.Empty(h.t, why)
	shrink := in.(contract.ShrinkInput)
	return fleet.Proposal{Decision: d, Workflow: contract.ShrinkWorkflow, Shrink: &shrink, Expiry: 24 * time.Hour}
}

type answers struct {
	accepted, done bool
	err            error
}

func (a *answers) Accept()                   { a.accepted = true }
func (a *answers) Reject(err error)          { a.err = err }
func (a *answers) Complete(_ any, err error) { a.done, a.err = true, err }

func (h *herd) propose(when time.Duration, update string, a any) (fleet.Proposed, *answers) {
	h.t.Helper()
	got := &answers{}
	if update != "" {
		got = h.at(when, update, a)
	}
	return h.proposed(proposalOf(h)), got
}

// at answers a proposal at a time after its beginning.
func (h *herd) at(when time.Duration, update string, a any) *answers {
	got := &answers{}
	h.env.RegisterDelayedCallback(func() { h.env.UpdateWorkflow(update, fmt.Sprint(when), got, a) }, when)
	return got
}

func (h *herd) proposed(in fleet.Proposal) fleet.Proposed {
	h.t.Helper()
	h.env.ExecuteWorkflow(contract.ProposeWorkflow, in)
	require.True(h.t, h.env.IsWorkflowCompleted())
	require.NoError(h.t, h.env.GetWorkflowError())
	var p fleet.Proposed
	require.NoError(h.t, h.env.GetWorkflowResult(&p))
	return p
}

func TestProposeApproved(t *testing.T) {
	h := newHerd(t)
	p, a := h.propose(time.Hour, contract.UpdateApprove, fleet.Answer{By: "ada", Note: "fine"})
	require.NoError(t, a.err)
	require.Equal(t, "approved", p.Answer)
	require.Equal(t, "ada", p.By)
	require.Len(t, h.shrinks, 1)
	require.EqualValues(t, 60, h.shrinks[0].ToGiB)
	require.Equal(t, contract.Done, p.Outcome.Outcome)
}

func TestProposeRejectedExpiredOrWithoutAName(t *testing.T) {
	h := newHerd(t)
	p, _ := h.propose(time.Hour, contract.UpdateReject, fleet.Answer{By: "ada"})
	require.Equal(t, "rejected", p.Answer)
	h.fresh()
	p, _ = h.propose(0, "", nil)
	require.Equal(t, "expired", p.Answer)
	h.fresh()
	p, a := h.propose(time.Hour, contract.UpdateApprove, fleet.Answer{})
	require.ErrorContains(t, a.err, "who answers")
	require.Equal(t, "expired", p.Answer)
	require.Empty(t, h.shrinks)
}
