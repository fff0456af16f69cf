package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type headroomOptions struct {
	operateOptions
	howLong size.DurationFlag
	remove  bool
	bytes   int64
}

// headroomView is the data of ebb headroom.
type headroomView struct {
	Disk      contract.DiskID  `json:"disk"`
	Name      string           `json:"name,omitempty"`
	Bytes     int64            `json:"bytes"` // wanted free
	Until     *time.Time       `json:"until,omitempty"`
	Removed   bool             `json:"removed,omitempty"`
	Kept      bool             `json:"kept"`                // the schedule keeps it free and takes it back afterwards
	FreeBytes int64            `json:"freeBytes,omitempty"` // before
	FromGiB   int64            `json:"fromGiB,omitempty"`
	ToGiB     int64            `json:"toGiB,omitempty"` // of the growth; 0: none is needed
	Ceiling   bool             `json:"ceiling,omitempty"`
	Growth    *contract.Result `json:"growth,omitempty"`
	RunID     string           `json:"runId,omitempty"` // of the growth that was started
	DryRun    bool             `json:"dryRun,omitempty"`
}

func (a *app) newHeadroom() *cobra.Command {
	var o headroomOptions
	c := &cobra.Command{
		Use:   "headroom DISK SIZE --for TIME | DISK --remove",
		Short: "Make room on a disk for a while, for a restore or a migration",
		Long: `Have SIZE free on a disk for a while, beside what its policy keeps free: for a
restore, a migration, a large import. The disk grows now unless so much is free
already; until the time is over no run takes the room back, and growth keeps up
with what is written. Afterwards the policy decides as always, and shrinks the disk
when its time has come.

A disk has one such headroom: the next one replaces it, --remove ends it early.
Without a schedule (ebb schedule apply) the disk only grows, and nothing takes the
room back by itself. The room ends at the disk's own size: see ebb expand.`,
		Example: "  ebb headroom data-1 500GiB --for 6h\n  ebb headroom data-1 --remove",
		Args: func(c *cobra.Command, args []string) error {
			want := map[bool]int{false: 2, true: 1}[o.remove]
			if len(args) != want {
				return exit.New(exit.Usage, "want DISK SIZE, or DISK with --remove").WithNext("%s --help", c.CommandPath())
			}
			if o.remove {
				if o.howLong != 0 {
					return exit.New(exit.Usage, "--for and --remove exclude each other")
				}
				return nil
			}
			if o.howLong == 0 {
				return exit.New(exit.Usage, "want --for and how long, for example --for 6h")
			}
			var err error
			if o.bytes, err = size.Parse(args[1]); err != nil {
				return exit.New(exit.Usage, "%v", err)
			}
			if o.bytes <= 0 || o.bytes > contract.MaxDiskBytes {
				return exit.New(exit.Usage, "headroom %s: want more than nothing, and at most 64TiB", args[1])
			}
			return nil
		},
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runHeadroom(c.Context(), args[0], o) },
	}
	c.Flags().Var(&o.howLong, "for", "how long, for example 6h or 2d")
	c.Flags().BoolVar(&o.remove, "remove", false, "the room is not needed any more")
	o.bind(c)
	return c
}

func (a *app) runHeadroom(ctx context.Context, ref string, o headroomOptions) error {
	return a.withDisk(ctx, ref, func(c *control.Client, d control.Disk) error {
		out := headroomView{Disk: d.ID, Name: d.Name, Bytes: o.bytes, Removed: o.remove, DryRun: o.dryRun}
		if o.remove {
			return a.removeHeadroom(ctx, c, d, out)
		}
		// 1. What there is.
		reports, err := c.Inspect(ctx, contract.InspectInput{Disk: d.ID})
		if err != nil {
			return err
		}
		if len(reports) == 0 || reports[0].Measurement == nil {
			why := "its node did not answer"
			if len(reports) > 0 && reports[0].Unmeasured != "" {
				why = reports[0].Unmeasured
			}
			return exit.New(exit.Failed, "disk %s was not measured: %s; nothing was changed", d, why).WithNext("ebb disk show %s", d.Ref())
		}
		d.Node = reports[0].Facts.Node()
		out.grow(*reports[0].Measurement, a.policyHeadroom(ctx, c, reports[0]))

		// 2. Keep it free.
		until := time.Now().Add(time.Duration(o.howLong)).UTC().Truncate(time.Second)
		out.Until = &until
		switch changed, err := a.keepFree(ctx, c, o.dryRun, d.ID, &contract.Extra{Disk: d.ID, Bytes: o.bytes, Until: until}); {
		case exit.CodeOf(err) == exit.NotFound:
			a.streams.Say("note: there is no schedule: nothing keeps the room free or takes it back by itself (ebb schedule apply)")
		case err != nil:
			return err
		default:
			out.Kept = changed
		}
		if out.Ceiling {
			a.streams.Say("note: the disk itself has no more than %s: to hold more, ebb expand %s", size.Bytes(reports[0].Measurement.SizeBytes), d.Ref())
		}

		// 3. Make it.
		if out.ToGiB == 0 || o.dryRun {
			return a.printHeadroom(out)
		}
		return a.growFor(ctx, c, d, out, o)
	})
}

// policyHeadroom is what the schedule's policy keeps free on a disk, 0 when that is
// not known. The next run wants it beside the room: one growth makes both, since
// EBS allows few.
func (a *app) policyHeadroom(ctx context.Context, c *control.Client, r contract.DiskReport) int64 {
	in, err := c.RightsizeInput(ctx)
	if err != nil {
		return 0
	}
	p := &policy.Policy{}
	if strings.TrimSpace(in.Policy) != "" {
		if p, err = policy.Load([]byte(in.Policy)); err != nil {
			return 0
		}
	}
	return keptFree(time.Now(), p, plan.FactsOf(r), func() (control.Decided, error) {
		e, err := c.LastRightsize(ctx)
		if err != nil {
			return control.Decided{}, err
		}
		return c.Decided(ctx, e)
	})
}

// keptFree is what a policy keeps free on a disk. In which cluster the disks are only
// the worker knows, and those of the last run have it from there.
func keptFree(now time.Time, p *policy.Policy, f plan.Facts, last func() (control.Decided, error)) int64 {
	if p.ByCluster() {
		if d, err := last(); err == nil {
			if i := slices.IndexFunc(d.Facts, func(o plan.Facts) bool { return o.Cluster != "" }); i >= 0 {
				f.Cluster = d.Facts[i].Cluster
			}
		}
	}
	rule, _ := p.For(f)
	return rule.Headroom(now, f.UsedBytes, f.FillRate)
}

// grow says how large the backing must be for the room, and for what is kept free
// anyway.
func (v *headroomView) grow(m contract.Measurement, beside int64) {
	v.FreeBytes = m.PoolBytes - m.PoolUsedBytes
	if v.FreeBytes >= v.Bytes {
		return
	}
	var backing int64
	for _, b := range m.Members {
		backing += b.Bytes
	}
	if backing == 0 {
		backing = m.PoolBytes + m.OverheadBytes
	}
	u := plan.Usage{SizeBytes: m.SizeBytes, BackingBytes: backing, OverheadBytes: m.OverheadBytes}
	v.FromGiB, v.Ceiling = plan.CeilGiB(backing), m.PoolUsedBytes+v.Bytes > m.SizeBytes
	to := plan.HoldingGiB(u, m.PoolUsedBytes+v.Bytes+beside)
	if to = min(to, plan.CeilingGiB(u)); to > v.FromGiB {
		v.ToGiB = to
	}
}

// keepFree puts an extra into the schedule of Rightsize, or with nil takes the
// disk's away. Those that are over go as well.
func (a *app) keepFree(ctx context.Context, c *control.Client, dryRun bool, d contract.DiskID, x *contract.Extra) (bool, error) {
	now := time.Now()
	had := false
	_, err := c.EditRightsize(ctx, control.EditOptions{DryRun: dryRun}, func(t *control.Timed[contract.RightsizeInput]) error {
		t.Input.Extras = slices.DeleteFunc(t.Input.Extras, func(e contract.Extra) bool {
			had = had || e.Disk == d
			return e.Disk == d || e.Until.Before(now)
		})
		if x != nil {
			t.Input.Extras = append(t.Input.Extras, *x)
		}
		return invalid(t.Input.Validate())
	})
	return had || x != nil, err
}

func (a *app) removeHeadroom(ctx context.Context, c *control.Client, d control.Disk, out headroomView) error {
	had, err := a.keepFree(ctx, c, out.DryRun, d.ID, nil)
	if err != nil {
		return err
	}
	if !had {
		return exit.New(exit.NotFound, "disk %s has no headroom to remove", d)
	}
	return a.printHeadroom(out)
}

// growFor grows the disk and shows it, as ebb grow does.
func (a *app) growFor(ctx context.Context, c *control.Client, d control.Disk, out headroomView, o headroomOptions) error {
	run, err := c.Start(ctx, control.Operation{
		Workflow: contract.GrowWorkflow, Disk: d, Node: d.Node, Summary: fmt.Sprintf("grow %s to %d GiB: headroom of %s", d, out.ToGiB, size.Bytes(out.Bytes)),
		Input: contract.GrowInput{Disk: d.ID, ToGiB: out.ToGiB, Reason: "headroom of " + size.Bytes(out.Bytes)},
	})
	if err != nil {
		if out.Kept {
			a.streams.Say("note: the room is kept free from the next run on all the same")
		}
		return err
	}
	out.RunID = run.RunID()
	if !o.detach {
		w := ui.NewWatcher(a.streams.Err)
		result, err := c.Follow(ctx, run, a.refresh, func(s control.Snapshot) { w.Show(state(run, s)) }, nil)
		w.Close()
		if errors.Is(err, context.Canceled) {
			return detached(run)
		}
		if err != nil {
			return a.finish(run, result, err)
		}
		out.Growth = result
	}
	return a.printHeadroom(out)
}

func (a *app) printHeadroom(v headroomView) error {
	return a.output.Print(a.streams.Out, v, func(w io.Writer) error {
		disk := control.Disk{ID: v.Disk, Name: v.Name}
		if v.Removed {
			word := "is removed"
			if v.DryRun {
				word = "would be removed"
			}
			_, err := fmt.Fprintf(w, "headroom of disk %s %s\n", ui.Clean(disk.String()), word)
			return err
		}
		growth := "none: there is room already"
		switch {
		case v.Growth != nil:
			growth = fmt.Sprintf("%s: %d GiB -> %d GiB", v.Growth.Outcome, v.FromGiB, v.Growth.AfterGiB)
		case v.RunID != "":
			growth = fmt.Sprintf("to %d GiB, begun (run %s)", v.ToGiB, v.RunID)
		case v.ToGiB > 0:
			growth = fmt.Sprintf("from %d to %d GiB", v.FromGiB, v.ToGiB)
		case v.Ceiling:
			growth = "none: the backing holds the whole disk"
		}
		kept := "no, there is no schedule"
		if v.Kept {
			kept = "until " + clock(*v.Until)
		}
		return ui.Fields(w, ui.Field{Name: "disk", Value: disk.String()}, ui.Field{Name: "wanted free", Value: size.Bytes(v.Bytes)},
			ui.Field{Name: "was free", Value: size.Bytes(v.FreeBytes)}, ui.Field{Name: "growth", Value: growth}, ui.Field{Name: "kept free", Value: kept})
	})
}
