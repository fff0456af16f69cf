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

type diskCreateOptions struct {
	operateOptions
	volume  volumeOptions
	name    string
	id      string
	node    string
	size    size.BytesFlag
	backing size.GiBFlag
	fs      string
	mount   string
}

func (a *app) newDiskCreate() *cobra.Command {
	var o diskCreateOptions
	c := &cobra.Command{
		Use:   "create NAME --size SIZE --node INSTANCE",
		Short: "Create a disk on a node",
		Long: `Create a disk: one EBS volume of the backing's size, formatted, assembled on the
node with a fresh filesystem of the disk's size, and mounted when --mount says
where. The backing then follows the data.`,
		Example: `  ebb disk create data-1 --size 64GiB --node i-0123456789abcdef0 --mount /data
  ebb disk create shop/pgdata --size 1TiB --backing 32GiB --fs ext4 --node i-0123456789abcdef0 --encrypted --tag team=shop`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exit.New(exit.Usage, "want one NAME, got %d arguments", len(args)).WithNext("ebb disk create --help")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.name = args[0]
			return a.runDiskCreate(c.Context(), o)
		},
	}
	f := c.Flags()
	f.Var(&o.size, "size", "the disk's own size, which applications see")
	f.StringVar(&o.node, "node", "", "EC2 instance id of the node")
	f.Var(&o.backing, "backing", "first size of the backing, in whole GiB (default 1/16 of the size)")
	f.StringVar(&o.fs, "fs", string(contract.XFS), "filesystem: xfs or ext4")
	f.StringVar(&o.mount, "mount", "", "where the node mounts it")
	f.StringVar(&o.id, "id", "", "disk id to use, for scripts that must be safe to repeat (default: a new one)")
	o.volume.bind(c)
	o.bind(c)
	_ = c.MarkFlagRequired("size")
	_ = c.MarkFlagRequired("node")
	_ = c.RegisterFlagCompletionFunc("fs", cobra.FixedCompletions([]string{"xfs", "ext4"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) runDiskCreate(ctx context.Context, o diskCreateOptions) error {
	spec, err := o.volume.spec()
	if err != nil {
		return err
	}
	in := contract.CreateDiskInput{
		Disk: contract.DiskID(o.id), Name: o.name, Node: o.node, SizeBytes: int64(o.size), BackingGiB: int64(o.backing),
		Filesystem: contract.Filesystem(o.fs), MountPath: o.mount, Volume: spec, DryRun: o.dryRun,
	}
	if o.id == "" {
		in.Disk = control.NewDiskID()
	}
	if err := invalid(in.Validate()); err != nil {
		return err
	}
	return a.withClient(ctx, func(c *control.Client) error {
		have, err := c.Resolve(ctx, o.name)
		switch {
		case err == nil && have.Name == o.name && have.ID != in.Disk:
			return exit.Refusal(contract.Refuse(contract.DiskExists, "a disk is named %s already", o.name).
				WithDisk(have.ID).WithNext("choose another name, or see it: ebb disk show %s", o.name))
		case err != nil && exit.CodeOf(err) != exit.NotFound:
			return err
		}
		disk := control.Disk{ID: in.Disk, Name: o.name, Node: o.node}
		a.streams.Say("disk %s", disk)
		return a.operate(ctx, c, control.Operation{
			Workflow: contract.CreateDiskWorkflow, Disk: disk, Node: o.node, Input: in,
			Summary: fmt.Sprintf("create %s, %s, on %s", o.name, size.Bytes(in.SizeBytes), o.node),
		}, o.operateOptions)
	})
}
