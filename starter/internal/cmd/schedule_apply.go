package cmd

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// Defaults of a schedule that is created.
const (
	defaultEvery     = 15 * time.Minute
	defaultReapEvery = 6 * time.Hour
	mostJitter       = 2 * time.Minute
	// leastEvery keeps a slip of the hand from looking at the fleet all the time.
	leastEvery = time.Minute
)

type scheduleApplyOptions struct {
	policy       string
	noFleetCheck bool
	every, reap  size.DurationFlag
	jitter       size.DurationFlag
	feed, expiry size.DurationFlag
	maxStarts    int
	reapDelete   bool
	dryRun       bool
	given        func(string) bool // a flag was on the command line
}

func (a *app) newScheduleApply() *cobra.Command {
	var o scheduleApplyOptions
	c := &cobra.Command{
		Use:   "apply",
		Short: "Create the schedules, or change them in place",
		Long: `Create the two Temporal Schedules that look after the disks, or change what is
given and keep the rest: the policy, the switches of ebb mode, the headroom of
ebb headroom, and whether a schedule is paused.

Rightsize looks at every disk, plans by the policy, and by each disk's mode records
(observe), asks (recommend) or acts (enforce). Without --policy the first apply uses
the built-in settings, which only observe. Reap finds volumes and snapshots that
nothing needs; it only reports unless --reap-delete is given.

The policy is checked as by ebb policy lint --fleet. When something is wrong with
it, it is refused with line and field, and the schedules stay as they are: the
fleet keeps its last good policy.

A run that would begin while the one before is running is skipped. One that was
missed by more than 5 minutes is left out.`,
		Example: "  ebb schedule apply\n  ebb schedule apply --policy policy.yaml --every 30m\n  ebb schedule apply --reap-delete --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.given = c.Flags().Changed
			return a.runScheduleApply(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.policy, "policy", "", "the policy's file; - is standard input (default: the one before)")
	f.BoolVar(&o.noFleetCheck, "no-fleet-check", false, "do not hold the policy against the disks there are")
	f.Var(&o.every, "every", "how often to look at the disks (default: as before, else 15m)")
	f.Var(&o.reap, "reap-every", "how often to look for what nothing needs (default: as before, else 6h)")
	f.Var(&o.jitter, "jitter", "begin at most so much later, by chance (default: a tenth of the interval, at most 2m)")
	f.BoolVar(&o.reapDelete, "reap-delete", false, "let Reap delete; --reap-delete=false: only report")
	f.Var(&o.feed, "feed", "how long a run goes on starting operations as budgets become free (default: as before, else 10m)")
	f.IntVar(&o.maxStarts, "max-starts", 0, "operations and proposals one run begins at most (default: as before, else 500)")
	f.Var(&o.expiry, "proposal-expiry", "how long an approval is waited for (default: as before, else 7d)")
	f.BoolVar(&o.dryRun, "dry-run", false, "check, and show what would change; change nothing")
	return c
}

// applied is the data of schedule apply.
type applied struct {
	Schedules []appliedSchedule `json:"schedules"`
	Notes     []policy.Problem  `json:"notes,omitempty"` // on the policy
	DryRun    bool              `json:"dryRun,omitempty"`
}

type appliedSchedule struct {
	ID      string        `json:"id"`
	Outcome string        `json:"outcome"` // created, updated or unchanged
	Every   time.Duration `json:"everyNanos"`
	Jitter  time.Duration `json:"jitterNanos"`
	Changes []string      `json:"changes"`
	Next    *time.Time    `json:"next,omitempty"`
}

func (a *app) runScheduleApply(ctx context.Context, o scheduleApplyOptions) error {
	for _, d := range []size.DurationFlag{o.every, o.reap} {
		if d != 0 && time.Duration(d) < leastEvery {
			return exit.New(exit.Usage, "an interval of %s is too short; the shortest is %s", time.Duration(d), duration(leastEvery))
		}
	}
	out := applied{Schedules: []appliedSchedule{}, DryRun: o.dryRun}
	var text string
	if o.policy != "" {
		var err error
		if text, out.Notes, err = a.checkedPolicy(ctx, o.policy, !o.noFleetCheck); err != nil {
			return err
		}
	}
	return a.withClient(ctx, func(c *control.Client) error {
		opts := control.EditOptions{Create: true, DryRun: o.dryRun}
		rs, err := c.EditRightsize(ctx, opts, func(t *control.Timed[contract.RightsizeInput]) error {
			times(o, o.every, defaultEvery, t.New, &t.Every, &t.Jitter)
			if o.policy != "" {
				t.Input.Policy = text
			}
			if o.given("feed") {
				t.Input.Feed = time.Duration(o.feed)
			}
			if o.given("max-starts") {
				t.Input.MaxStarts = o.maxStarts
			}
			if o.given("proposal-expiry") {
				t.Input.ProposalExpiry = time.Duration(o.expiry)
			}
			return invalid(t.Input.Validate())
		})
		if err != nil {
			return err
		}
		out.Schedules = append(out.Schedules, view(contract.RightsizeSchedule, rs, rightsizeChanges(rs)))
		rp, err := c.EditReap(ctx, opts, func(t *control.Timed[contract.ReapInput]) error {
			times(o, o.reap, defaultReapEvery, t.New, &t.Every, &t.Jitter)
			if o.given("reap-delete") {
				t.Input.Delete = o.reapDelete
			}
			return invalid(t.Input.Validate())
		})
		if err != nil {
			return err
		}
		out.Schedules = append(out.Schedules, view(contract.ReapSchedule, rp, reapChanges(rp)))
		for i := range out.Schedules {
			if s, err := c.DescribeSchedule(ctx, out.Schedules[i].ID); err == nil && len(s.Next) > 0 && !s.Paused && !o.dryRun {
				out.Schedules[i].Next = &s.Next[0]
			}
		}
		if err := a.output.Print(a.streams.Out, out, func(w io.Writer) error { return appliedTable(w, out) }); err != nil {
			return err
		}
		a.applyTalk(ctx, c, o, out, rs)
		return nil
	})
}

// times sets an interval and its jitter: what was given, else what there is, else
// the default. Times that were set by hand stay until an interval is given.
func times(o scheduleApplyOptions, given size.DurationFlag, def time.Duration, created bool, every, jitter *time.Duration) {
	switch {
	case given != 0:
		if *every != time.Duration(given) {
			*jitter = min(time.Duration(given)/10, mostJitter)
		}
		*every = time.Duration(given)
	case created:
		*every, *jitter = def, min(def/10, mostJitter)
	}
	if o.given("jitter") {
		*jitter = time.Duration(o.jitter)
	}
}

// checkedPolicy reads a policy and refuses one with mistakes, on its own or, with
// fleet, against the disks there are.
func (a *app) checkedPolicy(ctx context.Context, file string, fleet bool) (text string, notes []policy.Problem, err error) {
	data, err := a.readFile(file)
	if err != nil {
		return "", nil, err
	}
	p, err := policy.Load(data)
	if err != nil {
		return "", nil, policyError(file, fmt.Errorf("policy %s: %w", file, err))
	}
	if fleet {
		facts, err := a.fleetFacts(ctx)
		if err != nil {
			return "", nil, fmt.Errorf("hold the policy against the disks there are (--no-fleet-check does without): %w", err)
		}
		wrong, idle := p.CheckFleet(facts)
		if len(wrong) > 0 {
			return "", nil, exit.New(exit.Usage, "").Because(fmt.Errorf("policy %s: %w", file, wrong)).
				WithNext("ebb policy lint %s --fleet; --no-fleet-check takes it as it is", file)
		}
		notes = idle
	}
	return string(data), notes, nil
}

func view[In any](id string, e control.Edited[In], changes []string) appliedSchedule {
	s := appliedSchedule{ID: id, Outcome: "unchanged", Every: e.After.Every, Jitter: e.After.Jitter, Changes: changes}
	switch {
	case e.Before == nil:
		s.Outcome = "created"
	case e.Changed:
		s.Outcome = "updated"
	}
	return s
}

// timeChanges says what became of the times.
func timeChanges[In any](e control.Edited[In]) []string {
	changes := []string{}
	if e.Before == nil {
		return changes
	}
	if b := e.Before.Every; b != e.After.Every {
		changes = append(changes, fmt.Sprintf("every %s, was %s", interval(e.After.Every), interval(b)))
	}
	if b := e.Before.Jitter; b != e.After.Jitter {
		changes = append(changes, fmt.Sprintf("jitter %s, was %s", duration(e.After.Jitter), duration(b)))
	}
	return changes
}

func rightsizeChanges(e control.Edited[contract.RightsizeInput]) []string {
	changes := timeChanges(e)
	var was contract.RightsizeInput
	if e.Before != nil {
		was = e.Before.Input
	}
	is := e.After.Input
	if e.Before == nil || was.Policy != is.Policy {
		changes = append(changes, "policy: "+policyWords(is.Policy))
	}
	if was.Feed != is.Feed {
		changes = append(changes, "feed "+duration(is.Feed))
	}
	if was.MaxStarts != is.MaxStarts {
		changes = append(changes, fmt.Sprintf("at most %d starts a run", is.MaxStarts))
	}
	if was.ProposalExpiry != is.ProposalExpiry {
		changes = append(changes, "proposals expire after "+duration(is.ProposalExpiry))
	}
	return changes
}

func reapChanges(e control.Edited[contract.ReapInput]) []string {
	changes := timeChanges(e)
	if e.Before == nil || e.Before.Input.Delete != e.After.Input.Delete {
		if e.After.Input.Delete {
			changes = append(changes, "deletes what nothing needs")
		} else {
			changes = append(changes, "only reports")
		}
	}
	return changes
}

// policyWords names a policy in a few words.
func policyWords(text string) string {
	if strings.TrimSpace(text) == "" {
		return "none: the built-in settings, which only observe"
	}
	p, err := policy.Load([]byte(text))
	if err != nil {
		return "one that this version of ebb cannot read"
	}
	name := p.Name
	if name == "" {
		name = "without a name"
	}
	return name + ", " + count(len(p.Rules()), "rule")
}

func appliedTable(w io.Writer, out applied) error {
	rows := make([][]string, 0, len(out.Schedules))
	for _, s := range out.Schedules {
		name, _ := control.ScheduleName(s.ID)
		outcome, next := s.Outcome, "-"
		if out.DryRun && outcome != "unchanged" {
			outcome = "would be " + outcome
		}
		if s.Next != nil {
			next = clock(*s.Next)
		}
		rows = append(rows, []string{name, outcome, interval(s.Every), next, orDash(strings.Join(s.Changes, "; "))})
	}
	return ui.Table(w, []string{"SCHEDULE", "OUTCOME", "EVERY", "NEXT", "WHAT"}, rows)
}

// applyTalk says what a person wants to know next.
func (a *app) applyTalk(ctx context.Context, c *control.Client, o scheduleApplyOptions, out applied, rs control.Edited[contract.RightsizeInput]) {
	for _, n := range out.Notes {
		a.streams.Say("%s", ui.Clean(o.policy+": note: "+n.String()))
	}
	if o.dryRun {
		return
	}
	if len(rs.After.Input.Switches) > 0 && o.policy != "" {
		a.streams.Say("note: the switches of ebb mode still hold, whatever the policy says; see them: ebb mode")
	}
	if ok, err := c.HasWorker(ctx); err == nil && !ok {
		a.streams.Say("note: no worker serves the queue %s; runs wait until one does", contract.ControlQueue)
	}
	a.streams.Say("look now: ebb schedule run --watch; then what was decided: ebb plan")
}
