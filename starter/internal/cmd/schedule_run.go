package cmd

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// scheduleArg is the argument rule of commands on schedules.
func scheduleArg(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return exit.New(exit.Usage, "want one schedule at most, got %d arguments", len(args)).WithNext("%s --help", c.CommandPath())
	}
	return nil
}

func scheduleNames(more ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(append([]cobra.Completion{"rightsize", "reap"}, more...), cobra.ShellCompDirectiveNoFileComp)
}

type schedulePauseOptions struct {
	reason string
	dryRun bool
	resume bool
}

// pausedSchedules is the data of schedule pause and resume.
type pausedSchedules struct {
	Schedules []string `json:"schedules"`
	Paused    bool     `json:"paused"`
	Reason    string   `json:"reason,omitempty"`
	DryRun    bool     `json:"dryRun,omitempty"`
}

func (a *app) newSchedulePause() *cobra.Command {
	c := a.pausing(false)
	c.Use, c.Short = "pause [rightsize|reap|all]", "Let no further run begin"
	c.Long = `Let no further run of a schedule begin (both, unless one is named), until ebb
schedule resume. What runs goes on, and disks still grow when they fill. To have
Ebb look on and change nothing, ebb mode observe is better: it keeps planning.`
	c.Example = "  ebb schedule pause --reason 'EBS has an incident'\n  ebb schedule pause reap"
	return c
}

func (a *app) newScheduleResume() *cobra.Command {
	c := a.pausing(true)
	c.Use, c.Short = "resume [rightsize|reap|all]", "Let runs begin again"
	c.Long = "Let runs of a paused schedule begin again (both, unless one is named)."
	c.Example = "  ebb schedule resume"
	return c
}

func (a *app) pausing(resume bool) *cobra.Command {
	o := schedulePauseOptions{resume: resume}
	c := &cobra.Command{
		Args:              scheduleArg,
		ValidArgsFunction: scheduleNames("all"),
		RunE: func(c *cobra.Command, args []string) error {
			return a.runSchedulePause(c.Context(), strings.Join(args, ""), o)
		},
	}
	c.Flags().StringVar(&o.reason, "reason", "", "a word for the record")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show which schedules it would be; change nothing")
	return c
}

func (a *app) runSchedulePause(ctx context.Context, name string, o schedulePauseOptions) error {
	ids, err := control.ScheduleIDs(name)
	if err != nil {
		return err
	}
	return a.withClient(ctx, func(c *control.Client) error {
		for _, id := range ids { // all of them or none
			if _, err := c.DescribeSchedule(ctx, id); err != nil {
				return err
			}
		}
		out := pausedSchedules{Paused: !o.resume, Reason: o.reason, DryRun: o.dryRun}
		for _, id := range ids {
			if !o.dryRun {
				set := c.PauseSchedule
				if o.resume {
					set = c.ResumeSchedule
				}
				if err := set(ctx, id, o.reason); err != nil {
					return err
				}
			}
			out.Schedules = append(out.Schedules, id)
		}
		return a.output.Print(a.streams.Out, out, func(w io.Writer) error {
			word := map[bool]string{false: "paused", true: "active"}[o.resume]
			if o.dryRun {
				word = "would be " + word
			}
			for _, id := range out.Schedules {
				if _, err := fmt.Fprintf(w, "%s: %s\n", id, word); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

type scheduleRunOptions struct {
	watch  bool
	dryRun bool
}

// startedRun is the data of schedule run without --watch.
type startedRun struct {
	Schedule string `json:"schedule"`
	control.Execution
	DryRun bool `json:"dryRun,omitempty"`
}

func (a *app) newScheduleRun() *cobra.Command {
	var o scheduleRunOptions
	c := &cobra.Command{
		Use:   "run [rightsize|reap]",
		Short: "Have a run now",
		Long: `Start a run of a schedule now (rightsize, unless reap is named), paused or not.
With --watch follow it to its end and print what it found and did; Ctrl-C leaves
it running. The exit code is 6 when a run is under way already: it would be skipped.`,
		Example:           "  ebb schedule run --watch\n  ebb schedule run reap",
		Args:              scheduleArg,
		ValidArgsFunction: scheduleNames(),
		RunE: func(c *cobra.Command, args []string) error {
			name := "rightsize"
			if len(args) == 1 {
				name = args[0]
			}
			return a.runScheduleRun(c.Context(), name, o)
		},
	}
	c.Flags().BoolVar(&o.watch, "watch", false, "follow it to its end and print its result")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "check that a run could begin; start none (what one would decide: ebb plan --policy)")
	return c
}

func (a *app) runScheduleRun(ctx context.Context, name string, o scheduleRunOptions) error {
	ids, err := control.ScheduleIDs(name)
	if err != nil {
		return err
	}
	if len(ids) != 1 {
		return exit.New(exit.Usage, "schedule %q: want rightsize or reap", name)
	}
	return a.withClient(ctx, func(c *control.Client) error {
		out := startedRun{Schedule: ids[0], DryRun: o.dryRun}
		if o.dryRun {
			s, err := c.DescribeSchedule(ctx, ids[0])
			if err == nil && len(s.Running) > 0 {
				err = exit.New(exit.Busy, "%s runs already (%s)", name, s.Running[0].WorkflowID)
			}
			if err != nil {
				return err
			}
		} else if out.Execution, err = c.TriggerSchedule(ctx, ids[0]); err != nil {
			return err
		}
		if o.watch && !o.dryRun {
			return a.watchedRun(ctx, c, name, out.Execution)
		}
		err := a.output.Print(a.streams.Out, out, func(w io.Writer) error {
			if o.dryRun {
				_, err := fmt.Fprintf(w, "a run of %s would begin\n", out.Schedule)
				return err
			}
			return ui.Fields(w, ui.Field{Name: "schedule", Value: out.Schedule}, ui.Field{Name: "workflow", Value: out.WorkflowID}, ui.Field{Name: "run", Value: out.RunID})
		})
		if !o.dryRun {
			a.streams.Say("see its end: ebb schedule list")
		}
		return err
	})
}

// watchedRun follows a run and prints its result.
func (a *app) watchedRun(ctx context.Context, c *control.Client, name string, e control.Execution) error {
	if name == "reap" {
		var r contract.ReapResult
		if err := a.watchRun(ctx, c, name, e, &r); err != nil {
			return err
		}
		return a.printReap(ctx, c, r)
	}
	var r contract.RightsizeResult
	if err := a.watchRun(ctx, c, name, e, &r); err != nil {
		return err
	}
	return a.printRightsize(ctx, c, r)
}

func (a *app) printRightsize(ctx context.Context, c *control.Client, r contract.RightsizeResult) error {
	tells := len(r.Started)+len(r.Proposed)+len(r.Held) > 0
	return a.printRun(ctx, c, r, r.Refusal, r.Problems, tells, func(w io.Writer, names named) error { return rightsizeTable(w, r, names) })
}

// printRun prints a run's result, with the disks' names where it tells of disks; a
// refused run is an error.
func (a *app) printRun(ctx context.Context, c *control.Client, r any, refusal *contract.Refusal, problems []string, disks bool, table func(io.Writer, named) error) error {
	if refusal == nil || a.output != ui.TableFormat {
		if err := a.output.Print(a.streams.Out, r, func(w io.Writer) error {
			var names named
			if disks {
				names = diskNames(ctx, c)
			}
			return table(w, names)
		}); err != nil {
			return err
		}
	}
	if refusal != nil {
		return exit.Refusal(refusal)
	}
	for _, p := range problems {
		a.streams.Say("problem: %s", ui.Clean(p))
	}
	return nil
}

func rightsizeTable(w io.Writer, r contract.RightsizeResult, names named) error {
	t := r.Totals
	saving := ""
	if t.SavingUSDMonth > 0 {
		saving = usd(t.SavingUSDMonth) + " a month, if all of it were done"
	}
	fields := []ui.Field{
		{Name: "disks", Value: fmt.Sprintf("%d, %d measured", t.Disks, t.Measured)},
		{Name: "modes", Value: modeCounts(t.Modes)},
		{Name: "used", Value: usedLine(t)},
		{Name: "costs", Value: usd(t.USDMonth) + " a month"},
		{Name: "wanted", Value: counts(t.Wanted)},
		{Name: "held back", Value: counts(t.Held)},
		{Name: "would save", Value: saving},
	}
	if err := ui.Fields(w, fields...); err != nil {
		return err
	}
	var rows [][]string
	for _, group := range []struct {
		what string
		all  []contract.Begun
	}{{"started", r.Started}, {"proposed", r.Proposed}, {"held", r.Held}} {
		for _, b := range group.all {
			what := group.what
			if what == "started" && b.Outcome != "" {
				what = b.Outcome
			}
			why := b.Reason
			switch {
			case group.what == "held":
				why = b.Outcome
			case group.what == "proposed" && b.SavingUSDMonth > 0: // its reason is the mode
				why = "saves " + usd(b.SavingUSDMonth) + " a month: ebb approve " + names.ref(b.Disk)
			case group.what == "proposed":
				why = "ebb approve " + names.ref(b.Disk)
			}
			rows = append(rows, []string{names.ref(b.Disk), b.Operation, gib(b.FromGiB), gib(b.ToGiB), what, why})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return ui.Table(w, []string{"DISK", "WHAT", ">FROM", ">TO", "STATE", "WHY"}, rows)
}

func gib(n int64) string { return fmt.Sprintf("%d GiB", n) }

// counts writes counts by name, the names in order.
func counts(m map[string]int) string {
	names := make([]string, 0, len(m))
	for k, n := range m {
		if n > 0 {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for i, k := range names {
		names[i] = fmt.Sprintf("%d %s", m[k], k)
	}
	return strings.Join(names, ", ")
}

// modeCounts writes how many disks are in which mode.
func modeCounts(m map[contract.Mode]int) string {
	var out []string
	for _, k := range []contract.Mode{contract.Observe, contract.Recommend, contract.Enforce} {
		if m[k] > 0 {
			out = append(out, fmt.Sprintf("%d %s", m[k], k))
		}
	}
	return strings.Join(out, ", ")
}
