package cmd

import (
	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
)

type pauseOptions struct{ signalOptions }

func (a *app) newPause() *cobra.Command {
	var o pauseOptions
	c := &cobra.Command{
		Use:   "pause DISK",
		Short: "Hold the operation that runs on a disk",
		Long: `Hold the operation that runs on a disk: a copy slows down to a trickle and no
further step begins, until ebb resume. The application is not affected.`,
		Example:           "  ebb pause data-1",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runPause(c, args[0], o) },
	}
	o.bind(c)
	return c
}

func (a *app) runPause(c *cobra.Command, ref string, o pauseOptions) error {
	return a.signal(c.Context(), ref, contract.SignalPause, nil, o.signalOptions, nil)
}
