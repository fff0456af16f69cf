package cmd

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/size"
)

type shrinkOptions struct {
	operateOptions
	volume     volumeOptions
	to         size.GiBFlag
	verify     string
	throttle   size.RateFlag
	noSnapshot bool
	retention  size.DurationFlag
	grace      size.DurationFlag
	backupWait size.DurationFlag
}

func (a *app) newShrink() *cobra.Command {
	var o shrinkOptions
	c := &cobra.Command{
		Use:   "shrink DISK",
		Short: "Move a disk to a smaller backing, live",
		Long: `Move a disk to a smaller backing while its application keeps running: snapshot,
new volume, copy of what is used, comparison of both, swap. The old volume is
kept for the grace period and then deleted. The disk's own size does not change.

Until the swap the old volume is complete: ebb cancel undoes everything at any
moment. With --type, --iops, --throughput or --kms-key the new volume differs in
more than its size; what is not given is never less than before.`,
		Example: `  ebb shrink data-1 --dry-run
  ebb shrink data-1 --to 8GiB --throttle 200MiB/s
  ebb shrink data-1 --detach -o json`,
		Args:              diskArg,
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runShrink(c.Context(), args[0], o) },
	}
	f := c.Flags()
	f.Var(&o.to, "to", "new size of the backing, in whole GiB (default: what is used, plus headroom)")
	f.StringVar(&o.verify, "verify", contract.VerifyFull, "full: compare every used byte before the swap; none")
	f.Var(&o.throttle, "throttle", "copy no faster than this, such as 200MiB/s (default: no limit)")
	f.BoolVar(&o.noSnapshot, "no-snapshot", false, "make no snapshot before the move")
	f.Var(&o.retention, "snapshot-retention", "how long ebb reap leaves the snapshot, such as 30d (default 7d)")
	f.Var(&o.grace, "grace", "how long to keep the old volume, such as 7d (default 24h)")
	f.Var(&o.backupWait, "backup-timeout", "how long to wait for a running backup to end (default: the worker's)")
	o.volume.bind(c)
	o.bind(c)
	_ = c.RegisterFlagCompletionFunc("verify", cobra.FixedCompletions([]string{"full", "none"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) runShrink(ctx context.Context, ref string, o shrinkOptions) error {
	spec, err := o.volume.spec()
	if err != nil {
		return err
	}
	in := contract.ShrinkInput{
		Disk: "d-00000000000000000", ToGiB: int64(o.to), Volume: spec, Verify: o.verify, ThrottleMiBs: int64(o.throttle),
		SkipSnapshot: o.noSnapshot, Retention: time.Duration(o.retention), GracePeriod: time.Duration(o.grace), BackupTimeout: time.Duration(o.backupWait), DryRun: o.dryRun,
	}
	if err := invalid(in.Validate()); err != nil {
		return err
	}
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		in.Disk = d.ID
		summary := "shrink " + d.String()
		if o.to > 0 {
			summary += " to " + o.to.String()
		}
		return a.operate(ctx, c, control.Operation{
			Workflow: contract.ShrinkWorkflow, Disk: d, Node: d.Node, Summary: summary, Input: in,
		}, o.operateOptions)
	})
}
