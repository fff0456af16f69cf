package cmd

import "github.com/spf13/cobra"

func (a *app) newDisk() *cobra.Command {
	c := &cobra.Command{
		Use:   "disk",
		Short: "Create, list, show, move and delete disks",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.newDiskCreate(), a.newDiskList(), a.newDiskShow(), a.newDiskHistory(), a.newDiskMove(), a.newDiskDelete())
	return c
}
