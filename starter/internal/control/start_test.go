package control

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// untouched fails on every call.
type untouched struct{ client.Client }

// TestNothingBeginsAfterCtrlC: what was interrupted before it was asked for is not
// asked for, though what is asked for is seen through.
func TestNothingBeginsAfterCtrlC(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := &Client{temporal: untouched{}}
	op := Operation{Workflow: contract.RehomeWorkflow, Disk: Disk{ID: "d-00000000000000001"}}
	for left, begin := range map[string]func() error{
		"nothing was started":        func() error { _, err := c.Start(ctx, op); return err },
		"the move was not asked for": func() error { _, _, err := c.Move(ctx, op); return err },
		"no run was started":         func() error { _, err := c.StartFleetRun(ctx, contract.ReapWorkflow, "reap/", "", nil); return err },
		"the schedule ebb-reap is as it was": func() error {
			_, err := c.EditReap(ctx, EditOptions{}, func(*Timed[contract.ReapInput]) error { return nil })
			return err
		},
	} {
		t.Run(left, func(t *testing.T) {
			err := begin()
			require.Equal(t, exit.Detached, exit.CodeOf(err))
			require.ErrorContains(t, err, "interrupted; "+left)
		})
	}
}
