package cmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type diskMoveOptions struct {
	operateOptions
	node  string
	mount string
	dead  bool
}

func (a *app) newDiskMove() *cobra.Command {
	var o diskMoveOptions
	c := &cobra.Command{
		Use:   "move DISK --node INSTANCE",
		Short: "Bring a disk to another node",
		Long: `Bring a disk to another node of the same zone: unmount it, take it down, detach,
attach, assemble and mount it there. Applications on the old node must have let
go of it.

When an operation runs on the disk, it is told to go on at the new node: no need
to cancel it first.`,
		Example:           "  ebb disk move data-1 --node i-0fedcba9876543210\n  ebb disk move data-1 --node i-0fedcba9876543210 --dead",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runDiskMove(c.Context(), args[0], o) },
	}
	f := c.Flags()
	f.StringVar(&o.node, "node", "", "EC2 instance id of the new node")
	f.StringVar(&o.mount, "mount", "", "where the new node mounts it (default: as before)")
	f.BoolVar(&o.dead, "dead", false, "the old node is off for good: do not ask it, detach by force (refused while EC2 says it runs)")
	o.bind(c)
	_ = c.MarkFlagRequired("node")
	return c
}

func (a *app) runDiskMove(ctx context.Context, ref string, o diskMoveOptions) error {
	in := contract.RehomeInput{Node: o.node, MountPath: o.mount, Dead: o.dead, DryRun: o.dryRun, Disk: "d-00000000000000000"}
	if err := invalid(in.Validate()); err != nil {
		return err
	}
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		in.Disk = d.ID
		op := control.Operation{
			Workflow: contract.RehomeWorkflow, Disk: d, Node: o.node, Input: in,
			Summary: fmt.Sprintf("move %s to %s", d, o.node),
		}
		if o.dryRun {
			return a.operate(ctx, c, op, o.operateOptions)
		}
		before, _ := c.Progress(ctx, d) // of an operation that runs already, if one does
		run, joined, err := c.Move(ctx, op)
		if err != nil {
			return err
		}
		if joined {
			a.streams.Say("%s is running on disk %s; it was told to go on at %s", control.Verb(run.Operation), d, o.node)
		}
		switch {
		case o.detach:
			return a.printStarted(run)
		case joined:
			return a.followArrival(ctx, c, run, o.node, before.Refusal)
		}
		return a.follow(ctx, c, run, a.streams.Err, nil)
	})
}

// followArrival follows an operation that was told to go on at another node
// until it does, refuses to, or ends. A refusal that was there before is not
// about this. How the operation ends does not say where the disk is: an
// operation carries a move out also after it was refused, so EC2 is asked.
func (a *app) followArrival(ctx context.Context, c *control.Client, run *control.Run, node string, before *contract.Refusal) error {
	var arrived bool
	var refused *contract.Refusal
	err := a.follow(ctx, c, run, a.streams.Err, func(p contract.Progress) bool {
		if r := p.Refusal; r != nil && (before == nil || *r != *before) {
			refused = r
		}
		arrived = p.Node == node && p.Phase != contract.PhaseRehome
		return arrived || refused != nil
	})
	switch {
	case err == nil && refused != nil:
		return exit.Refusal(refused)
	case err == nil && arrived:
		a.streams.Say("disk %s is on %s; the %s goes on: ebb watch %s", run.Disk, node, control.Verb(run.Operation), run.Disk.Ref())
		return a.runDiskShow(ctx, string(run.Disk.ID))
	}
	verb, code := control.Verb(run.Operation), exit.CodeOf(err)
	if code != exit.Done && code != exit.Refused && code != exit.Cancelled {
		return err
	}
	is, lookErr := c.NodeOf(ctx, run.Disk, node)
	switch {
	case err == nil && lookErr != nil:
		return lookErr
	case err != nil && is != node:
		return err
	case is != node:
		return exit.New(exit.Failed, "the %s ended before disk %s was moved; it is on %s", verb, run.Disk, orNowhere(is)).
			WithNext("ebb disk move %s --node %s", run.Disk.Ref(), node)
	case code == exit.Cancelled:
		a.streams.Say("the %s was cancelled", verb)
	case code == exit.Refused:
		a.streams.Say("the %s was %s", verb, err) // "refused: ..."
	}
	a.streams.Say("disk %s is on %s", run.Disk, node)
	if err != nil && a.output == ui.TableFormat { // else its result is printed
		return a.runDiskShow(ctx, string(run.Disk.ID))
	}
	return nil
}

func orNowhere(node string) string {
	if node == "" {
		return "no node"
	}
	return node
}
