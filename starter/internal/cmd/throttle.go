package cmd

import (
	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
)

type throttleOptions struct{ signalOptions }

func (a *app) newThrottle() *cobra.Command {
	var o throttleOptions
	c := &cobra.Command{
		Use:     "throttle DISK RATE|off",
		Short:   "Limit the copy rate of a running move",
		Example: "  ebb throttle data-1 200MiB/s\n  ebb throttle data-1 off",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return exit.New(exit.Usage, "want DISK and RATE, got %d arguments", len(args)).WithNext("ebb throttle --help")
			}
			return nil
		},
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runThrottle(c, args[0], args[1], o) },
	}
	o.bind(c)
	return c
}

func (a *app) runThrottle(c *cobra.Command, ref, rate string, o throttleOptions) error {
	mibs, err := size.ParseRate(rate)
	if err != nil {
		return invalid(err)
	}
	return a.signal(c.Context(), ref, contract.SignalThrottle, contract.Throttle{MiBs: mibs}, o.signalOptions, nil)
}
