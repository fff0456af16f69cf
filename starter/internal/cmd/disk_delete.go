package cmd

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type diskDeleteOptions struct {
	operateOptions
	noSnapshot bool
	yes        bool
}

func (a *app) newDiskDelete() *cobra.Command {
	var o diskDeleteOptions
	c := &cobra.Command{
		Use:   "delete DISK",
		Short: "Delete a disk and its volumes",
		Long: `Take a disk down and delete its volumes. A last snapshot is kept, and waited for
until it is complete, unless --no-snapshot says otherwise. On a terminal the disk's name must be typed to
confirm; anywhere else --yes is required.`,
		Example:           "  ebb disk delete data-1\n  ebb disk delete data-1 --yes --no-snapshot",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runDiskDelete(c.Context(), args[0], o) },
	}
	c.Flags().BoolVar(&o.noSnapshot, "no-snapshot", false, "keep no last snapshot: the data is gone for good")
	c.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	o.bind(c)
	return c
}

func (a *app) runDiskDelete(ctx context.Context, ref string, o diskDeleteOptions) error {
	ask := !o.yes && !o.dryRun
	if ask && !ui.IsTerminal(a.streams.In) {
		return exit.New(exit.Usage, "deleting a disk needs --yes when nobody is there to ask")
	}
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		if ask {
			if err := a.confirm(ctx, d, o.noSnapshot); err != nil {
				return err
			}
		}
		return a.operate(ctx, c, control.Operation{
			Workflow: contract.DeleteDiskWorkflow, Disk: d, Node: d.Node, Summary: "delete " + d.String(),
			Input: contract.DeleteDiskInput{Disk: d.ID, SkipSnapshot: o.noSnapshot, DryRun: o.dryRun},
		}, o.operateOptions)
	})
}

// confirm has a person type the disk's name.
func (a *app) confirm(ctx context.Context, d control.Disk, noSnapshot bool) error {
	kept := "A last snapshot is kept."
	if noSnapshot {
		kept = a.streams.Paint(a.streams.Err, ui.Bad, "No snapshot is kept: the data is gone for good.")
	}
	a.streams.Say("This deletes disk %s and its volumes. %s", d, kept)
	a.streams.Say("Type %s to go on:", d.Ref())
	return a.typed(ctx, d.Ref(), "deleted")
}
