package cmd

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

func (a *app) newWatch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch DISK",
		Short: "Follow the operation that runs on a disk",
		Long: `Follow the operation that runs on a disk until it ends: phase, share done, rate
and time to go. On a terminal it is a bar; elsewhere a line per phase and per
tenth of it; with -o json (or yaml) one value per line (document) for every
change, the last one being the result. Ctrl-C stops watching, not the operation.

The exit code is that of the operation, as if it had been started here.`,
		Example:           "  ebb watch data-1\n  ebb watch data-1 -o json | jq -r .phase",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runWatch(c.Context(), args[0]) },
	}
}

func (a *app) runWatch(ctx context.Context, ref string) error {
	return a.withClient(ctx, func(c *control.Client) error {
		d, err := c.ResolveRunning(ctx, ref)
		if err != nil {
			return err
		}
		run, _, err := c.Attach(ctx, d)
		if err != nil {
			return err
		}
		if a.output == ui.TableFormat {
			return a.follow(ctx, c, run, a.streams.Out, nil)
		}
		return a.stream(ctx, c, run)
	})
}

// stream writes every change as a value of its own.
func (a *app) stream(ctx context.Context, c *control.Client, run *control.Run) error {
	var werr error
	changes := ui.Changes{}
	result, err := c.Follow(ctx, run, a.refresh, func(s control.Snapshot) {
		if werr == nil && changes.New(s) {
			werr = a.output.Event(a.streams.Out, s)
		}
	}, nil)
	if errors.Is(err, context.Canceled) {
		return detached(run)
	}
	if result != nil && werr == nil {
		werr = a.output.Event(a.streams.Out, result)
	}
	return errors.Join(err, werr)
}
