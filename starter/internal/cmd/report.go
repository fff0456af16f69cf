package cmd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/ledger"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/fleet"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type reportOptions struct {
	since       size.DurationFlag
	format      reportFormat
	out         string
	csvHours    bool
	selection   fleet.Selection
	region      string
	prices      string
	controlCost float64
	title       string
}

// reportFormat is -o of report: it has two formats more than other commands.
type reportFormat struct {
	format string
	app    *app // whose errors take the format where they can
}

// Set parses s.
func (f *reportFormat) Set(s string) error {
	switch s {
	case "html", "csv":
	case "table", "json", "yaml":
		f.app.output = ui.Format(s)
	default:
		return fmt.Errorf("output %q: want html, json, yaml, csv or table", s)
	}
	f.format = s
	return nil
}

// Type names the value in help.
func (*reportFormat) Type() string { return "format" }

func (f *reportFormat) String() string { return f.format }

func (a *app) newReport() *cobra.Command {
	o := reportOptions{
		since: size.DurationFlag(30 * 24 * time.Hour), format: reportFormat{"table", a},
		selection: fleet.Selection{ClassTag: "ebb.io/class"}, title: "What Ebb did",
	}
	c := &cobra.Command{
		Use:   "report",
		Short: "Show what Ebb did to the fleet, and what it saved",
		Long: `Show what became of the fleet: utilization and footprint over time, by namespace and
workload class, what was done and why, what was refused and why, and what was saved
after Ebb's own cost.

Nothing is stored for this: each disk is asked, through its node, for the hours it
remembers (up to 170 days), and Temporal for the operations it has not forgotten. A
disk whose node does not answer is listed as unknown, and the report goes on.

-o html is one page that needs no network and runs no script. -o json has fields that
stay, -o csv a row for each operation, or with --csv-hours for each hour of the fleet.
What the figures mean: docs/report.md.

--namespace is Temporal's, as everywhere; --claim-namespace selects disks.`,
		Example: `  ebb report --since 30d -o html --out report.html
  ebb report --since 7d --claim-namespace team-a
  ebb report --since 170d -o csv --csv-hours --out hours.csv`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.runReport(c.Context(), o) },
	}
	f := c.Flags()
	f.Var(&o.since, "since", "how far to look back")
	f.VarP(&o.format, "output", "o", "html, json, yaml, csv or table")
	f.StringVar(&o.out, "out", "", "write it to this file instead of standard output")
	f.BoolVar(&o.csvHours, "csv-hours", false, "with -o csv: a row for each hour of the fleet")
	f.StringVar(&o.selection.Namespace, "claim-namespace", "", "only disks of claims in this Kubernetes namespace")
	f.StringVar(&o.selection.Node, "node", "", "only disks on this EC2 instance")
	f.StringVar(&o.selection.ClassTag, "class-tag", o.selection.ClassTag, "volume tag that names a disk's workload class")
	f.StringVar(&o.region, "region", "", "region whose prices count (default: the volumes')")
	f.StringVar(&o.prices, "prices", "", "price list file instead of the built-in one")
	f.Float64Var(&o.controlCost, "control-cost", 0, "what worker, agents and Temporal cost to run, in USD a month")
	f.StringVar(&o.title, "title", o.title, "the page's title")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"html", "json", "yaml", "csv", "table"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) runReport(ctx context.Context, o reportOptions) error {
	if o.csvHours && o.format.format != "csv" {
		return exit.New(exit.Usage, "--csv-hours is for -o csv")
	}
	if o.controlCost < 0 {
		return exit.New(exit.Usage, "--control-cost: want 0 or more")
	}
	if o.format.format == "html" && o.out == "" && ui.IsTerminal(a.streams.Out) {
		return exit.New(exit.Usage, "a page is not for a terminal").WithNext("--out report.html")
	}
	if err := invalid((contract.InspectInput{Node: o.selection.Node}).Validate()); err != nil {
		return err
	}
	book, err := readPrices(o.prices, o.region)
	if err != nil {
		return err
	}
	var in ledger.Input
	now := time.Now().UTC()
	err = a.withClient(ctx, func(c *control.Client) error {
		var err error
		in, err = fleet.Gather(ctx, c, o.selection, now.Add(-time.Duration(o.since)), now, a.asking())
		return err
	})
	if err != nil {
		return err
	}
	in.Title, in.BuiltIn, in.ControlUSDMonth = o.title, o.prices == "", o.controlCost
	region := cmp.Or(o.region, regionOf(in.Disks), price.DefaultRegion)
	var known bool
	if in.Prices, known = book.In(region); !known {
		in.Region = region
		a.streams.Say("no prices of region %s: counting with those of %s", region, in.Prices.Region)
	}
	for _, m := range in.Missing() {
		a.streams.Say("note: %s", m)
	}
	account := ledger.Sum(in)
	if account.Totals.Disks == 0 {
		a.streams.Say("no disks in this selection")
	}
	if o.out == "" {
		return a.writeReport(a.streams.Out, account, o)
	}
	if err := writeFile(o.out, func(w io.Writer) error { return a.writeReport(w, account, o) }); err != nil {
		return err
	}
	a.streams.Say("wrote %s", o.out)
	return nil
}

// asking tells a person how far the questions are; nobody else.
func (a *app) asking() func(done, all int) {
	if !ui.IsTerminal(a.streams.Err) {
		return nil
	}
	w, began := ui.NewWatcher(a.streams.Err), time.Now()
	return func(done, all int) {
		if done == all {
			w.Close()
		} else if time.Since(began) > time.Second {
			w.Show(ui.State{Title: "asking", Phase: fmt.Sprintf("disk %d of %d", done, all)})
		}
	}
}

// readPrices is the price list, which must have the region that was asked for.
func readPrices(name, region string) (price.Book, error) {
	book := price.BuiltIn()
	if name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return book, invalid(err)
		}
		if book, err = price.Load(data); err != nil {
			return book, exit.New(exit.Usage, "%s: %s", name, err)
		}
	}
	if _, ok := book.In(region); region != "" && !ok {
		return book, exit.New(exit.Usage, "there are no prices of region %q", region).WithNext("give a price list of it with --prices")
	}
	return book, nil
}

var zone = regexp.MustCompile(`^[a-z]+(?:-[a-z]+)+-[0-9]+`)

// regionOf is the region of the volumes, by the zones most of them are in; empty:
// there are none.
func regionOf(disks []ledger.Disk) string {
	count, most := map[string]int{}, ""
	for _, d := range disks {
		if r := zone.FindString(d.Facts.Zone); r != "" {
			count[r]++
			if count[r] > count[most] {
				most = r
			}
		}
	}
	return most
}

func (a *app) writeReport(w io.Writer, r *report.Account, o reportOptions) error {
	switch o.format.format {
	case "html":
		return r.HTML(w)
	case "csv":
		if o.csvHours {
			return r.CSVHours(w)
		}
		return r.CSV(w)
	}
	return ui.Format(o.format.format).Print(w, r, func(w io.Writer) error { return reportTable(w, r) })
}

func reportTable(w io.Writer, r *report.Account) error {
	t, m := r.Totals, r.Money
	pause := ""
	if t.Pauses > 0 {
		pause = fmt.Sprintf("%.1f ms at most, of %d swaps", t.LongestMS, t.Pauses)
	}
	left := fmt.Sprintf("%d refused, %d cancelled, %d failed", t.RefusedOps, t.Cancelled, t.Failed)
	if t.Unread > 0 {
		left += fmt.Sprintf("; of %d the result could not be read", t.Unread)
	}
	back := "not yet"
	if m.Payback >= 0 {
		back = fmt.Sprintf("after %.1f days", m.Payback)
	}
	err := ui.Fields(w,
		ui.Field{Name: "from", Value: fmt.Sprintf("%s to %s", r.From.Format(time.DateTime), r.To.Format(time.DateTime))},
		ui.Field{Name: "disks", Value: fmt.Sprintf("%d, %d of them unknown", t.Disks, t.Unknown)},
		ui.Field{Name: "now", Value: fmt.Sprintf("%s used of %s backing (%.1f%%), for %s of disks", size.Bytes(t.UsedBytes), size.Bytes(t.BackingBytes), 100*t.Utilization, size.Bytes(t.SizeBytes))},
		ui.Field{Name: "utilization", Value: fmt.Sprintf("%.1f%% over the time; %.1f%% of the full sizes", 100*t.MeanUtilization, 100*t.FullUtilization)},
		ui.Field{Name: "on record", Value: fmt.Sprintf("%.0f disk-hours; %.0f are missing", t.DiskHours, t.GapHours)},
		ui.Field{Name: "done", Value: fmt.Sprintf("%d growths (+%d GiB), %d shrinks (-%d GiB), %d moves, %d expansions, %d made, %d deleted; %d running", t.Grows, t.GrownGiB, t.Shrinks, t.GivenGiB, t.Moves, t.Expands, t.Creates, t.Deletes, t.Running)},
		ui.Field{Name: "not done", Value: left},
		ui.Field{Name: "writes held", Value: pause},
		ui.Field{Name: "full size", Value: fmt.Sprintf("$%.2f, the backings $%.2f", m.Full, m.Backing)},
		ui.Field{Name: "Ebb's own cost", Value: fmt.Sprintf("$%.2f", m.OwnSum)},
		ui.Field{Name: "net saving", Value: fmt.Sprintf("$%.2f; $%.2f a month; paid back %s", m.Net, m.NetMonth, back)},
		ui.Field{Name: "prices", Value: fmt.Sprintf("%s, as of %s%s", r.Prices.Region, r.Prices.Date, map[bool]string{true: ", built in"}[r.Prices.BuiltIn])},
	)
	if err != nil {
		return err
	}
	return reportTables(w, r)
}

// reportTables are what there is more than one of.
func reportTables(w io.Writer, r *report.Account) error {
	table := func(head []string, rows [][]string) error {
		if len(rows) == 0 {
			return nil
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return err
		}
		return ui.Table(w, head, rows)
	}
	var rows [][]string
	for _, p := range r.Namespaces {
		rows = append(rows, []string{p.Name, fmt.Sprint(p.Disks), size.Bytes(p.UsedBytes), size.Bytes(p.BackingBytes), size.Bytes(p.SizeBytes), fmt.Sprintf("%.0f%%", 100*p.Utilization()), fmt.Sprintf("$%.2f", p.NetUSD)})
	}
	if err := table([]string{"NAMESPACE", ">DISKS", ">USED", ">BACKING", ">SIZE", ">USED%", ">SAVED"}, rows); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		reasons []report.Reason
	}{{"DONE", r.Done}, {"REFUSED", r.Refused}, {"HELD BACK", r.Held}} {
		rows = nil
		for _, x := range part.reasons {
			rows = append(rows, []string{x.What, fmt.Sprint(x.Times), x.Why})
		}
		if err := table([]string{part.name, ">TIMES", "WHY"}, rows); err != nil {
			return err
		}
	}
	rows = nil
	for _, u := range r.Unknown {
		rows = append(rows, []string{orDash(u.Name), u.Disk, orDash(u.Node), u.Why})
	}
	return table([]string{"UNKNOWN", "DISK", "NODE", "WHY"}, rows)
}
