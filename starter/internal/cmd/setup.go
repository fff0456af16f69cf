package cmd

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type setupOptions struct{ dryRun bool }

func (a *app) newSetup() *cobra.Command {
	var o setupOptions
	c := &cobra.Command{
		Use:   "setup",
		Short: "Prepare a Temporal namespace for Ebb",
		Long: `Check that the namespace exists and register the search attributes Ebb writes
(EbbDisk, EbbClaim, EbbNode, EbbPhase, EbbOperation, all Keyword). Safe to
repeat: what is there already stays as it is.`,
		Example: "  ebb setup\n  ebb setup --namespace storage --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runSetup(c.Context(), o) },
	}
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what is missing; change nothing")
	return c
}

func (a *app) runSetup(ctx context.Context, o setupOptions) error {
	return a.withClient(ctx, func(c *control.Client) error {
		report, err := c.Setup(ctx, o.dryRun)
		if err != nil {
			return err
		}
		a.streams.Say("namespace %s at %s: found, keeps finished operations for %s", report.Namespace, report.Address, report.Retention)
		return a.output.Print(a.streams.Out, report, func(w io.Writer) error {
			rows := make([][]string, 0, len(report.Attributes))
			for _, item := range report.Attributes {
				rows = append(rows, []string{item.Name, item.Type, item.Action})
			}
			return ui.Table(w, []string{"SEARCH ATTRIBUTE", "TYPE", "ACTION"}, rows)
		})
	})
}
