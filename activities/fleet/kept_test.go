package fleet

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
)

// run is one workflow, and the client that knows only it.
type run struct {
	client.WorkflowRun
	result contract.Result
	err    error
}

func (r run) GetWorkflow(context.Context, string, string) client.WorkflowRun { return r }

func (r run) Get(_ context.Context, to any) error {
	*to.(*contract.Result) = r.result
	return r.err
}

func TestKeptTellsWhoseRetireWasCancelled(t *testing.T) {
	for name, c := range map[string]struct {
		run  run
		kept bool
		err  bool
	}{
		"cancelled":  {run{result: contract.Result{Outcome: contract.Cancelled}}, true, false},
		"refused":    {run{result: contract.Result{Outcome: contract.Refused}}, false, false},
		"never was":  {run{err: serviceerror.NewNotFound("no")}, false, false},
		"no answer":  {run{err: context.DeadlineExceeded}, false, true},
		"no service": {run{err: errors.New("unavailable")}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := keptBy(t.Context(), c.run, "vol-1")
			require.Equal(t, c.kept, got)
			require.Equal(t, c.err, err != nil)
		})
	}
}

// leavings is a World with retired volumes.
type leavings struct {
	World
	found []contract.Leftover
}

func (l leavings) Leftovers(context.Context, time.Duration, time.Duration, time.Duration) ([]contract.Leftover, error) {
	return l.found, nil
}

// TestLeftoversReportWhatIsKept: who cancels a Retire workflow keeps its volume for
// good, and Reap must not delete it after all.
func TestLeftoversReportWhatIsKept(t *testing.T) {
	a := New(Options{
		World: leavings{found: []contract.Leftover{
			{Volume: "vol-kept", Role: contract.RoleRetired, Reason: "retired"},
			{Volume: "vol-left", Role: contract.RoleRetired, Reason: "retired"},
			{Volume: "vol-new", Role: contract.RoleIncoming, Reason: "made"},
		}},
		Retiring: func(context.Context) (map[string]bool, error) { return nil, nil },
		Kept:     func(_ context.Context, v string) (bool, error) { return v != "vol-left", nil },
	})
	out, err := a.Leftovers(t.Context(), contract.ReapInput{})
	require.NoError(t, err)
	require.Len(t, out.Leftovers, 3)
	for _, l := range out.Leftovers {
		require.Equal(t, l.Volume == "vol-kept", l.Suspect, l.Volume)
	}
}
