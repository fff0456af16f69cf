package cmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type reapOptions struct {
	delete bool
	minAge size.DurationFlag
	dryRun bool
}

func (a *app) newReap() *cobra.Command {
	var o reapOptions
	c := &cobra.Command{
		Use:   "reap",
		Short: "Find what no disk needs any more, and delete it",
		Long: `Look now for volumes and snapshots of Ebb's that nothing needs: retired past their
grace period, left by creations and moves that failed, snapshots past their
retention. By itself this only reports, with the reason for each.

With --delete it removes those that the tags in EC2, the header on the volume and
the node where the disk is up all agree on. In doubt something is kept, and the
report says why. What the tags contradict themselves about is never touched.`,
		Example: "  ebb reap\n  ebb reap --delete --min-age 2d",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runReap(c.Context(), o) },
	}
	c.Flags().BoolVar(&o.delete, "delete", false, "delete what all agree on")
	c.Flags().Var(&o.minAge, "min-age", "how long something must have been of no use (default 6h)")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "only report, whatever --delete says")
	return c
}

func (a *app) runReap(ctx context.Context, o reapOptions) error {
	in := contract.ReapInput{MinAge: time.Duration(o.minAge), Delete: o.delete && !o.dryRun}
	return a.withClient(ctx, func(c *control.Client) error {
		e, err := c.StartFleetRun(ctx, contract.ReapWorkflow, "reap/", "Reap, asked for by "+c.Who(), in)
		if err != nil {
			return err
		}
		var r contract.ReapResult
		if err := a.watchRun(ctx, c, "reap", e, &r); err != nil {
			return err
		}
		return a.printReap(ctx, c, r)
	})
}

func (a *app) printReap(ctx context.Context, c *control.Client, r contract.ReapResult) error {
	return a.printRun(ctx, c, r, r.Refusal, r.Problems, len(r.Fates) > 0, func(w io.Writer, names named) error { return reapTable(w, r, names) })
}

func reapTable(w io.Writer, r contract.ReapResult, names named) error {
	if _, err := fmt.Fprintln(w, reapLine(r)); err != nil || len(r.Fates) == 0 {
		return err
	}
	rows := make([][]string, 0, len(r.Fates))
	for _, f := range r.Fates {
		what, fate := f.Volume, "kept"
		if what == "" {
			what = f.Snapshot
		}
		if f.Deleted {
			fate = "deleted"
		}
		rows = append(rows, []string{what, names.ref(f.Disk), orDash(string(f.Role)), gib(f.GiB), clock(f.Since), fate, f.Reason, strings.TrimSuffix(f.Why, ": "+f.Reason)})
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return ui.Table(w, []string{"VOLUME OR SNAPSHOT", "DISK", "ROLE", ">SIZE", "SINCE", "FATE", "LEFT BECAUSE", "WHY"}, rows)
}
