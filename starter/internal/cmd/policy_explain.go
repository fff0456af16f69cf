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
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type policyExplainOptions struct {
	policy string
	facts  string
	region string
}

// explanation is the data of ebb policy explain.
type explanation struct {
	Disk     contract.DiskID `json:"disk,omitempty"`
	Name     string          `json:"name,omitempty"`
	Rule     string          `json:"rule"`
	Settings []policy.Source `json:"settings"`
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

The disk's usage history stays on its volumes and is not asked for: a shrink is
shown as it would be by present usage alone, and what the look-back window holds
back is left out.

Instead of a DISK, --facts reads a description from a file (YAML or JSON), for
disks that do not exist yet: namespace, claim, labels, storageClass, ... as in
the policy's selectors, sizeBytes, usedBytes, volumes.`,
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
	_ = c.MarkFlagRequired("policy")
	return c
}

func (a *app) runPolicyExplain(ctx context.Context, args []string, o policyExplainOptions) error {
	p, err := a.readPolicy(o.policy)
	if err != nil {
		return policyError(o.policy, err)
	}
	f, unmeasured, err := a.factsFor(ctx, args, o)
	if err != nil {
		return err
	}
	prices, ok := price.BuiltIn().In(o.region)
	if !ok {
		a.streams.Say("no prices for region %s: counting with those of %s", o.region, prices.Region)
	}
	out := explain(time.Now(), p, f, unmeasured, prices)
	return a.output.Print(a.streams.Out, out, func(w io.Writer) error { return explainTable(w, out) })
}

// factsFor reads a disk's facts from Temporal, or from a file; unmeasured says why its
// usage is not known.
func (a *app) factsFor(ctx context.Context, args []string, o policyExplainOptions) (f plan.Facts, unmeasured string, err error) {
	if o.facts != "" {
		data, err := a.readFile(o.facts)
		if err != nil {
			return f, "", err
		}
		if err := yaml.UnmarshalStrict(data, &f); err != nil {
			return f, "", exit.New(exit.Usage, "%s", o.facts).Because(err)
		}
		if f.SizeBytes == 0 {
			unmeasured = "the description has no sizes"
		}
		return f, unmeasured, nil
	}
	err = a.withClient(ctx, func(c *control.Client) error {
		d, err := c.Resolve(ctx, args[0])
		if err != nil {
			return err
		}
		reports, err := c.Inspect(ctx, contract.InspectInput{Disk: d.ID})
		if err != nil {
			return err
		}
		if len(reports) == 0 {
			return exit.New(exit.NotFound, "no disk %s", args[0])
		}
		f, unmeasured = plan.FactsOf(reports[0]), reports[0].Unmeasured
		if reports[0].Measurement == nil && unmeasured == "" {
			unmeasured = "its node did not answer"
		}
		return nil
	})
	return f, unmeasured, err
}

func explain(now time.Time, p *policy.Policy, f plan.Facts, unmeasured string, prices price.Table) explanation {
	r, name := p.For(f)
	out := explanation{Disk: f.Disk, Name: f.Name, Rule: name, Settings: p.Explain(f), Unmeasured: unmeasured}
	if unmeasured != "" {
		return out
	}
	d := plan.Decide(now, f, plan.History{Known: r.LookBack}, r, plan.DefaultLimits(), prices)
	out.Plan = &explainedPlan{
		Action: d.Action, Wanted: d.Wanted, Why: d.Why, NotBefore: d.NotBefore, FromGiB: d.FromGiB, ToGiB: d.GiB, Urgent: d.Urgent,
		SavingUSDMonth: d.SavingUSDMonth, CostUSD: d.CostUSD, Reasons: d.Reasons,
	}
	return out
}

func explainTable(w io.Writer, e explanation) error {
	fields := []ui.Field{{Name: "disk", Value: string(e.Disk)}, {Name: "name", Value: e.Name}, {Name: "rule", Value: e.Rule}, {Name: "not measured", Value: e.Unmeasured}}
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
