package ledger

import (
	"cmp"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
)

// book is the account in the making.
type book struct {
	in    Input
	first int64 // hour of hours[0]
	hours []hour
	out   *report.Account

	expansions map[contract.DiskID]time.Time // the last of each disk

	disks  map[contract.DiskID]*entry
	order  []*entry
	spaces map[string]*group
	kinds  map[string]*group

	own             [3]float64 // what Ebb cost, by cost
	full, backing   float64    // USD
	used, paid, all float64    // byte-hours on record
	expanded        bool       // a disk's full size was not always what it is
	firstUsed       float64    // byte-hours of each disk's first day on record
	firstPaid       float64
	nowSaving       float64 // USD a month
	estimated       bool    // the time a volume was retired for was not on record
}

// The parts of Ebb's own cost.
const (
	costMoves = iota
	costGrace
	costSnapshots
)

// hour of the fleet.
type hour struct {
	used, backing, extra, size      float64 // byte-hours
	disks, recorded                 float64 // hours
	grows, shrinks, others, refused int
	usd, own                        float64 // saved before, and cost
}

// entry is a disk in the book.
type entry struct {
	Disk
	line     report.DiskLine
	price    tariff
	groups   [2]*group
	expanded time.Time // the last time its own size was raised
	recorded float64
}

// group is a part of the fleet.
type group struct {
	disks                   int
	used, backing, size     float64 // byte-hours
	hours                   float64 // that anything of it is on record
	full, net               float64 // USD
	grows, shrinks, refused int
}

func newBook(in Input) *book {
	b := &book{
		in: in, disks: map[contract.DiskID]*entry{}, spaces: map[string]*group{}, kinds: map[string]*group{},
		first: in.From.Unix() / 3600,
		out: &report.Account{
			Format: report.AccountFormat, Title: in.Title, From: in.From, To: in.To, Scope: in.Scope,
			About:  "From what the disks themselves remember, and what Temporal does of operations.",
			Prices: report.PriceList{Region: in.Prices.Region, Date: in.Prices.Date, Source: in.Prices.Source, BuiltIn: in.BuiltIn},
			Series: []report.Sample{}, Namespaces: []report.Part{}, Classes: []report.Part{}, Disks: []report.DiskLine{}, Unknown: []report.Unknown{},
			Done: []report.Reason{}, Refused: []report.Reason{}, Held: []report.Reason{}, Operations: []report.OperationRow{},
		},
	}
	last := (in.To.Unix() - 1) / 3600
	b.hours = make([]hour, max(last-b.first+1, 0))
	slices.SortStableFunc(b.in.Operations, func(x, y Operation) int {
		return cmp.Or(x.Began.Compare(y.Began), cmp.Compare(x.Disk, y.Disk))
	})
	b.expansions = map[contract.DiskID]time.Time{}
	for _, o := range b.in.Operations {
		if o.Workflow == contract.ExpandWorkflow && mayBeDone(o) && o.Ended.After(b.expansions[o.Disk]) {
			b.expansions[o.Disk] = o.Ended
		}
	}
	slices.SortStableFunc(b.in.Disks, func(x, y Disk) int { return cmp.Compare(x.Facts.Disk, y.Facts.Disk) })
	return b
}

// share of the hour that begins at h (Unix time / 3600) that lies in the report's
// time, 0 to 1.
func (b *book) share(h int64) float64 {
	from, to := max(h*3600, b.in.From.Unix()), min((h+1)*3600, b.in.To.Unix())
	return float64(max(to-from, 0)) / 3600
}

// at is the hour of a moment; nil outside of the report's time.
func (b *book) at(t time.Time) *hour {
	i := t.Unix()/3600 - b.first
	if i < 0 || i >= int64(len(b.hours)) {
		return nil
	}
	return &b.hours[i]
}

// tariff is what a disk's backing costs, and what its full size would.
type tariff struct {
	gib   float64 // USD an hour for each GiB of backing
	extra float64 // USD an hour for provisioned performance
	// full is USD an hour as one gp3 volume of a size.
	full func(bytes int64) float64
}

// tariffOf goes by the present volumes: type and performance are not on record.
// The volume of the full size is as fast as the disk's fastest now, so that
// performance is neither a saving nor a cost of Ebb.
func tariffOf(p plan.Prices, vs []plan.Volume) tariff {
	var gib, usd float64
	fast := plan.Volume{Type: "gp3"}
	for _, v := range vs {
		gib += float64(v.GiB)
		usd += float64(v.GiB) * p.Types[v.Type].GiB
		iops, mibs := plan.Delivered(contract.VolumeFacts{SizeGiB: v.GiB, Type: v.Type, IOPS: v.IOPS, ThroughputMiBs: v.ThroughputMiBs})
		fast.IOPS, fast.ThroughputMiBs = max(fast.IOPS, iops), max(fast.ThroughputMiBs, mibs)
	}
	month := plan.Month.Hours()
	t := tariff{gib: p.Types["gp3"].GiB / month}
	if gib > 0 {
		t.gib = usd / gib / month
		t.extra = (p.BackingMonth(vs) - usd) / month
	}
	t.full = func(bytes int64) float64 {
		v := fast
		v.GiB = plan.CeilGiB(bytes)
		return p.VolumeMonth(v) / month
	}
	return t
}

func (b *book) disk(d Disk) {
	f := d.Facts
	backing := f.BackingGiB() * contract.GiB
	if d.Unknown != "" {
		b.out.Unknown = append(b.out.Unknown, report.Unknown{Disk: string(f.Disk), Name: f.Name, Node: f.Node, BackingBytes: backing, Why: d.Unknown})
		return
	}
	e := &entry{Disk: d, price: tariffOf(b.in.Prices, f.Volumes)}
	e.groups = [2]*group{find(b.spaces, cmp.Or(f.Namespace, none)), find(b.kinds, cmp.Or(d.Class, none))}
	e.line = report.DiskLine{
		Disk: string(f.Disk), Name: f.Name, Namespace: f.Namespace, Class: d.Class, Node: f.Node,
		UsedBytes: f.UsedBytes, BackingBytes: backing, SizeBytes: f.SizeBytes,
	}
	for _, g := range e.groups {
		g.disks++
	}
	e.expanded = b.expansions[f.Disk]
	t := &b.out.Totals
	t.SizeBytes += f.SizeBytes
	t.BackingBytes += backing
	t.UsedBytes += f.UsedBytes
	b.nowSaving += (e.price.full(f.SizeBytes) - float64(f.BackingGiB())*e.price.gib - e.price.extra) * plan.Month.Hours()
	b.disks[f.Disk] = e
	b.order = append(b.order, e)
	b.past(e)
}

// none is the group of disks that belong to no other.
const none = "(none)"

func find(m map[string]*group, name string) *group {
	if m[name] == nil {
		m[name] = &group{}
	}
	return m[name]
}

// past counts a disk's hours. Between two of them, and after the last, the disk is
// taken as it last was, for the picture; money is counted by what is on record.
func (b *book) past(e *entry) {
	first, last := b.first, b.first+int64(len(b.hours))-1
	next := first // the hour to fill next
	var was *contract.HistoryHour
	fill := func(to int64) {
		for h := next; was != nil && h < to; h++ {
			b.level(e, h, was, false)
			b.out.Totals.GapHours += b.share(h)
		}
	}
	for i := range e.Hours {
		r := &e.Hours[i]
		h := r.Hour.Unix() / 3600
		if h < next || h > last || r.BackingBytes <= 0 {
			if h < first && r.BackingBytes > 0 {
				continue // before the time: what was then says nothing about its begin
			}
			continue
		}
		fill(h)
		b.record(e, h, r)
		was, next = r, h+1
	}
	fill(last + 1)
	if was == nil {
		b.out.Totals.WithoutHistory++
	}
	e.line.Hours = e.recorded
}

// mean of what was used in an hour.
func mean(r *contract.HistoryHour) float64 {
	return (float64(r.UsedMinBytes) + float64(r.UsedMaxBytes)) / 2
}

// size is the disk's own size in an hour. How large it was before it was expanded
// is not on record: then its backing counts, which saves nothing.
func (b *book) size(e *entry, h int64, backing int64) int64 {
	if h*3600 < e.expanded.Unix() && !e.expanded.IsZero() {
		b.expanded = true
		return min(backing, e.Facts.SizeBytes)
	}
	return e.Facts.SizeBytes
}

// level adds a disk's hour to the picture.
func (b *book) level(e *entry, h int64, r *contract.HistoryHour, recorded bool) {
	s := b.share(h)
	p := &b.hours[h-b.first]
	p.used += mean(r) * s
	p.backing += float64(r.BackingBytes) * s
	p.size += float64(b.size(e, h, r.BackingBytes)) * s
	p.disks += s
	if recorded {
		p.recorded += s
	}
}

// record adds an hour on record to everything.
func (b *book) record(e *entry, h int64, r *contract.HistoryHour) {
	b.level(e, h, r, true)
	s := b.share(h)
	bytes := b.size(e, h, r.BackingBytes)
	backing := (float64(r.BackingBytes)/float64(contract.GiB)*e.price.gib + e.price.extra) * s
	full := e.price.full(bytes) * s
	if bytes != e.Facts.SizeBytes {
		full = backing // before an expansion: no saving
	}
	used, paid, all := mean(r)*s, float64(r.BackingBytes)*s, float64(bytes)*s
	b.full, b.backing = b.full+full, b.backing+backing
	b.used, b.paid, b.all = b.used+used, b.paid+paid, b.all+all
	b.hours[h-b.first].usd += full - backing
	if e.recorded < 24 {
		b.firstUsed += used
		b.firstPaid += paid
	}
	for _, g := range e.groups {
		g.used, g.backing, g.size, g.hours = g.used+used, g.backing+paid, g.size+all, g.hours+s
		g.full, g.net = g.full+full, g.net+full-backing
	}
	e.line.NetUSD += full - backing
	e.recorded += s
	b.out.Totals.DiskHours += s
}

// spend counts what Ebb cost from one moment to another, for bytes at a price in
// USD an hour.
func (b *book) spend(kind int, e *entry, from, to time.Time, bytes int64, usd float64) {
	if from.Before(b.in.From) {
		from = b.in.From
	}
	if to.After(b.in.To) {
		to = b.in.To
	}
	for at := from; at.Before(to); {
		end := at.Truncate(time.Hour).Add(time.Hour)
		if end.After(to) {
			end = to
		}
		p := b.at(at)
		if p == nil {
			return
		}
		hours := end.Sub(at).Hours()
		cost := hours * usd
		p.own += cost
		if kind != costSnapshots {
			p.extra += float64(bytes) * hours
		}
		b.own[kind] += cost
		if e != nil {
			e.line.NetUSD -= cost
			for _, g := range e.groups {
				g.net -= cost
			}
		}
		at = end
	}
}
