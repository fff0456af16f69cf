package cmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type planOptions struct {
	policy string
	action string
	held   string
	limit  int
}

// planView is the data of ebb plan.
type planView struct {
	Run    control.FleetRun `json:"run"`
	WhatIf bool             `json:"whatIf,omitempty"` // --policy: nothing of it is done
	// All is how many decisions the filters let through, before the limit.
	All       int            `json:"all"`
	Decisions []decisionView `json:"decisions"`
	Missing   int            `json:"missing,omitempty"` // parts of the fleet not decided about (yet)
}

type decisionView struct {
	Name string `json:"name,omitempty"`
	plan.Decision
}

func (d decisionView) ref() string {
	if d.Name != "" {
		return d.Name
	}
	return string(d.Disk)
}

func (a *app) newPlan() *cobra.Command {
	var o planOptions
	c := &cobra.Command{
		Use:   "plan [DISK]",
		Short: "Show what the last run decided, and why",
		Long: `Show what the last run of Rightsize decided about every disk: the rule and mode
that hold for it, the size it should have, what holds that back, what it would
save, and the reason. With DISK all reasons, with their figures.

It reads what was decided then from Temporal; no node is asked. With --policy it
asks instead what would be decided by another policy: the nodes are measured now,
and nothing is started or proposed.`,
		Example: "  ebb plan\n  ebb plan data-1\n  ebb plan --action shrink --held Window\n  ebb plan --policy new.yaml -o json",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit.New(exit.Usage, "want one DISK at most, got %d arguments", len(args)).WithNext("%s --help", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runPlan(c.Context(), args, o) },
	}
	f := c.Flags()
	f.StringVar(&o.policy, "policy", "", "what would be decided by this policy; - is standard input")
	f.StringVar(&o.action, "action", "", "only where this is wanted: grow, append, retype, shrink or none")
	f.StringVar(&o.held, "held", "", "only what is held back by this (Mode, Window, Budget, ...), or any")
	f.IntVar(&o.limit, "limit", 100, "show so many decisions at most; 0: all")
	_ = c.RegisterFlagCompletionFunc("action", cobra.FixedCompletions([]string{"grow", "append", "retype", "shrink", "none"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o planOptions) check() error {
	switch plan.Action(o.action) {
	case "", plan.Grow, plan.Append, plan.Retype, plan.Shrink, plan.None:
	default:
		return exit.New(exit.Usage, "--action %q: want grow, append, retype, shrink or none", o.action)
	}
	if o.limit < 0 {
		return exit.New(exit.Usage, "--limit %d: want 0 (all) or more", o.limit)
	}
	return nil
}

func (a *app) runPlan(ctx context.Context, args []string, o planOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	var text string
	if o.policy != "" {
		var err error
		if text, _, err = a.checkedPolicy(ctx, o.policy, false); err != nil {
			return err
		}
	}
	return a.withClient(ctx, func(c *control.Client) error {
		var e control.Execution
		var err error
		if o.policy != "" {
			e, err = a.whatIf(ctx, c, text)
		} else {
			e, err = c.LastRightsize(ctx)
		}
		if err != nil {
			return err
		}
		d, err := c.Decided(ctx, e)
		if err != nil {
			return err
		}
		if len(args) == 1 {
			return a.printDecision(d, args[0])
		}
		return a.printPlan(d, o)
	})
}

// whatIf has Rightsize look at the fleet by another policy and leave it at that.
func (a *app) whatIf(ctx context.Context, c *control.Client, text string) (control.Execution, error) {
	in, err := c.RightsizeInput(ctx)
	if err != nil && exit.CodeOf(err) != exit.NotFound {
		return control.Execution{}, err
	}
	in.Policy, in.DryRun = text, true
	e, err := c.StartFleetRun(ctx, contract.RightsizeWorkflow, control.WhatIfPrefix, "What if? Asked by "+c.Who(), in)
	if err != nil {
		return e, err
	}
	var r contract.RightsizeResult
	err = a.watchRun(ctx, c, "what if", e, &r)
	if exit.CodeOf(err) == exit.Detached { // nobody waits for the answer
		_ = c.CancelRun(ctx, e)
		return e, ctx.Err()
	}
	if err == nil && r.Refusal != nil {
		err = exit.Refusal(r.Refusal)
	}
	for _, p := range r.Problems {
		a.streams.Say("problem: %s", ui.Clean(p))
	}
	return e, err
}

func (a *app) printPlan(decided control.Decided, o planOptions) error {
	out := planView{Run: decided.Run, WhatIf: o.policy != "", Decisions: []decisionView{}, Missing: decided.Missing}
	out.Run.Rightsize = nil // ebb schedule list shows it
	for _, d := range decided.Decisions {
		if o.action != "" && d.Wanted != plan.Action(o.action) || o.held != "" && !heldBy(d, o.held) {
			continue
		}
		out.Decisions = append(out.Decisions, decisionView{decided.Disks[d.Disk].Name, d})
	}
	slices.SortStableFunc(out.Decisions, func(x, y decisionView) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(y.SavingUSDMonth, x.SavingUSDMonth), cmp.Compare(x.ref(), y.ref()))
	})
	out.All = len(out.Decisions)
	if o.limit > 0 {
		out.Decisions = out.Decisions[:min(out.All, o.limit)]
	}
	err := a.output.Print(a.streams.Out, out, func(w io.Writer) error { return planTable(w, out) })
	a.planTalk(out)
	return err
}

func heldBy(d plan.Decision, why string) bool {
	return d.Why != plan.WhyNone && (strings.EqualFold(why, "any") || strings.EqualFold(string(d.Why), why))
}

// rank puts what is urgent first and what wants nothing last.
func rank(d decisionView) int {
	switch {
	case d.Urgent:
		return 0
	case d.Wanted == plan.Grow || d.Wanted == plan.Append:
		return 1
	case d.Wanted != plan.None:
		return 2
	case d.Why == plan.WhyFacts:
		return 3
	}
	return 4
}

func planTable(w io.Writer, v planView) error {
	if len(v.Decisions) == 0 {
		return nil
	}
	rows := make([][]string, 0, len(v.Decisions))
	for _, d := range v.Decisions {
		to, saving := "-", "-"
		if d.Wanted != plan.None {
			to = gib(d.GiB)
		}
		if d.SavingUSDMonth > 0 {
			saving = usd(d.SavingUSDMonth)
		}
		rows = append(rows, []string{d.ref(), d.Rule, string(d.Mode), gib(d.FromGiB), to, wanted(d.Decision), orDash(string(d.Why)), saving, d.Decision.Reason})
	}
	return ui.Table(w, []string{"DISK", "RULE", "MODE", ">FROM", ">TO", "WANTED", "HELD BY", ">SAVES/MONTH", "REASON"}, rows)
}

func wanted(d plan.Decision) string {
	s := string(d.Wanted)
	if d.Wanted == plan.None {
		s = "-"
	}
	if d.Urgent {
		s += ", urgent"
	}
	return s
}

// planTalk says which run it was and what of it is not shown.
func (a *app) planTalk(v planView) {
	which := "run of " + clock(v.Run.At)
	if v.WhatIf {
		which = "what would be decided by that policy; nothing was started"
	} else if v.Run.Ended == nil {
		which += ", which is still running"
	}
	a.streams.Say("%s: %s", which, count(v.All, "decision"))
	if n := v.All - len(v.Decisions); n > 0 {
		a.streams.Say("%d more are not shown: --limit 0", n)
	}
	if v.Missing > 0 {
		a.streams.Say("%s of the fleet not decided about (yet)", count(v.Missing, "part"))
	}
	if v.Run.Error != "" {
		a.streams.Say("the run itself: %s", ui.Clean(v.Run.Error))
	}
}

// printDecision prints all that was decided about one disk.
func (a *app) printDecision(decided control.Decided, ref string) error {
	disk, err := decided.Find(ref)
	if err != nil {
		return err
	}
	d := decided.Of(disk.ID)
	if d == nil {
		return exit.New(exit.NotFound, "the run %s has decided nothing about disk %s (yet)", decided.Run.WorkflowID, disk)
	}
	return a.output.Print(a.streams.Out, decisionView{disk.Name, *d}, func(w io.Writer) error {
		return decisionTable(w, disk, *d, decided.Run.At)
	})
}

func decisionTable(w io.Writer, disk control.Disk, d plan.Decision, at time.Time) error {
	what, once, full, saving, held := "nothing", "", "", "", string(d.Why)
	if d.Wanted != plan.None {
		what = fmt.Sprintf("%s from %d to %d GiB", wanted(d), d.FromGiB, d.GiB)
	}
	if d.Wanted == plan.Retype {
		what = "retype to " + plan.Volume{Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs}.String()
	}
	if d.CostUSD > 0 {
		once = usd(d.CostUSD) + " once"
	}
	if d.TimeToFull > 0 {
		full = d.TimeToFull.Round(time.Second).String() + " at the present rate"
	}
	if held != "" && !d.NotBefore.IsZero() {
		held += ", until " + clock(d.NotBefore)
	}
	if d.SavingUSDMonth != 0 {
		saving = usd(d.SavingUSDMonth) + " a month"
	}
	fields := []ui.Field{
		{Name: "disk", Value: disk.String()},
		{Name: "looked at", Value: clock(at)},
		{Name: "rule", Value: d.Rule},
		{Name: "mode", Value: string(d.Mode)},
		{Name: "wanted", Value: what},
		{Name: "held by", Value: held},
		{Name: "full in", Value: full},
		{Name: "saves", Value: saving},
		{Name: "costs", Value: once},
	}
	reasons := d.Reasons
	if len(reasons) == 0 {
		reasons = []string{d.Reason}
	}
	for _, r := range reasons {
		fields = append(fields, ui.Field{Name: "because", Value: r})
	}
	return ui.Fields(w, fields...)
}
