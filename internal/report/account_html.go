package report

import (
	_ "embed"
	"fmt"
	"io"
	"time"
)

//go:embed account.html
var accountText string

var accountPage = parsed("account", accountText)

// Most rows of a table on the page; JSON and CSV have all.
const (
	mostDisks      = 50
	mostOperations = 200
	mostUnknown    = 50
)

// accountView is what the page of an account is made from.
type accountView struct {
	*Account
	Footprint, Use, Work, Saved chart
	Tiles                       []tile
	TopDisks                    []DiskLine
	LastOperations              []OperationRow
	SomeUnknown                 []Unknown
}

// HTML writes the account as one page: style and drawings are in it, it asks
// nothing of the network and runs no script.
func (a *Account) HTML(w io.Writer) error {
	v := accountView{Account: a, Tiles: a.tiles()}
	v.TopDisks = a.Disks[:min(len(a.Disks), mostDisks)]
	v.LastOperations = a.Operations[max(len(a.Operations)-mostOperations, 0):]
	v.SomeUnknown = a.Unknown[:min(len(a.Unknown), mostUnknown)]
	var at []time.Time
	var used, backing, paid, full, share, before, net []float64
	for _, s := range Thin(a.Series, MaxSamples) {
		at = append(at, s.At)
		used = append(used, float64(s.UsedBytes))
		backing = append(backing, float64(s.BackingBytes))
		paid = append(paid, float64(s.BackingBytes+s.ExtraBytes))
		full = append(full, float64(s.SizeBytes))
		share = append(share, s.Utilization())
		before = append(before, ratio(s.UsedBytes, s.SizeBytes))
		net = append(net, s.NetUSD)
	}
	v.Footprint = lines("Footprint over time", chartWidth, at, []curve{
		{name: "full size", class: "without", values: full},
		{name: "paid for", class: "paid", area: true, values: paid},
		{name: "backings", class: "backing", area: true, values: backing},
		{name: "used", class: "used", area: true, values: used},
	}, 0, func(f float64) string { return Bytes(int64(f)) })
	v.Use = lines("Utilization over time", chartWidth, at, []curve{
		{name: "at full size", class: "without", values: before},
		{name: "with Ebb", class: "backing", values: share},
	}, 1, func(f float64) string { return fmt.Sprintf("%.3g%%", f*100) })
	v.Saved = lines("Net saving so far", chartWidth/2, at, []curve{{name: "net saving", class: "saved", area: true, values: net}}, 0, shortUSD)

	var when []time.Time
	var grows, shrinks, others, refused []float64
	for _, s := range Thin(a.Series, 90) {
		when = append(when, s.At)
		grows = append(grows, float64(s.Grows))
		shrinks = append(shrinks, float64(s.Shrinks))
		others = append(others, float64(s.Other))
		refused = append(refused, float64(s.Refused))
	}
	v.Work = bars("Operations over time", chartWidth/2, when, []curve{
		{name: "shrinks", class: "shrink", values: shrinks},
		{name: "growths", class: "grow", values: grows},
		{name: "others", class: "other", values: others},
		{name: "refused or failed", class: "urgent", values: refused},
	}, func(f float64) string { return commas(int(f)) })
	return accountPage.Execute(w, v)
}

func (a *Account) tiles() []tile {
	t, m := a.Totals, a.Money
	payback := "not yet"
	switch {
	case m.Payback >= 0 && m.Payback < 1:
		payback = "within a day"
	case m.Payback >= 1:
		payback = fmt.Sprintf("%.1f days", m.Payback)
	}
	pause, note := "none", "no move was made"
	if t.Pauses > 0 {
		pause, note = fmt.Sprintf("%.1f ms", t.LongestMS), fmt.Sprintf("the longest that a move held writes, of %s swaps", commas(t.Pauses))
	}
	return []tile{
		{Name: "utilization now", Value: percent(t.Utilization), Note: fmt.Sprintf("%s over the time; %s at full size", percent(t.MeanUtilization), percent(t.FullUtilization)), Class: good(t.MeanUtilization >= t.FullUtilization)},
		{Name: "paid for now", Value: Bytes(t.BackingBytes), Note: fmt.Sprintf("for %s of disks with %s used", Bytes(t.SizeBytes), Bytes(t.UsedBytes)), Class: good(t.BackingBytes <= t.SizeBytes)},
		{Name: "net saving", Value: usd(m.Net), Note: fmt.Sprintf("after Ebb's own %s; %s a month", usd(m.OwnSum), usd(m.NetMonth)), Class: good(m.Net >= 0)},
		{Name: "payback", Value: payback, Note: "until savings had passed Ebb's own cost for good", Class: good(m.Payback >= 0 || m.OwnSum == 0)},
		{Name: "operations done", Value: commas(t.Grows + t.Shrinks + t.Moves + t.Expands + t.Creates + t.Deletes), Note: fmt.Sprintf("%s growths, %s shrinks; %s copied", commas(t.Grows), commas(t.Shrinks), Bytes(t.CopiedBytes))},
		{Name: "refused or failed", Value: commas(t.RefusedOps + t.Failed), Note: fmt.Sprintf("%s refused with a reason, %s failed, %s cancelled", commas(t.RefusedOps), commas(t.Failed), commas(t.Cancelled)), Class: map[bool]string{true: "bad"}[t.Failed > 0]},
		{Name: "writes held", Value: pause, Note: note},
		{Name: "on record", Value: percent(recorded(t)), Note: fmt.Sprintf("of the time; %s of %s disks are known", commas(t.Known), commas(t.Disks)), Class: map[bool]string{true: "bad"}[t.Unknown > 0]},
	}
}

// recorded is the share of the disks' time that is on record.
func recorded(t Sums) float64 {
	if t.DiskHours+t.GapHours == 0 {
		return 0
	}
	return t.DiskHours / (t.DiskHours + t.GapHours)
}
