package cmd

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type preflightOptions struct{ node string }

func (a *app) newPreflight() *cobra.Command {
	var o preflightOptions
	c := &cobra.Command{
		Use:   "preflight --node INSTANCE",
		Short: "Ask a node whether Ebb can run there",
		Long: `Ask a node's agent what its kernel offers: device-mapper targets, filesystems,
lockdown and what else Ebb needs. Exit code 3 when something is missing.`,
		Example: "  ebb preflight --node i-0123456789abcdef0",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runPreflight(c.Context(), o) },
	}
	c.Flags().StringVar(&o.node, "node", "", "EC2 instance id of the node")
	_ = c.MarkFlagRequired("node")
	return c
}

func (a *app) runPreflight(ctx context.Context, o preflightOptions) error {
	if err := invalid(contract.ValidateInstanceID(o.node)); err != nil {
		return err
	}
	return a.withClient(ctx, func(c *control.Client) error {
		res, err := c.Preflight(ctx, o.node)
		if err != nil {
			return err
		}
		a.streams.Say("node %s, kernel %s", res.Node, ui.Clean(res.Kernel))
		err = a.output.Print(a.streams.Out, res, func(w io.Writer) error {
			rows := make([][]string, 0, len(res.Checks))
			for _, check := range res.Checks {
				ok := "ok"
				if !check.OK {
					ok = "MISSING"
				}
				rows = append(rows, []string{ok, check.Name, check.Detail, check.Next})
			}
			return ui.Table(w, []string{"", "CHECK", "FOUND", "NEXT"}, rows)
		})
		if err == nil && !res.OK {
			return exit.Refusal(contract.Refuse(contract.NodeUnsupported, "Ebb cannot run on node %s", o.node).WithNext("do what the checks above name, then ask again"))
		}
		return err
	})
}
