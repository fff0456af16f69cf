package cmd

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// byPolicy is the word that takes a switch away.
const byPolicy = "policy"

type modeOptions struct{ dryRun bool }

func (a *app) newMode() *cobra.Command {
	var o modeOptions
	c := &cobra.Command{
		Use:   "mode [observe|recommend|enforce|policy [SELECTOR...]]",
		Short: "Show or switch how far Ebb goes with which disks",
		Long: `Without arguments show the switches that are set and how many disks the last run
found in which mode.

  observe    plan and record, change nothing
  recommend  plan and ask for approval (ebb proposals, ebb approve)
  enforce    plan and do
  policy     take a switch away: what the policy says holds again

A switch goes before the policy's mode, from the next run on. Without SELECTOR it
holds for every disk and replaces all switches there are: "ebb mode observe" is the
emergency stop. SELECTOR is one of

  disk=REF  namespace=NS  cluster=C  rule=NAME  tag:KEY=VALUE

and all that are given must hold. Of several switches that select a disk the last
counts; setting one anew puts it last.

Switching to observe or recommend also ends a run that is under way, so that it
begins nothing more. Operations that run already go on (ebb cancel DISK), and disks
still grow by themselves when they run full.`,
		Example: "  ebb mode\n  ebb mode recommend\n  ebb mode enforce namespace=dev\n  ebb mode observe disk=ledger\n  ebb mode policy namespace=dev",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			if args[0] != byPolicy && contract.Mode(args[0]).Validate() != nil {
				return exit.New(exit.Usage, "mode %q: want observe, recommend, enforce or policy", args[0]).WithNext("%s --help", c.CommandPath())
			}
			_, err := selector(args[1:])
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return []cobra.Completion{"disk=", "namespace=", "cluster=", "rule=", "tag:"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
			}
			return []cobra.Completion{"observe", "recommend", "enforce", byPolicy}, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.runModeShow(c.Context())
			}
			return a.runMode(c.Context(), args[0], args[1:], o)
		},
	}
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would change; change nothing")
	return c
}

// selector reads what a switch selects by. Its mode is left empty.
func selector(args []string) (contract.Switch, error) {
	var s contract.Switch
	for _, arg := range args {
		key, value, ok := strings.Cut(arg, "=")
		bad := func(why string) error {
			return exit.New(exit.Usage, "selector %q: %s", arg, why).
				WithNext("write disk=REF, namespace=NS, cluster=C, rule=NAME or tag:KEY=VALUE")
		}
		if !ok || key == "" || value == "" {
			return s, bad("want NAME=VALUE")
		}
		if tag, is := strings.CutPrefix(key, "tag:"); is {
			switch _, twice := s.Tags[tag]; {
			case tag == "":
				return s, bad("want tag:KEY=VALUE")
			case twice:
				return s, bad("is given twice; all must hold")
			}
			if s.Tags == nil {
				s.Tags = map[string]string{}
			}
			s.Tags[tag] = value
			continue
		}
		field := map[string]*string{"disk": &s.Disk, "namespace": &s.Namespace, "cluster": &s.Cluster, "rule": &s.Rule}[key]
		switch {
		case field == nil:
			return s, bad("there is no such selector")
		case *field != "":
			return s, bad("is given twice; all must hold")
		}
		*field = value
	}
	return s, nil
}

// selectorWords writes a switch's selector as it is typed.
func selectorWords(s contract.Switch) string {
	var out []string
	for _, f := range [][2]string{{"disk", s.Disk}, {"namespace", s.Namespace}, {"cluster", s.Cluster}, {"rule", s.Rule}} {
		if f[1] != "" {
			out = append(out, f[0]+"="+f[1])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(s.Tags)) {
		out = append(out, "tag:"+k+"="+s.Tags[k])
	}
	return strings.Join(out, " ")
}

// all tells that a switch selects every disk.
func all(s contract.Switch) bool { return selectorWords(s) == "" }

// switched is switches with one set, or taken away. Applied again it changes
// nothing more.
func switched(switches []contract.Switch, s contract.Switch, remove bool) []contract.Switch {
	if all(s) {
		switches = nil
	}
	out := slices.DeleteFunc(slices.Clone(switches), s.Same)
	if !remove {
		out = append(out, s)
	}
	return out
}

// modeView is the data of ebb mode.
type modeView struct {
	Switches []contract.Switch     `json:"switches"` // the last that selects a disk counts
	Policy   string                `json:"policy"`   // in words
	Modes    map[contract.Mode]int `json:"modes"`    // disks by mode, at the last run
	At       *time.Time            `json:"at,omitempty"`
	Paused   bool                  `json:"paused"` // the schedule
}

func (a *app) runModeShow(ctx context.Context) error {
	return a.withClient(ctx, func(c *control.Client) error {
		in, err := c.RightsizeInput(ctx)
		if err != nil {
			return err
		}
		s, err := c.DescribeSchedule(ctx, contract.RightsizeSchedule)
		if err != nil {
			return err
		}
		out := modeView{Switches: append([]contract.Switch{}, in.Switches...), Policy: policyWords(in.Policy), Modes: map[contract.Mode]int{}, Paused: s.Paused}
		for _, e := range slices.Backward(s.Recent) {
			if r, err := c.FleetRun(ctx, e); err == nil && r.Rightsize != nil && r.Rightsize.Refusal == nil {
				out.At = &r.At
				maps.Copy(out.Modes, r.Rightsize.Totals.Modes)
				break
			}
		}
		return a.output.Print(a.streams.Out, out, func(w io.Writer) error {
			var names named
			if slices.ContainsFunc(out.Switches, func(s contract.Switch) bool { return s.Disk != "" }) {
				names = diskNames(ctx, c)
			}
			return modeTable(w, out, names)
		})
	})
}

func modeTable(w io.Writer, v modeView, names named) error {
	last, state := "no run has ended yet", ""
	if v.At != nil {
		last = clock(*v.At) + ": " + modeCounts(v.Modes)
	}
	if v.Paused {
		state = "paused: nothing is looked at (ebb schedule resume)"
	}
	if err := ui.Fields(w, ui.Field{Name: "policy", Value: v.Policy}, ui.Field{Name: "last run", Value: last}, ui.Field{Name: "schedule", Value: state}); err != nil {
		return err
	}
	if len(v.Switches) == 0 {
		_, err := fmt.Fprintln(w, "no switches: the policy's modes hold")
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	rows := make([][]string, 0, len(v.Switches))
	for _, s := range v.Switches {
		who := everyDisk(selectorWords(s))
		if d := names[contract.DiskID(s.Disk)]; d.Name != "" {
			who += " (" + d.Name + ")"
		}
		rows = append(rows, []string{string(s.Mode), who})
	}
	return ui.Table(w, []string{"SWITCH", "FOR"}, rows)
}

func everyDisk(selector string) string {
	if selector == "" {
		return "every disk"
	}
	return selector
}

// modeChange is the data of ebb mode MODE.
type modeChange struct {
	Mode     string            `json:"mode"`
	For      string            `json:"for"` // the selector; empty: every disk
	Changed  bool              `json:"changed"`
	Before   []contract.Switch `json:"before"`
	Switches []contract.Switch `json:"switches"`
	// Selected is how many disks the selector selects now; nil: not known.
	Selected *int       `json:"selected,omitempty"`
	Ended    string     `json:"ended,omitempty"` // the run that was ended
	Next     *time.Time `json:"next,omitempty"`  // run
	DryRun   bool       `json:"dryRun,omitempty"`
}

func (a *app) runMode(ctx context.Context, mode string, args []string, o modeOptions) error {
	sw, err := selector(args)
	if err != nil {
		return err
	}
	remove := mode == byPolicy
	return a.withClient(ctx, func(c *control.Client) error {
		in, err := c.RightsizeInput(ctx)
		if err != nil {
			return err
		}
		out := modeChange{Mode: mode, DryRun: o.dryRun}
		var note string
		if !all(sw) { // the emergency stop asks nobody but Temporal
			sw.Disk = a.switchDisk(ctx, c, sw.Disk)
			if !remove {
				out.Selected, note = a.selected(ctx, c, sw, in.Policy)
			}
		}
		if out.For = selectorWords(sw); !remove {
			sw.Mode = contract.Mode(mode)
		}
		e, err := c.EditRightsize(ctx, control.EditOptions{DryRun: o.dryRun}, func(t *control.Timed[contract.RightsizeInput]) error {
			t.Input.Switches = switched(t.Input.Switches, sw, remove)
			return invalid(t.Input.Validate())
		})
		if err != nil {
			return err
		}
		out.Changed = e.Changed
		out.Before = append([]contract.Switch{}, e.Before.Input.Switches...)
		out.Switches = append([]contract.Switch{}, e.After.Input.Switches...)
		s, err := c.DescribeSchedule(ctx, contract.RightsizeSchedule)
		if err != nil {
			return err
		}
		if len(s.Next) > 0 && !s.Paused {
			out.Next = &s.Next[0]
		}
		var goesOn error
		if !o.dryRun && len(s.Running) > 0 && (mode == string(contract.Observe) || mode == string(contract.Recommend)) {
			err := c.EndRun(ctx, s.Running[0], "ebb mode "+strings.Join(append([]string{mode}, args...), " ")+" by "+c.Who())
			switch exit.CodeOf(err) {
			case exit.Done:
				out.Ended = s.Running[0].WorkflowID
			case exit.NotFound: // it ended by itself
			default:
				goesOn = err
			}
		}
		if err := a.output.Print(a.streams.Out, out, func(w io.Writer) error { return modeChangeTable(w, out) }); err != nil {
			return err
		}
		a.modeTalk(out, note, s)
		return goesOn
	})
}

// switchDisk is the id of the disk that ref names, so that a switch outlives its
// name; ref itself when nobody knows it now.
func (a *app) switchDisk(ctx context.Context, c *control.Client, ref string) string {
	if ref == "" {
		return ""
	}
	d, err := c.Resolve(ctx, ref)
	if err != nil {
		return ref
	}
	return string(d.ID)
}

// selected counts the disks that a switch selects by what EC2 knows; nil and why
// when that cannot be told.
func (a *app) selected(ctx context.Context, c *control.Client, s contract.Switch, text string) (*int, string) {
	if s.Cluster != "" || len(s.Tags) > 0 {
		return nil, "clusters and tags are looked at by the runs alone: that something is selected was not checked"
	}
	p, err := policy.Load([]byte(text))
	if strings.TrimSpace(text) == "" {
		p, err = &policy.Policy{}, nil
	}
	if err != nil && s.Rule != "" {
		return nil, "the schedule's policy cannot be read here: that something is selected was not checked"
	}
	all, err := c.Fleet(ctx)
	if err != nil {
		return nil, "that something is selected was not checked: " + err.Error()
	}
	a.sayAge(all)
	n := 0
	for _, f := range all.Disks {
		var r plan.Rule
		if s.Rule != "" {
			r, _ = p.For(f)
		}
		if len(f.Volumes) > 0 && fleet.Selects(s, f, r) {
			n++
		}
	}
	if n == 0 && s.Rule != "" && slices.Contains(p.Rules(), s.Rule) {
		return nil, "the rule may select by what only the runs look at (tags, labels): that something is selected was not checked"
	}
	return &n, ""
}

func modeChangeTable(w io.Writer, m modeChange) error {
	mode, gone := "mode "+m.Mode, "are gone"
	if m.Mode == byPolicy {
		mode = "as the policy says"
	}
	if m.DryRun {
		mode, gone = "would be "+mode, "would go"
	}
	what := everyDisk(m.For) + ": " + mode
	switch {
	case !m.Changed && m.Mode == byPolicy:
		what += " (as before: there was no such switch)"
	case !m.Changed:
		what += " (as before)"
	}
	if m.Selected != nil {
		what += "; selects " + count(*m.Selected, "disk") + " now"
	}
	if n := len(m.Before); m.For == "" && m.Changed && n > 0 {
		what += fmt.Sprintf("; the earlier switches (%d) %s", n, gone)
	}
	_, err := fmt.Fprintln(w, ui.Clean(what))
	return err
}

// modeTalk says from when on a switch holds.
func (a *app) modeTalk(m modeChange, note string, s control.Schedule) {
	if note != "" {
		a.streams.Say("note: %s", ui.Clean(note))
	}
	if m.Selected != nil && *m.Selected == 0 {
		a.streams.Say("note: no disk is selected by %s today; check for a typo", ui.Clean(m.For))
	}
	if m.DryRun {
		return
	}
	if m.Ended != "" {
		a.streams.Say("the run that was under way was ended (%s); operations it began go on", m.Ended)
	}
	switch {
	case s.Paused:
		a.streams.Say("the schedule is paused: it holds from the next run on, after ebb schedule resume or by ebb schedule run")
	case m.Next != nil:
		a.streams.Say("it holds from the next run on, at %s; now: ebb schedule run", clock(*m.Next))
	}
}
