package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	enums "go.temporal.io/api/enums/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/lab"
)

// history counts the events of a shrink: what it is worth when given, else of
// one that runs from end to end.
func (b *bench) history(ctx context.Context, o options) error {
	n, note := o.events, "as given"
	if n == 0 {
		var err error
		if n, err = shrinkEvents(ctx, filepath.Join(o.dir, "lab")); err != nil {
			return err
		}
		note = "an end-to-end run on Temporal and ec2sim; the move itself is one heartbeating activity, so its length does not count"
	}
	b.add(wire.Row{Group: "workflow", Key: "history_events_shrink", Name: "history events of a shrink", Value: float64(n), Note: note})
	return nil
}

// shrinkEvents runs the whole of Ebb, shrinks a disk and counts the events in the
// workflow's history.
func shrinkEvents(ctx context.Context, dir string) (n int, err error) {
	if err := os.RemoveAll(dir); err != nil { // what an interrupted run left
		return 0, err
	}
	l, err := lab.Start(ctx, lab.Options{Dir: dir})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close(), os.RemoveAll(dir)) }()
	var r contract.Result
	if err := l.EbbJSON(ctx, &r, "disk", "create", "bench", "--size", "8GiB", "--backing", "3GiB", "--node", lab.NodeID(0), "--mount", "/tmp/bench"); err != nil {
		return 0, err
	}
	d := string(r.Disk)
	if _, err := l.Sh(ctx, 0, "dd if=/dev/urandom of=/tmp/bench/data bs=1M count=64 conv=fsync status=none"); err != nil {
		return 0, err
	}
	if err := l.EbbJSON(ctx, &r, "shrink", d, "--grace", "1s"); err != nil {
		return 0, err
	}
	if r.Outcome != contract.Done {
		return 0, fmt.Errorf("the shrink was not done: %+v", r)
	}
	c, err := l.Client(ctx)
	if err != nil {
		return 0, err
	}
	for it := c.GetWorkflowHistory(ctx, contract.WorkflowID(r.Disk), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); n++ {
		if _, err := it.Next(); err != nil {
			return 0, err
		}
	}
	return n, nil
}
