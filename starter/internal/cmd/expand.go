package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
)

type expandOptions struct {
	operateOptions
	size size.BytesFlag
}

func (a *app) newExpand() *cobra.Command {
	var o expandOptions
	c := &cobra.Command{
		Use:   "expand DISK --size SIZE",
		Short: "Raise a disk's own size and its filesystem",
		Long: `Raise the size applications see, filesystem included, online. This costs nothing
by itself: the backing follows the data. A disk's own size never goes down.`,
		Example:           "  ebb expand data-1 --size 128GiB",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runExpand(c.Context(), args[0], o) },
	}
	c.Flags().Var(&o.size, "size", "the disk's new size")
	o.bind(c)
	_ = c.MarkFlagRequired("size")
	return c
}

func (a *app) runExpand(ctx context.Context, ref string, o expandOptions) error {
	in := contract.ExpandInput{Disk: "d-00000000000000000", SizeBytes: int64(o.size)}
	if err := invalid(in.Validate()); err != nil {
		return err
	}
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		in.Disk = d.ID
		if o.dryRun {
			return a.planExpand(ctx, c, d, in.SizeBytes)
		}
		return a.operate(ctx, c, control.Operation{
			Workflow: contract.ExpandWorkflow, Disk: d, Node: d.Node, Input: in,
			Summary: fmt.Sprintf("expand %s to %s", d, size.Bytes(in.SizeBytes)),
		}, o.operateOptions)
	})
}

// planExpand is the dry run: the workflow has none, and the question is only
// whether the size goes up.
func (a *app) planExpand(ctx context.Context, c *control.Client, d control.Disk, to int64) error {
	reports, err := c.Inspect(ctx, contract.InspectInput{Disk: d.ID})
	if err != nil {
		return err
	}
	if len(reports) == 0 || reports[0].Measurement == nil {
		return exit.New(exit.Failed, "disk %s cannot be measured now, so there is nothing to plan with", d).
			WithNext("ebb disk show %s", d.Ref())
	}
	m := reports[0].Measurement
	if to <= m.SizeBytes {
		return exit.Refusal(contract.Refuse(contract.BadInput, "the disk has %s already, and never gets smaller", size.Bytes(m.SizeBytes)).
			WithDisk(d.ID).WithNext("ask for more than %s", size.Bytes(m.SizeBytes)))
	}
	result := contract.Result{
		Disk: d.ID, Operation: contract.ExpandWorkflow, Outcome: contract.Planned, Node: m.Node, Generation: m.Generation,
		Steps: []string{
			fmt.Sprintf("extend the disk from %s to %s", size.Bytes(m.SizeBytes), size.Bytes(to)),
			fmt.Sprintf("extend its %s filesystem", m.Filesystem),
		},
	}
	return a.finish(&control.Run{Disk: d, Operation: contract.ExpandWorkflow}, &result, nil)
}
