package workflows_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/workflows"
)

// asker asks Budgets.
type asker struct {
	t      *testing.T
	env    *testsuite.TestWorkflowEnvironment
	counts int
	fails  int // counts that fail
	n      int
}

func newAsker(t *testing.T) *asker {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	a := &asker{t: t, env: suite.NewTestWorkflowEnvironment()}
	a.env.SetStartTime(began)
	a.env.RegisterWorkflowWithOptions(workflows.Budgets, workflow.RegisterOptions{Name: contract.BudgetsWorkflow})
	fleet.CountRunning.Register(a.env, func(context.Context, struct{}) (fleet.Counted, error) {
		a.counts++
		if a.fails > 0 {
			a.fails--
			return fleet.Counted{}, errors.New("EC2 is away")
		}
		return fleet.Counted{}, nil
	})
	return a
}

// at wants a move of a disk at a time.
func (a *asker) at(when time.Duration, disk string) *room {
	got := &room{}
	a.n++
	id := fmt.Sprint(a.n)
	a.env.RegisterDelayedCallback(func() {
		a.env.UpdateWorkflow(contract.UpdateTake, id, got, fleet.Ask{
			Budgets: plan.Budgets{Moves: 1}, Want: []plan.Decision{{Disk: contract.DiskID(disk), Action: plan.Shrink}},
		})
	}, when)
	return got
}

// room is an answer.
type room struct {
	fleet.Room
	err error
}

func (r *room) Accept()          {}
func (r *room) Reject(err error) { r.err = err }

func (r *room) Complete(v any, err error) {
	if r.err = err; err == nil {
		r.Room = v.(fleet.Room)
	}
}

// TestBudgetsAnswersOneAfterTheOther: of two who ask together one gets the room, by
// one count, also when EC2 is away for a moment; and it ends when nobody asks.
func TestBudgetsAnswersOneAfterTheOther(t *testing.T) {
	a := newAsker(t)
	a.fails = 2
	first, second, third := a.at(0, "a"), a.at(0, "b"), a.at(90*time.Second, "c")
	a.env.ExecuteWorkflow(contract.BudgetsWorkflow, fleet.Ledger{})
	require.NoError(t, a.env.GetWorkflowError())
	require.Len(t, first.Begin, 1)
	require.Len(t, second.Held, 1)
	require.Len(t, third.Held, 1, "what was allowed counts though nobody sees it")
	require.Equal(t, 2+2, a.counts)
	require.WithinDuration(t, began.Add(90*time.Second+fleet.Remember), a.env.Now(), 10*time.Second)
}

// TestBudgetsGoesOn: a long history ends with what has to be remembered.
func TestBudgetsGoesOn(t *testing.T) {
	a := newAsker(t)
	first := a.at(time.Second, "a")
	second := a.at(2*time.Second, "b")
	a.env.RegisterDelayedCallback(func() { a.env.SetContinueAsNewSuggested(true) }, 3*time.Second)
	a.at(3*time.Second, "c") // wakes it
	a.env.ExecuteWorkflow(contract.BudgetsWorkflow, fleet.Ledger{})
	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, a.env.GetWorkflowError(), &again)
	require.Len(t, first.Begin, 1)
	require.Len(t, second.Held, 1)
	var l fleet.Ledger
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(again.Input, &l))
	require.Len(t, l.Taken, 1)
	require.False(t, l.Stale(began.Add(3*time.Second)))
}
