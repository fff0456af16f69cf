package cmd

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/simulate"
	"github.com/ebb-storage/ebb/internal/trace"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type simulateOptions struct {
	trace      string
	prometheus []string
	generate   string
	disks      int
	days       int
	seed       uint64
	used       int
	maxGap     size.DurationFlag
	policy     string
	region     string
	prices     string
	every      size.DurationFlag
	rollout    size.DurationFlag
	html       string
	csv        string
	operations string
	summary    string
	writeTrace string
}

func (a *app) newSimulate() *cobra.Command {
	o := simulateOptions{
		disks: 1000, days: 90, seed: 1, used: 25, region: price.DefaultRegion,
		maxGap: size.DurationFlag(trace.DefaultMaxGap), every: size.DurationFlag(4 * time.Hour), rollout: size.DurationFlag(72 * time.Hour),
	}
	shapes := make([]string, 0, 3)
	names := make([]string, 0, 3)
	for _, s := range trace.Shapes() {
		shapes = append(shapes, fmt.Sprintf("  %-12s %s", s.Name, s.Meaning))
		names = append(names, s.Name)
	}
	c := &cobra.Command{
		Use:   "simulate",
		Short: "Play a fleet's usage to the planner: what would Ebb do, and save?",
		Long: `Play the recorded or generated usage of a fleet to Ebb's own planner, against a
model of EBS and its limits, and count utilization, footprint, cost, operations
and times out of space. Nothing is contacted and nothing is changed.

Usage comes from a CSV file (--trace), from range queries of Prometheus for
kubelet_volume_stats_used_bytes and kubelet_volume_stats_capacity_bytes
(--prometheus, once for each file), or is generated (--generate):

` + strings.Join(shapes, "\n") + `

Every disk is taken as if the policy's mode were enforce. Formats, the generator
and what the model assumes: docs/simulate.md.`,
		Example: `  ebb simulate --generate ai-platform --disks 10000 --days 90 --html report.html
  ebb simulate --trace usage.csv --policy policy.yaml --html report.html
  ebb simulate --prometheus used.json --prometheus capacity.json -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runSimulate(c.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.trace, "trace", "", "CSV file with the usage; .gz is unpacked")
	f.StringArrayVar(&o.prometheus, "prometheus", nil, "file with the JSON answer of a range query; can be repeated")
	f.StringVar(&o.generate, "generate", "", "make usage of this shape: "+strings.Join(names, ", "))
	f.IntVar(&o.disks, "disks", o.disks, "how many disks to generate, of 200 GB on average")
	f.IntVar(&o.days, "days", o.days, "how many days to generate")
	f.Uint64Var(&o.seed, "seed", o.seed, "another seed makes another fleet, and other delays of EBS")
	f.IntVar(&o.used, "used", o.used, "percent of the generated fleet that is used at the start")
	f.Var(&o.maxGap, "max-gap", "longest time between two samples of a disk that is no gap")
	f.StringVar(&o.policy, "policy", "", "policy file (default: the one in docs/simulate.md)")
	f.StringVar(&o.region, "region", o.region, "region whose prices count")
	f.StringVar(&o.prices, "prices", "", "price list file instead of the built-in one")
	f.Var(&o.every, "every", "time between two rounds of planning; growth never waits for them")
	f.Var(&o.rollout, "rollout", "time over which the disks join")
	f.StringVar(&o.html, "html", "", "write the report to this file, as one HTML page")
	f.StringVar(&o.csv, "csv", "", "write the fleet over time to this file, as CSV")
	f.StringVar(&o.operations, "operations", "", "write every operation to this file, as CSV")
	f.StringVar(&o.summary, "summary", "", "write the main figures to this file, as JSON")
	f.StringVar(&o.writeTrace, "write-trace", "", "write the usage itself to this file, as CSV, and stop")
	c.MarkFlagsOneRequired("trace", "prometheus", "generate")
	c.MarkFlagsMutuallyExclusive("trace", "prometheus", "generate")
	_ = c.RegisterFlagCompletionFunc("generate", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// simulateSummary is what --summary writes.
type simulateSummary struct {
	Disks                   int     `json:"disks"`
	Days                    float64 `json:"days"`
	ProvisionedFirstBytes   int64   `json:"provisioned_first_bytes"`
	ProvisionedLastBytes    int64   `json:"provisioned_last_bytes"`
	UtilizationFirst        float64 `json:"utilization_first"`
	UtilizationAfterWeek    float64 `json:"utilization_after_week"`
	OutOfSpace              int     `json:"out_of_space"`
	MaxModificationsDiskDay int     `json:"max_modifications_per_disk_day"`
	Oscillations            int     `json:"oscillations"`
	NetSavingUSDMonth       float64 `json:"net_saving_usd_month"`
	WallSeconds             float64 `json:"wall_s"`
	PeakRSSMiB              float64 `json:"peak_rss_mib"`
}

func (a *app) runSimulate(ctx context.Context, o simulateOptions) error {
	began := time.Now()
	source, title, err := a.usage(o)
	if err != nil {
		return err
	}
	if o.writeTrace != "" {
		return a.writeTrace(ctx, source, o.writeTrace)
	}
	opts := simulate.Options{Source: source, Title: title, Seed: o.seed, Every: time.Duration(o.every), Rollout: time.Duration(o.rollout)}
	if o.rollout == 0 {
		opts.Rollout = -1
	}
	if err := readRules(o, &opts); err != nil {
		return err
	}
	var ops *report.OperationsWriter
	if o.operations != "" {
		f, err := os.Create(o.operations)
		if err != nil {
			return invalid(err)
		}
		defer f.Close()
		ops = report.NewOperationsWriter(f)
		opts.Operation = ops.Write
	}
	a.streams.Say("%s: playing it to the planner", title)
	res, err := simulate.Run(ctx, opts)
	if err != nil {
		return traceError(err)
	}
	if ops != nil {
		if err := ops.Flush(); err != nil {
			return err
		}
	}
	return a.simulated(o, res, time.Since(began))
}

// usage is where the trace comes from, and what to call it.
func (a *app) usage(o simulateOptions) (trace.Source, string, error) {
	switch {
	case o.generate != "":
		f, err := trace.NewFleet(trace.Fleet{Shape: o.generate, Disks: o.disks, Days: o.days, Seed: o.seed, Utilization: float64(o.used) / 100})
		if err != nil {
			return nil, "", invalid(err)
		}
		return f.Play, fmt.Sprintf("A generated fleet of shape %s", o.generate), nil
	case o.trace != "":
		csv := trace.CSV{Name: o.trace, MaxGap: time.Duration(o.maxGap), Open: func() (io.ReadCloser, error) { return openTrace(o.trace) }}
		return csv.Play, "Usage of " + filepath.Base(o.trace), nil
	}
	p := &trace.Prometheus{MaxGap: time.Duration(o.maxGap)}
	for _, name := range o.prometheus {
		f, err := openTrace(name)
		if err != nil {
			return nil, "", invalid(err)
		}
		err = errors.Join(p.Add(name, f), f.Close())
		if err != nil {
			return nil, "", traceError(err)
		}
	}
	disks, warnings, err := p.Disks()
	if err != nil {
		return nil, "", invalid(err)
	}
	for i, w := range warnings {
		if i == 10 {
			a.streams.Say("and %d more like this", len(warnings)-i)
			break
		}
		a.streams.Say("%s", ui.Clean(w))
	}
	return trace.Of(disks...), "Usage by Prometheus", nil
}

// readRules reads policy and prices.
func readRules(o simulateOptions, opts *simulate.Options) error {
	text, name := simulate.FleetPolicy(), "the built-in policy"
	if o.policy != "" {
		var err error
		if text, err = os.ReadFile(o.policy); err != nil {
			return invalid(err)
		}
		name = o.policy
	}
	p, err := policy.Load(text)
	if err != nil {
		return exit.New(exit.Usage, "%s: %s", name, err)
	}
	opts.Budgets = p.Budgets
	opts.Rule = func(f plan.Facts) (plan.Rule, bool) {
		r, _ := p.For(f)
		r.Mode = plan.Enforce
		return r, true
	}
	book := price.BuiltIn()
	if o.prices != "" {
		data, err := os.ReadFile(o.prices)
		if err != nil {
			return invalid(err)
		}
		if book, err = price.Load(data); err != nil {
			return exit.New(exit.Usage, "%s: %s", o.prices, err)
		}
	}
	prices, ok := book.In(o.region)
	if !ok {
		return exit.New(exit.Usage, "there are no prices of region %q", o.region).WithNext("give a price list of it with --prices")
	}
	opts.Prices = prices
	return nil
}

// traceError makes what is wrong with a trace a matter of the command line.
func traceError(err error) error {
	var wrong *trace.Error
	if errors.As(err, &wrong) || errors.Is(err, os.ErrNotExist) {
		return invalid(err)
	}
	return err
}

func openTrace(name string) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil || !strings.HasSuffix(name, ".gz") {
		return f, err
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{z, f}, nil
}

func (a *app) writeTrace(ctx context.Context, source trace.Source, name string) error {
	return writeFile(name, func(w io.Writer) error {
		t, err := trace.NewWriter(w)
		if err != nil {
			return err
		}
		if err := source(ctx, 1, t.Write); err != nil {
			return traceError(err)
		}
		return t.Flush()
	})
}

// simulated writes what was asked for and prints the main figures.
func (a *app) simulated(o simulateOptions, res simulate.Result, took time.Duration) error {
	r := &res.Report
	s := simulateSummary{
		Disks: r.Totals.Disks, Days: r.Totals.Days, ProvisionedFirstBytes: r.Totals.ProvisionedFirstBytes, ProvisionedLastBytes: r.Totals.ProvisionedLastBytes,
		UtilizationFirst: r.Totals.UtilizationFirst, UtilizationAfterWeek: r.Totals.UtilizationAfterWeek, OutOfSpace: r.Totals.OutOfSpace,
		MaxModificationsDiskDay: r.Totals.MaxModificationsPerDay, Oscillations: r.Totals.Oscillations, NetSavingUSDMonth: r.Money.Net,
		WallSeconds: took.Seconds(), PeakRSSMiB: peakRSSMiB(),
	}
	for _, out := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{o.html, r.HTML},
		{o.csv, r.CSV},
		{o.summary, func(w io.Writer) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(s)
		}},
	} {
		if out.name == "" {
			continue
		}
		if err := writeFile(out.name, out.write); err != nil {
			return err
		}
	}
	for _, w := range res.Waits[:min(len(res.Waits), 3)] {
		a.streams.Say("longest waits: %s at %s for %.0fs, for %s", ui.Clean(w.Disk), w.At.Format(time.RFC3339), w.Seconds, w.Why)
	}
	return a.output.Print(a.streams.Out, r, func(w io.Writer) error {
		t := r.Totals
		return ui.Fields(w,
			ui.Field{Name: "disks", Value: fmt.Sprintf("%d over %.0f days", t.Disks, t.Days)},
			ui.Field{Name: "provisioned", Value: fmt.Sprintf("%s at the start, %s at the end", report.Bytes(t.ProvisionedFirstBytes), report.Bytes(t.ProvisionedLastBytes))},
			ui.Field{Name: "utilization", Value: fmt.Sprintf("%.1f%% at the start, %.1f%% after the first week (%.1f%% of all that is paid for)", 100*t.UtilizationFirst, 100*t.UtilizationAfterWeek, 100*t.PaidUtilizationAfterWeek)},
			ui.Field{Name: "out of space", Value: fmt.Sprintf("%d times; writes waited %d times for a growth, %.0fs at most, %.0fs in all; %d near misses", t.OutOfSpace, t.Waits, t.LongestWaitSeconds, t.WaitSeconds, t.NearMisses)},
			ui.Field{Name: "operations", Value: fmt.Sprintf("%d growths (%d urgent, %d by another volume), %d shrinks", t.Grows, t.Urgent, t.Appends, t.Shrinks)},
			ui.Field{Name: "modifications", Value: fmt.Sprintf("%d of one disk in 24 hours, at most", t.MaxModificationsPerDay)},
			ui.Field{Name: "oscillations", Value: fmt.Sprintf("%d; %d shrinks had to be taken back as usage rose", t.Oscillations, t.Regrown)},
			ui.Field{Name: "without Ebb", Value: fmt.Sprintf("$%.0f a month", r.Money.Without)},
			ui.Field{Name: "saves", Value: fmt.Sprintf("$%.0f a month, net; payback %s", r.Money.Net, payback(r.Money.Payback))},
			ui.Field{Name: "took", Value: fmt.Sprintf("%.1fs, %.0f MiB of memory", s.WallSeconds, s.PeakRSSMiB)},
		)
	})
}

func payback(days float64) string {
	if days < 0 {
		return "never"
	}
	return fmt.Sprintf("%.1f days", days)
}

// writeFile writes a whole file, or says why not.
func writeFile(name string, write func(io.Writer) error) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return invalid(err)
	}
	f, err := os.Create(name)
	if err != nil {
		return invalid(err)
	}
	b := bufio.NewWriterSize(f, 1<<20)
	err = write(b)
	return cmp.Or(err, b.Flush(), f.Close())
}

// peakRSSMiB is the most memory this process has had, as the kernel counts; 0
// where it does not say.
func peakRSSMiB() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		var kib float64
		if n, _ := fmt.Sscanf(string(line), "VmHWM: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}
