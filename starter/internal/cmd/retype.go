package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
)

type retypeOptions struct {
	operateOptions
	in contract.RetypeInput
}

func (a *app) newRetype() *cobra.Command {
	var o retypeOptions
	c := &cobra.Command{
		Use:   "retype DISK",
		Short: "Change a disk's volume type or performance, in place",
		Long: `Give the volume of a disk another type (gp2, gp3, io1, io2), other IOPS or another
throughput, in place: nothing is copied, the application keeps running, and sizes
stay. What is not given is kept: of a new type at least what the old one delivers.

EBS modifies a volume four times in 24 hours at most, and no other time for some
hours after this: should the disk fill meanwhile it grows by another volume. A
volume that is as asked for already is refused, since EBS counts that too. A backing
of several volumes is changed by a move: ebb shrink DISK --type gp3.`,
		Example:           "  ebb retype data-1 --type gp3 --dry-run\n  ebb retype data-1 --iops 6000 --throughput 250",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runRetype(c.Context(), args[0], o) },
	}
	f := c.Flags()
	f.StringVar(&o.in.Type, "type", "", "EBS volume type: gp2, gp3, io1 or io2 (default: as it is; gp3 for gp2)")
	f.Int32Var(&o.in.IOPS, "iops", 0, "provisioned IOPS (default: what there is)")
	f.Int32Var(&o.in.ThroughputMiBs, "throughput", 0, "provisioned throughput in MiB/s (default: what there is)")
	f.StringVar(&o.in.Reason, "reason", "", "a word for the record")
	o.bind(c)
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"gp2", "gp3", "io1", "io2"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) runRetype(ctx context.Context, ref string, o retypeOptions) error {
	in := o.in
	in.Disk, in.DryRun = "d-00000000000000000", o.dryRun
	if err := invalid(in.Validate()); err != nil {
		return err
	}
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		in.Disk = d.ID
		summary := fmt.Sprintf("retype %s", d)
		if in.Type != "" {
			summary += " to " + in.Type
		}
		return a.operate(ctx, c, control.Operation{
			Workflow: contract.RetypeWorkflow, Disk: d, Node: d.Node, Summary: summary, Input: in,
		}, o.operateOptions)
	})
}
