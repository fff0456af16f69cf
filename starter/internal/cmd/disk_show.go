package cmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

func (a *app) newDiskShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show DISK",
		Short:             "Show a disk, its volumes and what runs on it",
		Example:           "  ebb disk show data-1\n  ebb disk show d-0123 -o yaml",
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runDiskShow(c.Context(), args[0]) },
	}
}

func (a *app) runDiskShow(ctx context.Context, ref string) error {
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		var op *control.Running
		switch r, err := c.Running(ctx, d); {
		case err == nil:
			op = &r
		case exit.CodeOf(err) != exit.NotFound:
			return err
		}
		reports, err := c.Inspect(ctx, contract.InspectInput{Disk: d.ID})
		beingMade := op != nil && exit.CodeOf(err) == exit.NotFound
		if err != nil && !beingMade {
			return err
		}
		view := diskView{Disk: d.ID, Name: d.Name, Node: d.Node, Volumes: []contract.VolumeFacts{}, Operation: op}
		if len(reports) > 0 {
			view = newDiskView(reports[0], op)
		}
		return a.output.Print(a.streams.Out, view, func(w io.Writer) error { return showTable(w, view) })
	})
}

func showTable(w io.Writer, v diskView) error {
	backing := ""
	if g := v.backingGiB(); g > 0 {
		backing = fmt.Sprintf("%d GiB", g)
	}
	fields := []ui.Field{
		{Name: "disk", Value: string(v.Disk)},
		{Name: "name", Value: v.Name},
		{Name: "state", Value: v.state()},
		{Name: "node", Value: v.Node},
	}
	if v.Operation != nil {
		fields = append(fields, ui.Field{Name: "running since", Value: v.Operation.Since.Local().Format(time.DateTime)},
			ui.Field{Name: "started by", Value: v.Operation.By})
	}
	if m := v.Measurement; m != nil {
		fields = append(fields, measurementFields(*m, backing)...)
	} else {
		fields = append(fields, ui.Field{Name: "backing", Value: backing}, ui.Field{Name: "not measured", Value: v.Unmeasured})
	}
	if err := ui.Fields(w, fields...); err != nil || len(v.Volumes) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	rows := make([][]string, 0, len(v.Volumes))
	for _, vol := range v.Volumes {
		state := vol.State
		if vol.AttachState != "" {
			state += ", " + vol.AttachState
		}
		rows = append(rows, []string{
			vol.ID, string(vol.Role), fmt.Sprint(vol.Generation), fmt.Sprintf("%d GiB", vol.SizeGiB), vol.Type,
			number(vol.IOPS), number(vol.ThroughputMiBs), vol.Zone, orDash(vol.Node), state,
		})
	}
	return ui.Table(w, []string{"VOLUME", "ROLE", ">GEN", ">SIZE", "TYPE", ">IOPS", ">MIB/S", "ZONE", "NODE", "STATE"}, rows)
}

func measurementFields(m contract.Measurement, backing string) []ui.Field {
	fields := []ui.Field{
		{Name: "device", Value: m.Device},
		{Name: "size", Value: size.Bytes(m.SizeBytes)},
		{Name: "backing", Value: backing},
		{Name: "pool", Value: usageWords(m.PoolUsedBytes, m.PoolBytes)},
		{Name: "pool metadata", Value: usageWords(m.MetaUsedBytes, m.MetaBytes)},
		{Name: "filesystem", Value: string(m.Filesystem)},
		{Name: "mounted at", Value: m.MountPath},
		{Name: "files use", Value: usageWords(m.FilesystemUsedBytes, m.FilesystemBytes)},
		{Name: "generation", Value: fmt.Sprint(m.Generation)},
	}
	if m.FillRate > 0 {
		fields = append(fields, ui.Field{Name: "filling at", Value: size.Rate(m.FillRate / (1 << 20))})
	}
	if mv := m.Move; mv != nil {
		sync := ""
		if mv.CopyBytes > 0 && mv.CopiedBytes > 0 {
			sync = fmt.Sprintf(", %.0f%% copied", 100*float64(mv.CopiedBytes)/float64(mv.CopyBytes))
		}
		fields = append(fields, ui.Field{Name: "move", Value: fmt.Sprintf("%s to generation %d: %s%s", mv.Move, mv.Generation, mv.Phase, sync)},
			ui.Field{Name: "move failed", Value: mv.Failure})
	}
	return append(fields, ui.Field{Name: "measured", Value: m.At.Local().Format(time.DateTime)})
}

func usageWords(used, all int64) string {
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("%s of %s (%.0f%%)", size.Bytes(used), size.Bytes(all), 100*float64(used)/float64(all))
}

func number(n int32) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
