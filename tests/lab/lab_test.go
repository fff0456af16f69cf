package lab_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/lab"
	"github.com/ebb-storage/ebb/tests/node"
)

func start(t *testing.T, o lab.Options) *lab.Lab {
	t.Helper()
	if err := node.OwnKernel(); err != nil {
		t.Skip(err)
	}
	o.Dir = t.TempDir()
	l, err := lab.Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"worker.log", "agent-" + lab.NodeID(0) + ".log", "agent-" + lab.NodeID(1) + ".log"} {
				if b, err := os.ReadFile(o.Dir + "/" + name); err == nil {
					t.Logf("%s:\n%s", name, b[max(0, len(b)-6000):])
				}
			}
		}
		require.NoError(t, l.Close())
	})
	return l
}

// TestLoopIsRefused: agents on one host would share its port, volumes and mounts.
func TestLoopIsRefused(t *testing.T) {
	t.Setenv(node.KindEnv, node.KindLoop)
	l, err := lab.Start(t.Context(), lab.Options{Dir: t.TempDir(), Nodes: 2})
	require.ErrorIs(t, err, node.ErrUnavailable)
	require.ErrorContains(t, err, "leave NODE unset")
	require.Nil(t, l)
}

// TestLife takes a disk from its creation to its deletion, by the command.
func TestLife(t *testing.T) {
	l := start(t, lab.Options{Nodes: 2})
	ctx := t.Context()
	began := time.Now()
	lap := func(what string) { t.Logf("%6.1f s  %s", time.Since(began).Seconds(), what) }
	var r contract.Result
	require.NoError(t, l.EbbJSON(ctx, &r, "disk", "create", "data", "--size", "16GiB", "--backing", "2GiB", "--node", lab.NodeID(0), "--mount", "/tmp/data"))
	require.Equal(t, contract.Done, r.Outcome, "%+v", r)
	lap("created")
	d := string(r.Disk)
	low := lowWater(t, l, d)
	journal := l.Nodes[0].Dir() + "/journal"
	_, err := l.Sh(ctx, 0, fmt.Sprintf("%s write /tmp/data %s -bytes 1048576 -until 2000000000", l.Bin("ackwriter"), journal))
	require.NoError(t, err)
	lap("filled beyond its backing")
	at := low()
	asked := firstGrowth(t, l, d).Sub(at)
	lap(fmt.Sprintf("its growth was asked for %s after the kernel's event", asked.Round(time.Millisecond)))
	require.Less(t, asked, 2*time.Second) // a second, and one for a busy machine
	require.Greater(t, asked, -time.Second, "that was another event")
	_, err = l.Sh(ctx, 0, fmt.Sprintf("%s delete /tmp/data %s -keep 10", l.Bin("ackwriter"), journal))
	require.NoError(t, err)
	require.NoError(t, l.Until(ctx, time.Minute, "no operation runs", func(ctx context.Context) error {
		err := l.EbbJSON(ctx, &r, "shrink", d, "--grace", "1s")
		return err
	}))
	require.Equal(t, contract.Done, r.Outcome, "%+v", r)
	lap(fmt.Sprintf("shrunk %+v", r))
	require.NoError(t, l.EbbJSON(ctx, &r, "disk", "move", d, "--node", lab.NodeID(1)))
	lap(fmt.Sprintf("moved %+v", r))
	_, err = l.Sh(ctx, 1, fmt.Sprintf("%s check /tmp/data %s", l.Bin("ackwriter"), copyJournal(t, l)))
	require.NoError(t, err)
	lap("checked")
	require.NoError(t, l.EbbJSON(ctx, &r, "disk", "delete", d, "--yes"))
	require.NoError(t, l.Until(ctx, time.Minute, "every volume is gone", func(context.Context) error {
		if v := l.EC2.Volumes(); len(v) > 0 {
			return fmt.Errorf("%d volumes: %+v", len(v), v)
		}
		return nil
	}))
	lap("deleted")
	_, err = l.Ebb(ctx, "shrink", d)
	var exit *lab.ExitError
	require.ErrorAs(t, err, &exit)
	t.Log(exit)
}

// lowWater watches a disk's pool on the first node from now on. What it returns waits
// for the kernel's first event of it, and says when that was.
func lowWater(t *testing.T, l *lab.Lab, disk string) func() time.Time {
	t.Helper()
	const events = "dmsetup info -c --noheadings -o events "
	pool := "ebb-" + disk + "-g1-pool"
	seen, err := l.Sh(t.Context(), 0, events+pool)
	require.NoError(t, err)
	type event struct {
		at  string
		err error
	}
	first := make(chan event, 1)
	go func() {
		out, err := l.Sh(t.Context(), 0, "timeout 300 dmsetup wait "+pool+" "+seen+" >/dev/null; date +%s%N")
		first <- event{out, err}
	}()
	return func() time.Time {
		t.Helper()
		e := <-first
		require.NoError(t, e.err)
		ns, err := strconv.ParseInt(e.at, 10, 64)
		require.NoError(t, err)
		return time.Unix(0, ns)
	}
}

// firstGrowth is when Temporal took the first request for a disk's growth.
func firstGrowth(t *testing.T, l *lab.Lab, disk string) time.Time {
	t.Helper()
	c, err := l.Client(t.Context())
	require.NoError(t, err)
	query := fmt.Sprintf("WorkflowId = '%s' AND WorkflowType = '%s'", contract.WorkflowID(contract.DiskID(disk)), contract.GrowWorkflow)
	var first time.Time
	require.NoError(t, l.Until(t.Context(), time.Minute, "Temporal lists the growth", func(ctx context.Context) error {
		list, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		if err != nil {
			return err
		}
		if len(list.GetExecutions()) == 0 {
			return errors.New("none yet")
		}
		for _, e := range list.GetExecutions() {
			if at := e.GetStartTime().AsTime(); first.IsZero() || at.Before(first) {
				first = at
			}
		}
		return nil
	}))
	return first
}

// copyJournal brings the first node's journal to where the second sees it.
func copyJournal(t *testing.T, l *lab.Lab) string {
	t.Helper()
	b, err := os.ReadFile(l.Nodes[0].Dir() + "/journal")
	require.NoError(t, err)
	to := l.Nodes[1].Dir() + "/journal"
	require.NoError(t, os.WriteFile(to, b, 0o644))
	return to
}
