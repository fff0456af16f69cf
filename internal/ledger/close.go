package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/report"
)

// close makes the account of what was counted.
func (b *book) close() *report.Account {
	a := b.out
	t := &a.Totals
	t.Known, t.Unknown = len(b.order), len(a.Unknown)
	t.Disks = t.Known + t.Unknown
	t.Utilization = div(float64(t.UsedBytes), float64(t.BackingBytes))
	t.MeanUtilization, t.FullUtilization = div(b.used, b.paid), div(b.used, b.all)
	t.FirstUtilization = div(b.firstUsed, b.firstPaid)
	for _, e := range b.order {
		a.Disks = append(a.Disks, e.line)
	}
	slices.SortStableFunc(a.Disks, func(x, y report.DiskLine) int {
		return cmp.Or(cmp.Compare(y.NetUSD, x.NetUSD), cmp.Compare(x.Disk, y.Disk))
	})
	slices.SortStableFunc(a.Unknown, func(x, y report.Unknown) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Disk, y.Disk))
	})
	a.Namespaces, a.Classes = parts(b.spaces), parts(b.kinds)
	if len(b.kinds) == 1 && b.kinds[none] != nil {
		a.Classes = []report.Part{} // nothing is known of workload classes
	}
	for _, reason := range slices.Sorted(maps.Keys(b.in.Held)) {
		a.Held = append(a.Held, report.Reason{
			What: "held back", Why: reason, Times: b.in.Held[reason],
			Example: report.Example{Disk: "Rightsize", At: b.in.HeldAt.UTC(), Text: "its last look at the fleet"},
		})
	}
	report.SortReasons(a.Held)
	b.series()
	b.money()
	a.Notes = b.notes()
	return a
}

func div(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func parts(groups map[string]*group) []report.Part {
	out := make([]report.Part, 0, len(groups))
	for name, g := range groups {
		out = append(out, report.Part{
			Name: name, Disks: g.disks, Grows: g.grows, Shrinks: g.shrinks, Refused: g.refused, FullUSD: g.full, NetUSD: g.net,
			UsedBytes: int64(g.perDisk(g.used)), BackingBytes: int64(g.perDisk(g.backing)), SizeBytes: int64(g.perDisk(g.size)),
		})
	}
	slices.SortStableFunc(out, func(x, y report.Part) int {
		return cmp.Or(cmp.Compare(y.NetUSD, x.NetUSD), cmp.Compare(x.Name, y.Name))
	})
	return out
}

// perDisk makes byte-hours the bytes of the whole group: its disks' mean, times how
// many they are.
func (g *group) perDisk(byteHours float64) float64 {
	return div(byteHours, g.hours) * float64(g.disks)
}

// series makes samples of the hours, from the first in which anything is known.
func (b *book) series() {
	begun, known := false, false
	var net float64
	for i := range b.hours {
		p := &b.hours[i]
		known = known || p.disks > 0
		net += p.usd - p.own - b.control(int64(i), known)
		begun = begun || known || p.grows+p.shrinks+p.others+p.refused > 0
		if !begun {
			continue
		}
		s := b.share(b.first + int64(i))
		mean := func(byteHours float64) int64 { return int64(div(byteHours, s)) }
		b.out.Hours = append(b.out.Hours, report.Sample{
			At: time.Unix((b.first+int64(i))*3600, 0).UTC(), UsedBytes: mean(p.used), BackingBytes: mean(p.backing), ExtraBytes: mean(p.extra), SizeBytes: mean(p.size),
			Disks: div(p.disks, s), Recorded: div(p.recorded, s), Grows: p.grows, Shrinks: p.shrinks, Other: p.others, Refused: p.refused, NetUSD: net,
		})
	}
	if len(b.out.Hours) > 0 {
		b.out.Series = report.Thin(b.out.Hours, report.MaxSamples)
	}
}

// control is what worker and Temporal cost in an hour, from the first on record on.
func (b *book) control(i int64, begun bool) float64 {
	if !begun {
		return 0
	}
	return b.in.ControlUSDMonth / monthHours * b.share(b.first+i)
}

func (b *book) money() {
	m := &b.out.Money
	m.Full, m.Backing, m.NowMonth = b.full, b.backing, b.nowSaving
	m.Own = []report.Cost{
		{Name: "second volumes while moves went on", USD: b.own[costMoves]},
		{Name: "old volumes in their grace period", USD: b.own[costGrace]},
		{Name: "snapshots before moves", USD: b.own[costSnapshots]},
	}
	var hours, control float64
	lost, sum := 0.0, 0.0
	begun := false
	for i := range b.hours {
		p := &b.hours[i]
		begun = begun || p.disks > 0
		if !begun && p.own == 0 {
			continue
		}
		s, c := b.share(b.first+int64(i)), b.control(int64(i), begun)
		hours += s
		control += c
		if sum += p.usd - p.own - c; sum < -1e-9 {
			lost = hours / 24
		}
	}
	if b.in.ControlUSDMonth > 0 {
		m.Own = append(m.Own, report.Cost{Name: "worker, agents and Temporal, as given", USD: control})
	}
	for _, c := range m.Own {
		m.OwnSum += c.USD
	}
	m.Net = m.Full - m.Backing - m.OwnSum
	m.NetMonth, m.FullMonth = div(m.Net, hours)*monthHours, div(m.Full, hours)*monthHours
	m.Payback = -1
	if m.Net > 0 {
		m.Payback = lost
	}
}

func (b *book) notes() []string {
	t := b.out.Totals
	list := "Ebb's built-in list"
	if !b.in.BuiltIn {
		list = "the list that was given"
	}
	out := []string{
		"Used is what a disk occupies of its backing, the mean of an hour's least and most. Utilization is used over the backings, by bytes and time.",
		"A month has 730 hours. Type and provisioned performance of a backing are taken as they are now; the volume of the full size is taken as just as fast.",
		fmt.Sprintf("Prices: %s, %s as of %s (%s).", list, b.out.Prices.Region, b.out.Prices.Date, b.out.Prices.Source),
		"Ebb's own cost is the second volume of a move for as long as the move took, the old one until it was deleted, and the snapshot before a move, at what was used then, until it was deleted, or until now.",
	}
	if b.in.Region != "" {
		out = append(out, fmt.Sprintf("The volumes are in %s, which the list lacks: the prices of %s stand in for it.", b.in.Region, b.out.Prices.Region))
	}
	if b.in.ControlUSDMonth == 0 {
		out = append(out, "What worker, agents and Temporal cost to run is not counted: give it with --control-cost.")
	}
	if b.estimated {
		out = append(out, "For some old volumes Temporal does not remember when they were deleted: they are counted for the usual grace period of a day.")
	}
	if t.GapHours > 0 {
		out = append(out, fmt.Sprintf("%.0f disk-hours of %.0f are not on record: the picture shows the disks as they last were, the saving leaves these hours out. Ebb's own cost goes on in them.", t.GapHours, t.GapHours+t.DiskHours))
	}
	if t.WithoutHistory > 0 {
		out = append(out, fmt.Sprintf("%d known disks have no hour on record: they are in the present figures only.", t.WithoutHistory))
	}
	if b.expanded {
		out = append(out, "How large a disk was before its own size was raised is not on record: until then its full size is taken to be its backing, which saves nothing.")
	}
	if r := b.in.Retention; r > 0 && b.in.To.Add(-r).After(b.in.From) {
		out = append(out, fmt.Sprintf("Temporal remembers ended operations for %s (the namespace's retention). What is older is known from the disks alone: that a backing changed, not why, and nothing of refusals. The old volumes of those moves are counted for a day, their snapshots are not.", days(r)))
	}
	out = append(out, b.in.Missing()...)
	return append(out, "Disks that were deleted took their hours with them: they are among the operations and not in the sums.")
}

func days(d time.Duration) string {
	if d%(24*time.Hour) == 0 && d > 24*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}
