package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"
)

// What the pages share, and the pages themselves.
var (
	//go:embed style.css
	styleText string
	//go:embed parts.html
	partsText string
	//go:embed page.html
	pageText string
)

// parts are the style and the templates every page is made of.
var parts = template.Must(template.New("parts").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(styleText) }, //nolint:gosec // our own file
	"bytes": Bytes, "usd": usd, "cents": cents, "percent": percent, "count": commas, "gib": func(n int64) string { return Bytes(n << 30) },
	"day": func(t time.Time) string { return t.UTC().Format("2006-01-02") }, "minute": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") },
	"share": func(f float64) string { return fmt.Sprintf("%.1f%%", 100*min(max(f, 0), 1)) },
	"round": func(d time.Duration) string { return d.Round(time.Second).String() },
}).Parse(partsText))

var page = parsed("page", pageText)

// parsed is a page with the parts.
func parsed(name, text string) *template.Template {
	return template.Must(template.Must(parts.Clone()).New(name).Parse(text))
}

// view is what the page is made from.
type view struct {
	*Report
	Footprint, Use, Work, Saved chart
	Tiles                       []tile
	Refusals                    int
	OwnTotal                    float64
}

type tile struct {
	Name, Value, Note string
	Class             string // "good", "bad" or none
}

// HTML writes the report as one page: style and drawings are in it, it asks
// nothing of the network and runs no script.
func (r *Report) HTML(w io.Writer) error {
	v := view{Report: r}
	at, days := []time.Time{}, []time.Time{}
	var used, backing, paid, without, share []float64
	for _, p := range thin(r.Series, 360) {
		at = append(at, p.At)
		used = append(used, float64(p.UsedBytes))
		backing = append(backing, float64(p.BackingBytes))
		paid = append(paid, float64(p.PaidBytes))
		without = append(without, float64(p.WithoutBytes))
		share = append(share, p.Utilization())
	}
	v.Footprint = lines("Footprint over time", chartWidth, at, []curve{
		{name: "without Ebb", class: "without", values: without},
		{name: "paid for", class: "paid", area: true, values: paid},
		{name: "backings", class: "backing", area: true, values: backing},
		{name: "used", class: "used", area: true, values: used},
	}, 0, func(f float64) string { return Bytes(int64(f)) })
	before := make([]float64, len(share))
	for i := range before {
		if without[i] > 0 {
			before[i] = used[i] / without[i]
		}
	}
	v.Use = lines("Utilization over time", chartWidth, at, []curve{
		{name: "without Ebb", class: "without", values: before},
		{name: "with Ebb", class: "backing", values: share},
	}, 1, func(f float64) string { return fmt.Sprintf("%.3g%%", f*100) })
	var grows, urgent, shrinks []float64
	for _, p := range thin(r.Series, 90) {
		days = append(days, p.At)
		grows = append(grows, float64(p.Grows-p.Urgent))
		urgent = append(urgent, float64(p.Urgent))
		shrinks = append(shrinks, float64(p.Shrinks))
	}
	v.Work = bars("Operations over time", chartWidth/2, days, []curve{
		{name: "shrinks", class: "shrink", values: shrinks}, {name: "growths", class: "grow", values: grows}, {name: "urgent growths", class: "urgent", values: urgent},
	}, func(f float64) string { return commas(int(f)) })
	var when []time.Time
	var sums []float64
	for _, s := range r.Money.Cumulated {
		when = append(when, s.At)
		sums = append(sums, s.USD)
	}
	v.Saved = lines("Net saving so far", chartWidth/2, when, []curve{{name: "net saving", class: "saved", area: true, values: sums}}, 0, shortUSD)
	for _, c := range r.Money.Own {
		v.OwnTotal += c.USDMonth
	}
	v.Tiles = r.tiles()
	return page.Execute(w, v)
}

func (r *Report) tiles() []tile {
	t := r.Totals
	payback := "never"
	switch {
	case r.Money.Payback >= 0 && r.Money.Payback < 1:
		payback = "within a day"
	case r.Money.Payback >= 1:
		payback = fmt.Sprintf("%.1f days", r.Money.Payback)
	}
	out := []tile{
		{Name: "utilization", Value: percent(t.UtilizationAfterWeek), Note: fmt.Sprintf("after the first week, by bytes and time; %s at the start", percent(t.UtilizationFirst)), Class: good(t.UtilizationAfterWeek > t.UtilizationFirst)},
		{Name: "provisioned", Value: Bytes(t.ProvisionedLastBytes), Note: "was " + Bytes(t.ProvisionedFirstBytes), Class: good(t.ProvisionedLastBytes < t.ProvisionedFirstBytes)},
		{Name: "net saving", Value: usd(r.Money.Net), Note: "a month, after Ebb's own cost", Class: good(r.Money.Net > 0)},
		{Name: "payback", Value: payback, Note: "until savings have passed all costs", Class: good(r.Money.Payback >= 0)},
		{Name: "out of space", Value: commas(t.OutOfSpace), Note: fmt.Sprintf("waits of more than 30 s for a growth; %s shorter ones, %s near misses", commas(t.Waits-t.OutOfSpace), commas(t.NearMisses)), Class: good(t.OutOfSpace == 0)},
		{Name: "operations", Value: commas(t.Grows + t.Shrinks + t.Changes), Note: fmt.Sprintf("%s growths (%s urgent), %s shrinks, %s copied", commas(t.Grows), commas(t.Urgent), commas(t.Shrinks), Bytes(t.MovedBytes))},
		{Name: "modifications", Value: fmt.Sprint(t.MaxModificationsPerDay), Note: "of one disk in any 24 hours, at most"},
		{Name: "oscillations", Value: commas(t.Oscillations), Note: "shrinks taken back without need", Class: good(t.Oscillations == 0)},
	}
	return out
}

func good(yes bool) string {
	if yes {
		return "good"
	}
	return "bad"
}

// Bytes prints bytes of storage as people price it: in decimal TB and PB above a
// thousand GB, as EBS's sizes below.
func Bytes(b int64) string {
	f := float64(b)
	switch a := math.Abs(f); {
	case a >= 1e15:
		return fmt.Sprintf("%.2f PB", f/1e15)
	case a >= 1e12:
		return fmt.Sprintf("%.1f TB", f/1e12)
	case a >= 1<<30:
		return fmt.Sprintf("%.0f GiB", f/(1<<30))
	case b == 0:
		return "0"
	}
	return fmt.Sprintf("%.1f MiB", f/(1<<20))
}

func percent(f float64) string {
	return fmt.Sprintf("%.1f%%", f*100)
}

func usd(f float64) string {
	sign := ""
	if math.Round(f) < 0 {
		sign = "−"
	}
	return sign + "$" + commas(int(math.Round(math.Abs(f))))
}

// shortUSD is for an axis.
func shortUSD(f float64) string {
	sign := ""
	if f < 0 {
		sign = "−"
	}
	switch a := math.Abs(f); {
	case a >= 1e6:
		return fmt.Sprintf("%s$%.3gM", sign, a/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%s$%.3gk", sign, a/1e3)
	}
	return usd(f)
}

// cents is an amount to the cent, or without cents where they say nothing.
func cents(f float64) string {
	switch {
	case math.Abs(f) >= 1000:
		return usd(f)
	case math.Round(f*100) < 0:
		return fmt.Sprintf("−$%.2f", -f)
	}
	return fmt.Sprintf("$%.2f", math.Abs(f))
}

// commas groups a number's digits.
func commas(n int) string {
	s := fmt.Sprint(n)
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 && s[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}
