package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

func (a *app) newSchedule() *cobra.Command {
	c := &cobra.Command{
		Use:   "schedule",
		Short: "Let Ebb look after the disks by itself",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.newScheduleApply(), a.newScheduleList(), a.newSchedulePause(), a.newScheduleResume(), a.newScheduleRun())
	return c
}

// lastRuns is how many past runs of a schedule are shown.
const lastRuns = 3

// scheduleView is a schedule with its last runs.
type scheduleView struct {
	control.Schedule
	Runs []runView `json:"runs"` // the latest first
}

// runView is a run with a line about it.
type runView struct {
	control.FleetRun
	Summary string `json:"summary"`
}

// scheduleList is the data of schedule list.
type scheduleList struct {
	Schedules []scheduleView `json:"schedules"`
}

func (a *app) newScheduleList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Show the schedules, their last runs and the next",
		Long: `Show both schedules: how often they run, whether they are paused and why, what
their last runs found and did, and when the next one begins.`,
		Example: "  ebb schedule list\n  ebb schedule list -o json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.runScheduleList(c.Context()) },
	}
}

func (a *app) runScheduleList(ctx context.Context) error {
	return a.withClient(ctx, func(c *control.Client) error {
		ids, err := control.ScheduleIDs("all")
		if err != nil {
			return err
		}
		list := scheduleList{Schedules: []scheduleView{}}
		var missing error
		for _, id := range ids {
			s, err := c.DescribeSchedule(ctx, id)
			if exit.CodeOf(err) == exit.NotFound {
				missing = cmp.Or(missing, err)
				continue
			}
			if err != nil {
				return err
			}
			v := scheduleView{Schedule: s, Runs: []runView{}}
			for _, e := range slices.Backward(s.Recent[max(0, len(s.Recent)-lastRuns):]) {
				r, err := c.FleetRun(ctx, e)
				if err != nil {
					r = control.FleetRun{Execution: e, Status: "unknown", Error: "Temporal does not keep it any more"}
				}
				v.Runs = append(v.Runs, runView{r, summary(r)})
			}
			list.Schedules = append(list.Schedules, v)
		}
		if len(list.Schedules) == 0 && missing != nil {
			return missing
		}
		return a.output.Print(a.streams.Out, list, func(w io.Writer) error { return scheduleTable(w, list) })
	})
}

func scheduleTable(w io.Writer, list scheduleList) error {
	var rows, runs [][]string
	for _, s := range list.Schedules {
		name, _ := control.ScheduleName(s.ID)
		state, next := "active", "-"
		if len(s.Next) > 0 {
			next = clock(s.Next[0])
		}
		if s.Paused {
			state, next = "paused", "-"
		}
		rows = append(rows, []string{name, state, interval(s.Every), next, orDash(s.Note)})
		for _, r := range s.Runs {
			runs = append(runs, []string{name, clock(r.At), r.Status, r.Summary})
		}
	}
	if err := ui.Table(w, []string{"SCHEDULE", "STATE", "EVERY", "NEXT", "NOTE"}, rows); err != nil {
		return err
	}
	if len(runs) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return ui.Table(w, []string{"RUN OF", "BEGAN", "STATUS", "WHAT IT FOUND"}, runs)
}

// clock is a time for people.
func clock(t time.Time) string { return t.Local().Format(time.DateTime) }

// interval is how often a schedule begins a run.
func interval(every time.Duration) string {
	if every == 0 {
		return "as set by hand"
	}
	return duration(every)
}

// duration writes a time without the zeros at its end: 15m, 6h.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// summary is what a run found and did, in a line.
func summary(r control.FleetRun) string {
	switch {
	case r.Error != "":
		return r.Error
	case r.Rightsize != nil && r.Rightsize.Refusal != nil:
		return "refused: " + r.Rightsize.Refusal.Error()
	case r.Reap != nil && r.Reap.Refusal != nil:
		return "refused: " + r.Reap.Refusal.Error()
	case r.Rightsize != nil:
		return rightsizeLine(*r.Rightsize)
	case r.Reap != nil:
		return reapLine(*r.Reap)
	}
	return ""
}

func rightsizeLine(r contract.RightsizeResult) string {
	t := r.Totals
	parts := []string{count(t.Disks, "disk"), usedLine(t) + " used"}
	parts = append(parts, fmt.Sprintf("%d started", len(r.Started)), fmt.Sprintf("%d proposed", len(r.Proposed)), fmt.Sprintf("%d held", heldCount(r)))
	if t.SavingUSDMonth > 0 {
		parts = append(parts, "would save "+usd(t.SavingUSDMonth)+"/month")
	}
	if t.Unmeasured > 0 {
		parts = append(parts, fmt.Sprintf("%d not measured", t.Unmeasured))
	}
	if len(r.Problems) > 0 {
		parts = append(parts, count(len(r.Problems), "problem"))
	}
	return strings.Join(parts, ", ")
}

// heldCount is how many wanted operations were neither started nor proposed.
func heldCount(r contract.RightsizeResult) int {
	return max(0, sum(r.Totals.Held)-len(r.Proposed)) + len(r.Held)
}

func usedLine(t contract.Totals) string {
	if t.MeasuredBytes == 0 {
		return "none measured"
	}
	return fmt.Sprintf("%s of %s (%.0f%%)", size.Bytes(t.UsedBytes), size.Bytes(t.MeasuredBytes), 100*float64(t.UsedBytes)/float64(t.MeasuredBytes))
}

func reapLine(r contract.ReapResult) string {
	s := fmt.Sprintf("%d found, %d deleted, %d GiB freed", r.Found, r.Deleted, r.FreedGiB)
	if len(r.Problems) > 0 {
		s += ", " + count(len(r.Problems), "problem")
	}
	return s
}

func sum[K comparable](m map[K]int) int {
	n := 0
	for _, v := range m {
		n += v
	}
	return n
}

func usd(v float64) string { return fmt.Sprintf("$%.2f", v) }

// watchRun shows a run until it ends and reads its result. Ctrl-C leaves it.
func (a *app) watchRun(ctx context.Context, c *control.Client, title string, e control.Execution, out any) error {
	w := ui.NewWatcher(a.streams.Err)
	err := c.FollowRun(ctx, e, a.refresh, func(s control.RunState) {
		st := ui.State{Title: title, Phase: s.Phase, Note: strings.Join(s.Facts, "; ")}
		if s.Trouble != "" {
			st.Note = s.Trouble
		}
		if st.Phase == "" {
			st.Phase = "begins"
		}
		st.Phase = strings.TrimPrefix(st.Phase, "Rightsize: ")
		w.Show(st)
	}, out)
	w.Close()
	if errors.Is(err, context.Canceled) {
		see := "ebb schedule list"
		if strings.Contains(e.WorkflowID, "/") { // asked for by hand
			see = "temporal workflow result --workflow-id " + e.WorkflowID
		}
		return exit.New(exit.Detached, "Detached. The run %s goes on.\n  see its end: %s", e.WorkflowID, see)
	}
	return err
}
