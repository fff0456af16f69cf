package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/lab"
)

// TestMoveLeftIsTakenUp: a move that no operation carries on, as after its node was
// away for longer than any operation waits, is ended by the next run over the fleet,
// also when it was paused.
func TestMoveLeftIsTakenUp(t *testing.T) {
	l := start(t, lab.Options{Nodes: 1})
	ctx := t.Context()
	var r contract.Result
	require.NoError(t, l.EbbJSON(ctx, &r, "disk", "create", "team/data", "--size", "16GiB", "--backing", "4GiB", "--node", lab.NodeID(0), "--mount", "/tmp/data"))
	require.Equal(t, contract.Done, r.Outcome, "%+v", r)
	d := string(r.Disk)
	journal := l.Nodes[0].Dir() + "/journal"
	_, err := l.Sh(ctx, 0, fmt.Sprintf("%s write /tmp/data %s -bytes 1048576 -until 300000000", l.Bin("ackwriter"), journal))
	require.NoError(t, err)

	show := func(ctx context.Context) (m contract.Measurement, err error) {
		var shown struct {
			Measurement *contract.Measurement `json:"measurement"`
		}
		if err := l.EbbJSON(ctx, &shown, "disk", "show", d); err != nil || shown.Measurement == nil {
			return m, fmt.Errorf("not measured: %w", err)
		}
		return *shown.Measurement, nil
	}
	_, err = l.Ebb(ctx, "shrink", d, "--no-snapshot", "--throttle", "1MiB/s", "--detach")
	require.NoError(t, err)
	require.NoError(t, l.Until(ctx, time.Minute, "the move copies", func(ctx context.Context) error {
		m, err := show(ctx)
		if err == nil && (m.Move == nil || m.Move.CopiedBytes == 0) {
			err = fmt.Errorf("%+v", m.Move)
		}
		return err
	}))
	_, err = l.Ebb(ctx, "pause", d)
	require.NoError(t, err)
	_, err = l.Ebb(ctx, "throttle", d, "off")
	require.NoError(t, err)
	require.NoError(t, l.Until(ctx, time.Minute, "the move is paused", func(ctx context.Context) error {
		m, err := show(ctx)
		if err == nil && (m.Move == nil || !m.Move.Paused || m.Move.ThrottleMiBs != 0) {
			err = fmt.Errorf("%+v", m.Move)
		}
		return err
	}))
	c, err := l.Client(ctx)
	require.NoError(t, err)
	require.NoError(t, c.TerminateWorkflow(ctx, contract.WorkflowID(r.Disk), "", "test"))
	m, err := show(ctx)
	require.NoError(t, err)
	require.NotNil(t, m.Move)

	file := filepath.Join(t.TempDir(), "policy.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
apiVersion: ebb.io/v1alpha1
kind: Policy
metadata: {name: left}
defaults:
  mode: enforce
  headroom: {bytes: 64MiB, percent: 10%, fillTime: 1s} # none that the disk has to grow for first
  move: {snapshot: false, grace: 1s}
`), 0o644))
	_, err = l.Ebb(ctx, "schedule", "apply", "--policy", file)
	require.NoError(t, err)
	_, err = l.Ebb(ctx, "schedule", "run", "rightsize")
	require.NoError(t, err)
	require.NoError(t, l.Until(ctx, 2*time.Minute, "the move has ended and the old volume is gone", func(ctx context.Context) error {
		m, err := show(ctx)
		if n := len(l.EC2.Volumes()); err == nil && (m.Move != nil || m.Generation != 2 || n != 1) {
			err = fmt.Errorf("generation %d, %d volumes, %+v", m.Generation, n, m.Move)
		}
		return err
	}))
	_, err = l.Sh(ctx, 0, fmt.Sprintf("%s check /tmp/data %s", l.Bin("ackwriter"), journal))
	require.NoError(t, err)
}
