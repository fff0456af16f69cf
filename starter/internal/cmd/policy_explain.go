package cmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/internal/usage"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type policyExplainOptions struct {
	policy string
	facts  string
	region string
	prices string
}

// explanation is the data of ebb policy explain.
type explanation struct {
	Disk     contract.DiskID `json:"disk,omitempty"`
	Name     string          `json:"name,omitempty"`
	Rule     string          `json:"rule"`
	Settings []policy.Source `json:"settings"`
	// History is what the disk remembers, as the rule looks at it; nil when it
	// was not read, and then the plan goes by present usage alone.
	History *plan.History `json:"history,omitempty"`
	Unread  string        `json:"unread,omitempty"` // why a disk's history was not read
	// Plan is what the planner would do now; nil when the disk was not measured.
	Plan       *explainedPlan `json:"plan,omitempty"`
	Unmeasured string         `json:"unmeasured,omitempty"`
}

// explainedPlan is a decision for the screen.
type explainedPlan struct {
	Action         plan.Action `json:"action"`
	Wanted         plan.Action `json:"wanted"`
	Why            plan.Why    `json:"why,omitempty"`
	NotBefore      time.Time   `json:"notBefore,omitzero"`
	FromGiB        int64       `json:"fromGiB"`
	ToGiB          int64       `json:"toGiB"`
	Urgent         bool        `json:"urgent,omitempty"`
	SavingUSDMonth float64     `json:"savingUsdMonth,omitempty"`
	CostUSD        float64     `json:"costUsd,omitempty"`
	Reasons        []string    `json:"reasons"`
}

func (a *app) newPolicyExplain() *cobra.Command {
	var o policyExplainOptions
	c := &cobra.Command{
		Use:   "explain [DISK]",
		Short: "Show what a policy says of a disk, and why",
		Long: `Show which rule of a policy holds for a disk, every setting with the line it comes
from, and what the planner would do now.

The disk's node is asked for its usage history, which the look-back window needs.
When it does not answer, a shrink is shown as it would be by present usage alone,
and what the window holds back is left out.

Instead of a DISK, --facts reads a description from a file (YAML or JSON), for
disks that do not exist yet: namespace, claim, labels, storageClass, ... as in
the policy's selectors, sizeBytes, usedBytes, volumes. It has no history.`,
		Example: "  ebb policy explain data-1 --policy policy.yaml\n  ebb policy explain --policy policy.yaml --facts disk.yaml",
		Args: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (o.facts != "") || len(args) > 1 {
				return exit.New(exit.Usage, "want one DISK, or --facts").WithNext("%s --help", c.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: a.completeDisk,
		RunE:              func(c *cobra.Command, args []string) error { return a.runPolicyExplain(c.Context(), args, o) },
	}
	c.Flags().StringVar(&o.policy, "policy", "", "the policy's file; - is standard input")
	c.Flags().StringVar(&o.facts, "facts", "", "file with a description of the disk, instead of DISK")
	c.Flags().StringVar(&o.region, "region", price.DefaultRegion, "whose prices to count with")
	c.Flags().StringVar(&o.prices, "prices", "", "price list file instead of the built-in one")
	_ = c.MarkFlagRequired("policy")
	return c
}

func (a *app) runPolicyExplain(ctx context.Context, args []string, o policyExplainOptions) error {
	p, err := a.readPolicy(o.policy)
	if err != nil {
		return policyError(o.policy, err)
	}
	book, err := readBook(o.prices)
	if err != nil {
		return err
	}
	about, err := a.subjectFor(ctx, args, o)
	if err != nil {
		return err
	}
	prices, ok := book.In(o.region)
	if !ok {
		a.streams.Say("no prices for region %s: counting with those of %s", o.region, prices.Region)
	}
	out := explain(time.Now(), p, about, prices)
	return a.output.Print(a.streams.Out, out, func(w io.Writer) error { return explainTable(w, out) })
}

// subject is what is known of the disk to explain.
type subject struct {
	facts      plan.Facts
	unmeasured string                      // why its usage is not known
	history    *contract.ReadHistoryResult // nil: not read
	unread     string                      // why not, of a disk that should have one
}

// subjectFor asks Temporal about a disk, or reads a description of one.
func (a *app) subjectFor(ctx context.Context, args []string, o policyExplainOptions) (s subject, err error) {
	if o.facts != "" {
		data, err := a.readFile(o.facts)
		if err != nil {
			return s, err
		}
		if err := yaml.UnmarshalStrict(data, &s.facts); err != nil {
			return s, exit.New(exit.Usage, "%s", o.facts).Because(err)
		}
		if s.facts.SizeBytes == 0 {
			s.unmeasured = "the description has no sizes"
		}
		return s, nil
	}
	err = a.withDisk(ctx, args[0], func(c *control.Client, d control.Disk) error {
		reports, err := c.Inspect(ctx, contract.InspectInput{Disk: d.ID, History: true})
		if err != nil {
			return err
		}
		if len(reports) == 0 {
			return exit.New(exit.NotFound, "no disk %s", args[0])
		}
		r := reports[0]
		s = subject{facts: plan.FactsOf(r), unmeasured: r.Unmeasured, history: r.History, unread: unread(r)}
		if r.Measurement == nil && s.unmeasured == "" {
			s.unmeasured = "its node did not answer"
		}
		return nil
	})
	return s, err
}

func explain(now time.Time, p *policy.Policy, s subject, prices price.Table) explanation {
	f := s.facts
	r, name := p.For(f)
	out := explanation{Disk: f.Disk, Name: f.Name, Rule: name, Settings: p.Explain(f), Unmeasured: s.unmeasured, Unread: s.unread}
	past := plan.History{Known: r.LookBack} // nothing known, nothing held back
	if s.history != nil {
		past = usage.Summarize(now, usage.RecordsOf(s.history.Hours), r.LookBack)
		out.History = &past
	}
	if s.unmeasured != "" {
		return out
	}
	d := plan.Decide(now, f, past, r, plan.DefaultLimits(), prices)
	out.Plan = &explainedPlan{
		Action: d.Action, Wanted: d.Wanted, Why: d.Why, NotBefore: d.NotBefore, FromGiB: d.FromGiB, ToGiB: d.GiB, Urgent: d.Urgent,
		SavingUSDMonth: d.SavingUSDMonth, CostUSD: d.CostUSD, Reasons: d.Reasons,
	}
	return out
}

func explainTable(w io.Writer, e explanation) error {
	fields := []ui.Field{{Name: "disk", Value: string(e.Disk)}, {Name: "name", Value: e.Name}, {Name: "rule", Value: e.Rule}, {Name: "not measured", Value: e.Unmeasured}}
	switch {
	case e.History != nil && e.History.Known == 0:
		fields = append(fields, ui.Field{Name: "history", Value: "nothing on record yet"})
	case e.History != nil:
		fields = append(fields, ui.Field{Name: "history", Value: fmt.Sprintf("%s on record; at most %s needed in the look-back window", roughly(e.History.Known), size.Bytes(e.History.PeakUsedBytes))})
	case e.Unmeasured == "":
		fields = append(fields, ui.Field{Name: "history not read", Value: e.Unread})
	}
	if p := e.Plan; p != nil {
		fields = append(fields, ui.Field{Name: "plan", Value: p.headline()})
		for _, r := range p.Reasons {
			fields = append(fields, ui.Field{Name: "because", Value: r})
		}
	}
	if err := ui.Fields(w, fields...); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	rows := make([][]string, 0, len(e.Settings))
	for _, s := range e.Settings {
		line := "-"
		if s.Line > 0 {
			line = fmt.Sprint(s.Line)
		}
		rows = append(rows, []string{s.Field, orDash(s.Value), s.From, line})
	}
	return ui.Table(w, []string{"SETTING", "VALUE", "FROM", ">LINE"}, rows)
}

// roughly says a time in whole days, or in whole hours when it is short.
func roughly(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func (p explainedPlan) headline() string {
	switch {
	case p.Wanted == plan.None:
		return "nothing to do"
	case p.Action == plan.None:
		return fmt.Sprintf("would %s from %d to %d GiB; held back (%s)", p.Wanted, p.FromGiB, p.ToGiB, p.Why)
	case p.Urgent:
		return fmt.Sprintf("%s from %d to %d GiB at once", p.Action, p.FromGiB, p.ToGiB)
	}
	return fmt.Sprintf("%s from %d to %d GiB", p.Action, p.FromGiB, p.ToGiB)
}
