package simulate

import (
	"fmt"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/trace"
)

// add takes in what another tally has counted.
func (t *tally) add(o *tally) {
	if o.disks == 0 {
		return
	}
	t.room(o.first*hour, (o.first+int64(len(o.hours))-1)*hour)
	for i := range o.hours {
		a, b := &t.hours[o.first-t.first+int64(i)], &o.hours[i]
		a.usedMiBs += b.usedMiBs
		a.backingGiBs += b.backingGiBs
		a.extraGiBs += b.extraGiBs
		a.withoutGiBs += b.withoutGiBs
		a.volumes += b.volumes
		a.extra += b.extra
		a.without += b.without
		a.snapshots += b.snapshots
		a.grows += b.grows
		a.urgent += b.urgent
		a.shrinks += b.shrinks
		a.refused += b.refused
		a.moves += b.moves
	}
	addGroups(t.classes, o.classes)
	addGroups(t.spaces, o.spaces)
	addReasons(t.done, o.done)
	addReasons(t.refused, o.refused)
	t.all.add(&o.all)
	if t.disks == 0 || o.firstAt < t.firstAt {
		t.firstAt = o.firstAt
	}
	t.lastAt = max(t.lastAt, o.lastAt)
	t.disks += o.disks
	t.decisions += o.decisions
	t.firstGiB += o.firstGiB
	t.lastGiB += o.lastGiB
	t.firstUsed += o.firstUsed
	t.lastUsed += o.lastUsed
	t.expands += o.expands
	t.aborted += o.aborted
	t.regrown += o.regrown
	t.oscillations += o.oscillations
	t.nearMisses += o.nearMisses
	t.outOfSpace += o.outOfSpace
	t.ebsRefused += o.ebsRefused
	t.spares += o.spares
	t.waitsTotal += o.waitsTotal
	t.waitedSeconds += o.waitedSeconds
	t.longest = max(t.longest, o.longest)
	t.maxMods = max(t.maxMods, o.maxMods)
	t.movedMiB += o.movedMiB
	t.top = append(t.top, o.top...)
	t.waits = append(t.waits, o.waits...)
	t.swings = append(t.swings, o.swings...)
	t.cut()
}

func addGroups(to, from map[string]*group) {
	for name, g := range from {
		find(to, name).add(g)
	}
}

func addReasons(to, from map[[2]string]*reason) {
	for key, r := range from {
		a := to[key]
		if a == nil {
			c := *r
			to[key] = &c
			continue
		}
		a.times += r.times
		a.gib += r.gib
		if r.weight > a.weight || r.weight == a.weight && better(r.example, a.example) {
			a.weight, a.example = r.weight, r.example
		}
	}
}

func div(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

func (t *tally) result(o *Options) Result {
	days := float64(t.lastAt-t.firstAt) / (24 * 3600)
	r := report.Report{
		Title: o.Title,
		About: "Simulated: a trace of usage was played to Ebb's planner against a model of EBS. Nothing of this has happened.",
		From:  time.Unix(t.firstAt, 0).UTC(), To: time.Unix(t.lastAt, 0).UTC(),
	}
	r.Totals = report.Totals{
		Disks: t.disks, Days: days,
		ProvisionedFirstBytes: t.firstGiB * trace.GiB, ProvisionedLastBytes: t.lastGiB * trace.GiB,
		UtilizationFirst: div(t.firstUsed, t.firstGiB*trace.GiB), UtilizationLast: div(t.lastUsed, t.lastGiB*trace.GiB),
		UtilizationAfterWeek:     div(t.all.usedMiBs, t.all.backingGiBs) / 1024,
		PaidUtilizationAfterWeek: div(t.all.usedMiBs, t.all.backingGiBs+t.all.extraGiBs) / 1024,
		Expands:                  t.expands, MaxModificationsPerDay: t.maxMods,
		OutOfSpace: t.outOfSpace, Waits: int(t.waitsTotal), WaitSeconds: float64(t.waitedSeconds), LongestWaitSeconds: float64(t.longest), NearMisses: t.nearMisses,
		Oscillations: t.oscillations, Regrown: t.regrown, MovedBytes: t.movedMiB * trace.MiB,
	}
	t.series(&r)
	t.reasons(&r)
	t.money(&r, o)
	r.Classes, r.Namespaces = groups(t.classes, t.settledSeconds()), groups(t.spaces, t.settledSeconds())
	r.Operations = t.top
	slices.SortStableFunc(r.Operations, func(a, b report.Operation) int { return a.At.Compare(b.At) })
	r.Notes = t.notes(&r, o)
	return Result{Report: r, EBSRefused: t.ebsRefused, Waits: t.waits, Oscillations: t.swings}
}

// settledSeconds is the time after the first week of the trace.
func (t *tally) settledSeconds() int64 { return max(t.lastAt-t.firstAt-week, 0) }

func (t *tally) series(r *report.Report) {
	each := (len(t.hours) + 719) / 720
	if r := t.lastAt % hour; r == 0 && len(t.hours) > 1 {
		t.hours = t.hours[:len(t.hours)-1] // the trace ends where this hour begins
	}
	for i := 0; i < len(t.hours); i += each {
		part := t.hours[i:min(i+each, len(t.hours))]
		p := report.Point{At: time.Unix((t.first+int64(i))*hour, 0).UTC()}
		var used, backing, extra, without int64
		for _, b := range part {
			used += b.usedMiBs
			backing += b.backingGiBs
			extra += b.extraGiBs
			without += b.withoutGiBs
			p.Grows += int(b.grows)
			p.Urgent += int(b.urgent)
			p.Shrinks += int(b.shrinks)
			p.Refused += int(b.refused)
			r.Totals.PeakPaidBytes = max(r.Totals.PeakPaidBytes, (b.backingGiBs+b.extraGiBs)/3600*trace.GiB)
			r.Totals.MostMovesAtOnce = max(r.Totals.MostMovesAtOnce, int(b.moves))
		}
		s := int64(len(part)) * 3600
		p.UsedBytes, p.BackingBytes, p.PaidBytes, p.WithoutBytes = used/s*trace.MiB, backing/s*trace.GiB, (backing+extra)/s*trace.GiB, without/s*trace.GiB
		r.Series = append(r.Series, p)
		r.Totals.Urgent += p.Urgent
		r.Totals.RefusedTotal += p.Refused
	}
}

func (t *tally) reasons(r *report.Report) {
	for key, v := range t.done {
		switch key[0] {
		case "grow", "grow urgent":
			r.Totals.Grows += v.times
		case "append":
			r.Totals.Grows += v.times
			r.Totals.Appends += v.times
		case "shrink", "fold":
			r.Totals.Shrinks += v.times
		case "change", "retype":
			r.Totals.Changes += v.times
		}
		r.Done = append(r.Done, report.Reason{What: key[0], Why: key[1], Times: v.times, GiB: v.gib, Example: v.example})
	}
	for key, v := range t.refused {
		r.Refused = append(r.Refused, report.Reason{What: key[0], Why: key[1], Times: v.times, GiB: v.gib, Example: v.example})
	}
	report.SortReasons(r.Done)
	report.SortReasons(r.Refused)
}

const secondsPerMonth = 730 * 3600

// money makes months of what was counted.
func (t *tally) money(r *report.Report, o *Options) {
	month := func(n int64) float64 { return div(n, t.settledSeconds()) / 1e9 * secondsPerMonth }
	m := report.Money{
		Without: month(t.all.without), Volumes: month(t.all.volumes), PricedAt: o.Prices.Date, Region: o.Prices.Region, Payback: -1,
		Own: []report.OwnCost{
			{Name: "volumes of moves and retired ones in their grace period", USDMonth: month(t.all.extra)},
			{Name: "snapshots before moves", USDMonth: month(t.all.snapshots)},
			{Name: "worker and Temporal (an assumption)", USDMonth: o.ControlUSDMonth},
		},
	}
	if t.settledSeconds() == 0 {
		m.Own[2].USDMonth = 0
	}
	m.Net = m.Without - m.Volumes
	for _, c := range m.Own {
		m.Net -= c.USDMonth
	}
	each := max((len(t.hours)+359)/360, 1)
	var sum float64
	lost := 0.0 // the last time the sum was below 0, in days
	for i, b := range t.hours {
		sum += float64(b.without-b.volumes-b.extra-b.snapshots)/1e9 - o.ControlUSDMonth/730
		if sum < 0 {
			lost = float64(i+1) / 24
		}
		if i%each == 0 || i == len(t.hours)-1 {
			m.Cumulated = append(m.Cumulated, report.SumPoint{At: time.Unix((t.first+int64(i)+1)*hour, 0).UTC(), USD: sum})
		}
	}
	m.Total = sum
	if sum > 0 {
		m.Payback = lost
	}
	r.Money = m
}

func groups(m map[string]*group, seconds int64) []report.Group {
	out := make([]report.Group, 0, len(m))
	seconds = max(seconds, 1)
	month := func(n int64) float64 { return div(n, seconds) / 1e9 * secondsPerMonth }
	for name, g := range m {
		out = append(out, report.Group{
			Name: name, Disks: g.disks, Grows: g.grows, Shrinks: g.shrinks, OutOfSpace: g.outOfSpace, Waits: g.waits,
			WithoutBytes: g.withoutGiBs / seconds * trace.GiB, BackingBytes: g.backingGiBs / seconds * trace.GiB,
			PaidBytes: (g.backingGiBs + g.extraGiBs) / seconds * trace.GiB, UsedBytes: g.usedMiBs / seconds * trace.MiB,
			WithoutUSDMont: month(g.without), NetUSDMonth: month(g.without - g.volumes - g.extra - g.snapshots),
		})
	}
	report.SortGroups(out)
	return out
}

func (t *tally) notes(r *report.Report, o *Options) []string {
	out := []string{
		"Utilization is what the filesystems use over what the backings have, by bytes and time. What is paid for beside (both volumes during a move, the old one in its grace period) is in the footprint and in the cost.",
		fmt.Sprintf("Ebb lets a write wait for a growth; it fails none. A wait of more than %d seconds, as long as Linux allows an NVMe device for a request by default, counts as out of space here; shorter ones are counted as waits. A near miss is a growth that arrived with less than %d seconds of room left at the rate of that moment.", tolerable, nearSeconds),
		fmt.Sprintf("An oscillation is a shrink followed within %d days by a growth of the same disk, though usage did not rise above the peak the shrink had looked at. %d shrinks were followed by a growth that usage did force.", oscillationDays, t.regrown),
		fmt.Sprintf("Planned every %s; growth does not wait for that. Disks join over the first %s. Every disk is trimmed each hour, and before a growth when that is enough; until then what is deleted stays in the pool and is not written to again.", o.Every, o.Rollout),
		fmt.Sprintf("Prices of %s as of %s. The worker's and Temporal's $%.0f a month are an assumption.", o.Prices.Region, o.Prices.Date, o.ControlUSDMonth),
		fmt.Sprintf("%d decisions; %d moves given up because the disk filled meanwhile; %d volumes begun beside a growth that took long, most of them given up; %d calls that EBS would have refused.", t.decisions, t.aborted, t.spares, t.ebsRefused),
	}
	if b := o.Budgets; b.Moves > 0 || b.ModificationsPerDay > 0 || b.ExtraGiB > 0 || b.MovesPerNode > 0 || b.MovesPerZone > 0 {
		out = append(out, fmt.Sprintf("Budgets are not played: each disk is on its own. Of the policy's %d moves at once, at most %d in one hour would have been wanted.", b.Moves, r.Totals.MostMovesAtOnce))
	}
	return out
}
