package cmd

import (
	"cmp"
	"context"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/fleet"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type diskListOptions struct{ node string }

func (a *app) newDiskList() *cobra.Command {
	var o diskListOptions
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List disks",
		Long: `List the disks of the account: what EC2 knows of them, what their nodes measure,
and the operation that runs on them. A node that does not answer within ten
seconds costs its own disks' measurements only.

USED is what the disk occupies in its backing, which is what decides how far it
can shrink.`,
		Example: "  ebb disk list\n  ebb disk list --node i-0123456789abcdef0 -o json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runDiskList(c.Context(), o) },
	}
	c.Flags().StringVar(&o.node, "node", "", "only the disks on this EC2 instance")
	return c
}

// diskList is the data of disk list.
type diskList struct {
	Disks []diskView `json:"disks"`
}

func (a *app) runDiskList(ctx context.Context, o diskListOptions) error {
	in := contract.InspectInput{Node: o.node}
	if err := invalid(in.Validate()); err != nil {
		return err
	}
	return a.withClient(ctx, func(c *control.Client) error {
		reports, err := (&fleet.Reader{Source: c}).Measured(ctx, in.Node)
		if err != nil {
			return err
		}
		running, err := c.AllRunning(ctx)
		if err != nil {
			return err
		}
		list := diskList{Disks: []diskView{}}
		for _, r := range reports {
			var op *control.Running
			if r, ok := running[r.Facts.Disk]; ok {
				op = &r
				delete(running, op.Disk.ID)
			}
			list.Disks = append(list.Disks, newDiskView(r, op))
		}
		// What is being created has no volumes yet.
		for _, op := range running {
			if op.Operation == contract.CreateDiskWorkflow && (o.node == "" || op.Disk.Node == o.node) {
				list.Disks = append(list.Disks, diskView{Disk: op.Disk.ID, Name: op.Disk.Name, Node: op.Disk.Node, Volumes: []contract.VolumeFacts{}, Operation: &op})
			}
		}
		slices.SortFunc(list.Disks, func(x, y diskView) int {
			return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Disk, y.Disk))
		})
		if len(list.Disks) == 0 {
			a.streams.Say("no disks; make one with: ebb disk create")
		}
		return a.output.Print(a.streams.Out, list, func(w io.Writer) error {
			rows := make([][]string, 0, len(list.Disks))
			for _, v := range list.Disks {
				rows = append(rows, v.row())
			}
			if len(rows) == 0 {
				return nil
			}
			return ui.Table(w, []string{"NAME", "DISK", "NODE", "FS", ">SIZE", ">BACKING", ">USED", ">USED%", "STATE"}, rows)
		})
	})
}
