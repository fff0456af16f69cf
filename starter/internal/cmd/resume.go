package cmd

import (
	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
)

type resumeOptions struct{ signalOptions }

func (a *app) newResume() *cobra.Command {
	var o resumeOptions
	c := &cobra.Command{
		Use:               "resume DISK",
		Short:             "Let a paused operation go on",
		Example:           "  ebb resume data-1",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runResume(c, args[0], o) },
	}
	o.bind(c)
	return c
}

func (a *app) runResume(c *cobra.Command, ref string, o resumeOptions) error {
	return a.signal(c.Context(), ref, contract.SignalResume, nil, o.signalOptions, nil)
}
