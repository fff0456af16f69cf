package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/app"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/agent"
)

func newPreflight(cfg *config) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "preflight",
		Short: "Say what this node offers and what it lacks",
		Long: `Say what this node offers and what it lacks. The kernel is asked, not the image's
name; missing modules of the kernel's own are loaded, nothing else is changed.

Exit codes: 0 everything is there; 1 something is missing that does not stop the
agent, such as Temporal; 2 wrong usage; 3 the agent cannot run here.`,
		Args: app.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return app.Usagef("-o %q: want table or json", output)
			}
			return runPreflight(cmd.Context(), *cfg, output, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func runPreflight(ctx context.Context, cfg config, output string, w io.Writer) error {
	log, err := cfg.log.New()
	if err != nil {
		return err
	}
	creds := dropped(agent.DropCredentials(slog.New(slog.DiscardHandler)))
	k := newKernel(log)
	defer func() { _ = k.Close() }()
	p := newProber(k, newIdentity(cfg), creds)
	p.Temporal = func(ctx context.Context) error {
		c, err := agent.Dial("preflight", slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer c.Close()
		return agent.CheckTemporal(ctx, c)
	}
	report := p.Probe(ctx)
	if err := printReport(w, output, report.PreflightResult); err != nil {
		return err
	}
	if len(report.Blocking) > 0 {
		var names []string
		for _, c := range report.Blocking {
			names = append(names, c.Name)
		}
		return contract.Refuse(contract.NodeUnsupported, "the agent cannot run here: %s", strings.Join(names, ", ")).
			WithNext("see the checks above")
	}
	if !report.OK {
		return errors.New("this node lacks something; see above")
	}
	return nil
}

func printReport(w io.Writer, output string, r contract.PreflightResult) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "CHECK\t\tDETAIL\n")
	for _, c := range r.Checks {
		mark := "ok"
		if !c.OK {
			mark = "FAIL"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", c.Name, mark, c.Detail)
		if c.Next != "" {
			_, _ = fmt.Fprintf(t, "\t\tnext: %s\n", c.Next)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nnode %s, kernel %s\n", or(r.Node, "unknown"), or(r.Kernel, "unknown"))
	return err
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
