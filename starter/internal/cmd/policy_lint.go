package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type policyLintOptions struct{ fleet bool }

// lintResult is the data of ebb policy lint.
type lintResult struct {
	File     string           `json:"file"`
	OK       bool             `json:"ok"`
	Rules    []string         `json:"rules"`
	Problems []policy.Problem `json:"problems"`
	Notes    []policy.Problem `json:"notes,omitempty"` // what is allowed, and worth a look
}

func (a *app) newPolicyLint() *cobra.Command {
	var o policyLintOptions
	c := &cobra.Command{
		Use:   "lint FILE",
		Short: "Check a policy",
		Long: `Check a policy: unknown fields, units, windows that never open, settings that
contradict each other. Everything that is wrong is reported, with line and column.
FILE - is standard input.

With --fleet the policy is also held against the disks there are: overrides for
no disk and overrides that contradict their disk's rule are wrong, rules that
hold for no disk are noted. Only that asks Temporal.

The exit code is 1 when something is wrong.`,
		Example: "  ebb policy lint policy.yaml\n  ebb policy lint policy.yaml --fleet",
		Args:    oneArg("FILE"),
		RunE:    func(c *cobra.Command, args []string) error { return a.runPolicyLint(c.Context(), args[0], o) },
	}
	c.Flags().BoolVar(&o.fleet, "fleet", false, "hold it against the disks there are")
	return c
}

// oneArg is the argument rule of commands with one argument of a name.
func oneArg(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return exit.New(exit.Usage, "want one %s, got %d arguments", name, len(args)).WithNext("%s --help", c.CommandPath())
		}
		return nil
	}
}

func (a *app) runPolicyLint(ctx context.Context, file string, o policyLintOptions) error {
	out := lintResult{File: file, Rules: []string{}, Problems: []policy.Problem{}}
	p, err := a.readPolicy(file)
	var problems policy.Problems
	switch {
	case errors.As(err, &problems):
		out.Problems = problems
	case err != nil:
		return err
	default:
		out.Rules = p.Rules()
	}
	if o.fleet && p != nil {
		fleet, err := a.fleetFacts(ctx)
		if err != nil {
			return err
		}
		wrong, idle := p.CheckFleet(fleet)
		out.Problems, out.Notes = append(out.Problems, wrong...), idle
	}
	out.OK = len(out.Problems) == 0
	if err := a.output.Print(a.streams.Out, out, func(w io.Writer) error { return lintTable(w, out) }); err != nil {
		return err
	}
	if !out.OK {
		return exit.New(exit.Failed, "%s: %s", file, count(len(out.Problems), "problem"))
	}
	return nil
}

func lintTable(w io.Writer, r lintResult) error {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "%s\n", ui.Clean(r.File+": "+p.String()))
	}
	for _, p := range r.Notes {
		fmt.Fprintf(&b, "%s\n", ui.Clean(r.File+": note: "+p.String()))
	}
	if r.OK {
		fmt.Fprintf(&b, "%s: ok, %s\n", ui.Clean(r.File), count(len(r.Rules), "rule"))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// fleetFacts is what EC2 knows of all disks; no node is asked.
func (a *app) fleetFacts(ctx context.Context) ([]plan.Facts, error) {
	var out []plan.Facts
	err := a.withClient(ctx, func(c *control.Client) error {
		fleet, err := c.Fleet(ctx)
		a.sayAge(fleet)
		out = fleet.Disks
		return err
	})
	return out, err
}

// sayAge says of which time a fleet is that could not be listed now.
func (a *app) sayAge(f control.Fleet) {
	if !f.At.IsZero() {
		a.streams.Say("note: there are too many disks to list them at once; these are as the run of %s saw them", clock(f.At))
	}
}
