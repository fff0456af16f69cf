package simulate

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/trace"
	"github.com/ebb-storage/ebb/internal/usage"
)

// ask asks the planner.
func (p *player) ask() (plan.Decision, plan.History) {
	now := time.Unix(p.now, 0).UTC()
	f := p.facts
	f.FilesystemUsedBytes = int64(p.used)
	f.UsedBytes = int64(min(p.mapped(), float64(p.pool)))
	f.Full = p.waiting != never
	f.FillRate = p.measured(p.now)
	f.Modified = p.modified()
	h := usage.Summarize(now, p.past(), p.rule.LookBack)
	if len(f.Modified) > 1 { // it does not count before
		f.DayPeakBytes = usage.Summarize(now, p.past(), day).PeakUsedBytes
	}
	p.tally.decisions++
	return plan.Decide(now, f, h, p.rule, p.o.Limits, p.o.Prices), h
}

// decide asks the planner and does as it says.
func (p *player) decide(i int) {
	lacks := p.lacks(p.mapped(), p.measured(p.now))
	if p.move != nil && lacks {
		// A growth that goes before a move under way.
		p.abort("the disk needs room at once")
	}
	d, h := p.ask()
	if d.Action == plan.None {
		if lacks {
			p.retry = p.now + asksAgain
		}
		if d.Wanted != plan.None && d.Why != p.refused {
			p.tally.refusal(p, d)
		}
		p.refused = d.Why
		return
	}
	p.refused = plan.WhyNone
	switch d.Action {
	case plan.Grow:
		p.grow(d, time.Unix(p.now, 0).UTC(), i)
	case plan.Append:
		p.append(d, i)
	case plan.Shrink:
		p.shrink(d, h)
	case plan.Retype:
		p.retype(d, time.Unix(p.now, 0).UTC())
	}
}

// retype changes the volume in place: the price from now on, and no other modification
// while EBS works on it.
func (p *player) retype(d plan.Decision, now time.Time) {
	v := &p.facts.Volumes[0]
	if !p.ebs.allows(now, *v, v.GiB) {
		p.tally.ebsRefused++
		return
	}
	modified(v, now)
	p.modification()
	v.OptimizingUntil = now.Add(p.ebs.modify() + p.ebs.optimize(v.GiB))
	v.Type, v.IOPS, v.ThroughputMiBs = d.Type, d.IOPS, d.ThroughputMiBs
	p.resized()
	p.operation("retype", d, p.backingGiB, p.backingGiB, p.now)
}

// past is as much of the records as the planner looks at: what is older changes
// no decision, only the time it takes to make it.
func (p *player) past() []usage.Record {
	if p.o.whole {
		return p.records
	}
	n := int(max(p.rule.LookBack, p.rule.ShrinkQuiet, 24*time.Hour)/time.Hour) + 25
	return p.records[max(len(p.records)-n, 0):]
}

func (p *player) grow(d plan.Decision, now time.Time, i int) {
	k := -1
	for n, v := range p.facts.Volumes {
		if v.ID == d.Volume {
			k = n
		}
	}
	if k < 0 || !p.ebs.allows(now, p.facts.Volumes[k], d.VolumeGiB) {
		p.tally.ebsRefused++
		p.retry = p.now + asksAgain
		return
	}
	v := &p.facts.Volumes[k]
	took := p.ebs.modify()
	modified(v, now)
	p.modification()
	g := &growth{d: d, began: p.now, volume: k, newGiB: d.VolumeGiB, fromGiB: v.GiB}
	g.at = p.now + seconds(took)
	v.OptimizingUntil = now.Add(took + p.ebs.optimize(d.VolumeGiB))
	p.begun(g)
	p.checkOscillation(i)
}

// hurry sets when another volume is begun beside a growth that takes too long for
// how soon the pool is full. It is called when a growth begins, and when the rate
// changes while one is waited for.
func (p *player) hurry() {
	if g := p.growth; g != nil && g.spare == nil {
		g.loses = max(g.began+seconds(patience(p.timeToFull())), p.now+senses)
	}
}

// spare begins another volume: beside a modification as large as the planner says
// now, beside another volume as that one. One more is begun when this takes as long
// again. The first of them that can be used is.
func (p *player) spare(g *growth) {
	g.loses = never
	d := g.d
	if g.volume >= 0 {
		if d, _ = p.ask(); d.Action != plan.Append {
			return // room enough, or no modification left
		}
	}
	first, second := seconds(p.ebs.create()), seconds(patience(p.timeToFull()))+seconds(p.ebs.create())
	g.spare = &growth{d: d, began: p.now, volume: -1, newGiB: d.VolumeGiB, at: p.now + min(first, second), loses: never}
	p.tally.spares++
}

// arrived is when a growth can be used, or the volume beside it. What comes later is
// given up, but for a modification, which EBS does not take back, and for a volume
// when room is lacking even so.
func (p *player) arrived(g *growth) {
	s := g.spare
	p.growth, g.spare = nil, nil
	switch {
	case g.at <= p.now:
		p.grown(g)
		if s == nil || g.volume < 0 || !p.lacks(p.mapped(), p.measured(p.now)) {
			return
		}
		p.modification()
		if s.at <= p.now {
			p.grown(s)
			return
		}
		p.growth = s
	default:
		if g.volume >= 0 {
			p.late = append(p.late, *g)
			p.modification()
		}
		p.grown(s)
	}
}

// timeToFull as usage goes on now, 0 when it does not rise. While a growth is waited
// for the agent measures the rate, even where it did not know it at first.
func (p *player) timeToFull() time.Duration {
	if p.rate <= 0 {
		return 0
	}
	return time.Duration(min(max(float64(p.pool)-p.mapped(), 1)/p.rate, 1e6) * float64(time.Second))
}

func (p *player) append(d plan.Decision, i int) {
	p.modification()
	p.begun(&growth{d: d, began: p.now, volume: -1, newGiB: d.VolumeGiB, at: p.now + seconds(p.ebs.create())})
	p.checkOscillation(i)
}

// begun waits for a growth.
func (p *player) begun(g *growth) {
	p.growth = g
	p.hurry()
}

func seconds(d time.Duration) int64 { return max(int64((d+time.Second-1)/time.Second), 1) }

// grown is when new room can be used.
func (p *player) grown(g *growth) {
	from := p.backingGiB
	if g.volume >= 0 {
		p.facts.Volumes[g.volume].GiB = g.newGiB
	} else {
		p.made++
		p.facts.Volumes = append(p.facts.Volumes, plan.Volume{
			ID: "vol-" + strconv.Itoa(p.made), GiB: g.newGiB, Type: g.d.Type, IOPS: g.d.IOPS, ThroughputMiBs: g.d.ThroughputMiBs,
		})
	}
	if p.rate > 0 && p.waiting == never && float64(p.pool)-p.mapped() < p.rate*nearSeconds {
		p.tally.near(p)
	}
	p.overhead += (g.newGiB-g.fromGiB)*trace.GiB/1000 + 4*trace.MiB
	p.resized()
	what := "grow"
	if g.volume < 0 {
		what = "append"
	}
	p.operation(what, g.d, from, p.backingGiB, g.began)
}

// nearSeconds of writing left, when a growth arrives, is a near miss.
const nearSeconds = 10

func (p *player) shrink(d plan.Decision, h plan.History) {
	n := max(d.Stripes, 1)
	v := plan.Volume{GiB: d.VolumeGiB, Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs}
	mibs := p.o.Limits.CopyMiBs
	if p.rule.ThrottleMiBs > 0 {
		mibs = min(mibs, float64(p.rule.ThrottleMiBs))
	}
	took := setUp + time.Duration(2*float64(d.CopyBytes)/float64(trace.MiB)/mibs*1e9) // copied and compared
	gib := d.VolumeGiB * int64(n)
	p.move = &move{
		began: p.now, at: p.now + seconds(took), d: d, gib: gib, pool: gib*trace.GiB - plan.OverheadBytes(gib),
		month: p.o.Prices.VolumeMonth(v) * float64(n), peak: max(h.PeakUsedBytes, int64(p.used)),
	}
	p.tally.moving(p.now, p.move.at)
	if p.rule.Snapshot {
		p.tally.snapshot(p, plan.For(p.used/float64(trace.GiB)*p.o.Prices.SnapshotGiBMonth, p.rule.SnapshotRetention))
	}
	p.extras()
}

// moved is when a move is committed.
func (p *player) moved(m *move) {
	from := p.backingGiB
	p.move = nil
	p.tally.moved(p, m.d.CopyBytes, p.o.Prices.CopyGiB*float64(m.d.CopyBytes)/float64(trace.GiB))
	p.retired = append(p.retired, retired{until: p.now + int64(p.rule.GracePeriod/time.Second), gib: p.backingGiB, month: p.volumesUSD})
	p.facts.Volumes = p.facts.Volumes[:0]
	for range max(m.d.Stripes, 1) {
		p.made++
		p.facts.Volumes = append(p.facts.Volumes, plan.Volume{
			ID: "vol-" + strconv.Itoa(p.made), GiB: m.d.VolumeGiB, Type: m.d.Type, IOPS: m.d.IOPS, ThroughputMiBs: m.d.ThroughputMiBs,
		})
	}
	p.late = p.late[:0]
	p.facts.Striped = m.d.Stripes > 1
	p.rebuilt()
	if p.backingGiB < from {
		p.lastShrink = &shrunk{at: p.now, from: from, to: p.backingGiB, peak: m.peak}
	}
	what := "shrink"
	switch {
	case m.d.Fold:
		what = "fold"
	case p.backingGiB == from:
		what = "change"
	}
	p.operation(what, m.d, from, p.backingGiB, m.began)
}

// abort gives a move up: what was copied and its snapshot are lost.
func (p *player) abort(format string, args ...any) {
	m := p.move
	p.move = nil
	p.extras()
	d := m.d
	d.Reason = fmt.Sprintf(format, args...)
	p.tally.aborted++
	p.operation("abort", d, p.backingGiB, p.backingGiB, m.began)
}

// modification counts one of the disk's: a call to modify one of its volumes, or a
// volume that was appended.
func (p *player) modification() {
	p.mods = append(p.modified(), time.Unix(p.now, 0).UTC())
	p.tally.maxMods = max(p.tally.maxMods, len(p.mods))
}

// modified is when the modifications of the last 24 hours were.
func (p *player) modified() []time.Time {
	gone := 0
	for gone < len(p.mods) && p.mods[gone].Unix() <= p.now-24*hour {
		gone++
	}
	p.mods = slices.Delete(p.mods, 0, gone)
	return p.mods
}

func (p *player) expand(gib int64) {
	p.original.GiB = gib
	p.facts.SizeBytes = gib * trace.GiB
	p.tally.expands++
	p.resized()
}

func (p *player) operation(what string, d plan.Decision, from, to, began int64) {
	op := report.Operation{
		At: time.Unix(began, 0).UTC(), Disk: p.d.ID, Namespace: p.d.Namespace, Class: p.d.Class, What: what, Urgent: d.Urgent,
		FromGiB: from, ToGiB: to, UsedBytes: int64(p.used), Took: time.Duration(p.now-began) * time.Second, Why: d.Reason,
	}
	p.tally.operation(op)
	if p.o.Operation != nil {
		p.ops = append(p.ops, op)
	}
}

// oscillationDays: an oscillation is a shrink that is followed by a growth of the
// same disk within so many days, although usage did not go beyond what had been
// seen when the shrink was decided: neither up to the growth nor in the hour after
// it (growth goes ahead of a fill) was more used than the greatest use in the
// planner's look-back window before the shrink.
const oscillationDays = 7

func (p *player) checkOscillation(i int) {
	s := p.lastShrink
	if s == nil {
		return
	}
	p.lastShrink = nil
	if p.now-s.at > oscillationDays*24*hour {
		return
	}
	peak := p.peak(s.at, p.now+hour, i)
	if peak > s.peak {
		p.tally.regrown++
		return
	}
	p.tally.oscillation(p, fmt.Sprintf("%s: shrunk from %d to %d GiB at %s with %s as the peak, grows at %s with %s",
		p.d.ID, s.from, s.to, time.Unix(s.at, 0).UTC().Format(time.RFC3339), plan.Bytes(s.peak),
		time.Unix(p.now, 0).UTC().Format(time.RFC3339), plan.Bytes(peak)))
}

// peak is the greatest use from one time to another; i is the sample after now.
func (p *player) peak(from, to int64, i int) int64 {
	var peak int64
	s := p.d.Samples
	for k := i; k > 0 && s[k].At > from; k-- {
		peak = max(peak, at(s[k-1], s[k], from), at(s[k-1], s[k], min(s[k].At, to)))
	}
	for k := i + 1; k < len(s) && s[k-1].At < to; k++ {
		peak = max(peak, at(s[k-1], s[k], to))
	}
	return peak
}

// at is the use at a moment, or at the end of the line that is nearer to it.
func at(a, b trace.Sample, when int64) int64 {
	when = min(max(when, a.At), b.At)
	return trace.Between(a, b, when).Used
}
