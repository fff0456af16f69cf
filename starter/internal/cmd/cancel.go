package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

type cancelOptions struct {
	signalOptions
	wait bool
}

func (a *app) newCancel() *cobra.Command {
	var o cancelOptions
	c := &cobra.Command{
		Use:   "cancel DISK",
		Short: "Cancel the operation that runs on a disk",
		Long: `Cancel the operation that runs on a disk: a move is undone, its new volume
removed, and the disk is as it was. An operation that is past its swap ends as
done instead.

Returns as soon as the operation has been told; with --wait when it has ended
(exit code 0 when it was cancelled).`,
		Example:           "  ebb cancel data-1 --wait",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runCancel(c.Context(), args[0], o) },
	}
	c.Flags().BoolVar(&o.wait, "wait", false, "wait until the operation has ended")
	o.bind(c)
	return c
}

func (a *app) runCancel(ctx context.Context, ref string, o cancelOptions) error {
	var then func(*control.Client, *control.Run) error
	if o.wait {
		then = func(c *control.Client, run *control.Run) error {
			err := a.follow(ctx, c, run, a.streams.Err, nil)
			if exit.CodeOf(err) == exit.Cancelled {
				a.streams.Say("%s", err)
				return nil
			}
			return err
		}
	}
	return a.signal(ctx, ref, contract.SignalCancel, nil, o.signalOptions, then)
}
