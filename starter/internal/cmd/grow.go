package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/size"
)

type growOptions struct {
	operateOptions
	to     size.GiBFlag
	reason string
}

func (a *app) newGrow() *cobra.Command {
	var o growOptions
	c := &cobra.Command{
		Use:   "grow DISK",
		Short: "Make a disk's backing larger",
		Long: `Make the backing of a disk larger, online. Disks grow by themselves when they
fill; this is for making room ahead of time. The disk's own size does not change
(see ebb expand).`,
		Example:           "  ebb grow data-1\n  ebb grow data-1 --to 32GiB --dry-run",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runGrow(c.Context(), args[0], o) },
	}
	c.Flags().Var(&o.to, "to", "new size of the backing, in whole GiB (default: as the usage asks for)")
	c.Flags().StringVar(&o.reason, "reason", "", "a word for the record")
	o.bind(c)
	return c
}

func (a *app) runGrow(ctx context.Context, ref string, o growOptions) error {
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		summary := "grow " + d.String()
		if o.to > 0 {
			summary += " to " + o.to.String()
		}
		return a.operate(ctx, c, control.Operation{
			Workflow: contract.GrowWorkflow, Disk: d, Node: d.Node, Summary: summary,
			Input: contract.GrowInput{Disk: d.ID, ToGiB: int64(o.to), Reason: o.reason, DryRun: o.dryRun},
		}, o.operateOptions)
	})
}
