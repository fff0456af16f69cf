package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/trace"
	"github.com/ebb-storage/ebb/internal/usage"
)

const (
	hour = int64(3600)
	day  = 24 * time.Hour
	// senses is how long an agent needs to measure a new fill rate, in seconds. The
	// pool's low-water mark, which is set beforehand, needs no such time.
	senses = 10
	// asksAgain is after how many seconds an agent repeats what it could not have.
	asksAgain = 15
	never     = int64(1) << 62
)

// player plays one disk after the other.
type player struct {
	o     *Options
	tally *tally
	ops   []report.Operation // of the present disk

	d    *trace.Disk
	rule plan.Rule
	on   bool // a policy selects the disk
	ebs  ebs
	join int64 // Unix seconds from which on it is planned
	tick int64 // hours between rounds, and this disk's turn among them
	turn int64

	now      int64
	facts    plan.Facts // Volumes: the backing as EC2 has it now
	original plan.Volume
	overhead int64
	pool     int64 // bytes
	records  []usage.Record
	hour     usage.Record // the present one

	used    float64 // as the filesystem counts, now
	rate    float64 // bytes a second in the present line
	since   int64   // when this rate began
	stale   float64 // mapped in the pool, but not used: deleted since the last trim
	growth  *growth
	late    []growth // modifications that took too long; other volumes took their places
	move    *move
	retired []retired
	made    int   // volumes ever, for their names
	retry   int64 // no question to the planner before, under pressure
	refused plan.Why
	waiting int64 // since when writes wait; never: they do not
	waitFor string
	mods    []time.Time // modifications of the disk, in the last 24 hours or more

	// What is paid for now, worked out when it changes.
	backingGiB, extraGiB              int64
	volumesUSD, extraUSD, originalUSD float64 // a month
	lastShrink                        *shrunk
}

// growth is a modification or a new volume on its way.
type growth struct {
	at      int64
	d       plan.Decision
	began   int64
	volume  int // index; the new one: -1
	newGiB  int64
	fromGiB int64

	loses int64   // when patience with it is lost; never: it is not
	spare *growth // another volume, begun then
}

// move is a move on its way.
type move struct {
	began, at int64
	d         plan.Decision
	pool      int64 // of the new backing
	month     float64
	gib       int64
	peak      int64
}

// retired is an old backing in its grace period.
type retired struct {
	until int64
	gib   int64
	month float64
}

// shrunk remembers a shrink, to tell an oscillation.
type shrunk struct {
	at   int64
	from int64
	to   int64
	peak int64 // what had been used at most, as far as the planner looked
}

func newPlayer(o *Options) *player { return &player{o: o, tally: newTally()} }

// play plays a whole disk.
func (p *player) play(d *trace.Disk) {
	first, last := d.Samples[0], d.Samples[len(d.Samples)-1]
	*p = player{o: p.o, tally: p.tally, ops: p.ops[:0], records: p.records[:0], mods: p.mods[:0], retired: p.retired[:0], late: p.late[:0], d: d}
	seed := uint64(draw(p.o.Seed, d.ID, "ebs") * (1 << 53))
	p.ebs = ebs{rand.New(rand.NewPCG(p.o.Seed, seed)), p.o.Limits} //nolint:gosec // it is to be repeatable, not secret
	p.tick = int64(p.o.Every / time.Hour)
	p.turn = int64(draw(p.o.Seed, d.ID, "turn") * float64(p.tick))
	p.join = first.At + int64(draw(p.o.Seed, d.ID, "join")*p.o.Rollout.Seconds())
	p.now, p.waiting = first.At, never
	p.original = plan.Volume{ID: "vol-0", GiB: plan.CeilGiB(first.Capacity), Type: d.Volume.Type, IOPS: d.Volume.IOPS, ThroughputMiBs: d.Volume.ThroughputMiBs}
	if p.original.Type == "" {
		p.original.Type = "gp3"
	}
	if t := p.o.Limits.Types[p.original.Type]; t.MaxIOPS > 0 {
		p.original.IOPS = max(p.original.IOPS, t.BaseIOPS)
		p.original.ThroughputMiBs = max(p.original.ThroughputMiBs, t.BaseMiBs)
	}
	p.facts = plan.Facts{
		Disk: contract.DiskID(d.ID), Name: d.Claim, Cluster: d.Cluster, Namespace: d.Namespace, Claim: d.Claim, StorageClass: d.StorageClass,
		Node: d.Node, Zone: d.Zone, Labels: map[string]string{"class": d.Class},
		SizeBytes: p.original.GiB * trace.GiB, Volumes: []plan.Volume{p.original},
	}
	p.rule, p.on = p.o.Rule(p.facts)
	p.used = float64(first.Used)
	p.rebuilt()
	p.begin(p.now / hour)
	p.tally.begin(d, first.At, last.At, p.original.GiB, first.Used)
	for i := 1; i < len(d.Samples); i++ {
		p.line(d.Samples[i-1], d.Samples[i], i)
	}
	p.end()
}

// rebuilt is after a new backing was made in one piece.
func (p *player) rebuilt() {
	p.overhead = plan.OverheadBytes(p.facts.BackingGiB())
	p.resized()
}

// resized is after any change of the volumes.
func (p *player) resized() {
	p.backingGiB = p.facts.BackingGiB()
	p.facts.OverheadBytes = p.overhead
	p.pool = p.backingGiB*trace.GiB - p.overhead
	p.volumesUSD = p.o.Prices.BackingMonth(p.facts.Volumes)
	p.originalUSD = p.o.Prices.VolumeMonth(p.original)
	p.retry = 0
	p.extras()
}

// extras works out what is paid for beside the backing.
func (p *player) extras() {
	p.extraGiB, p.extraUSD = 0, 0
	if m := p.move; m != nil {
		p.extraGiB += m.gib
		p.extraUSD += m.month
	}
	for _, r := range p.retired {
		p.extraGiB += r.gib
		p.extraUSD += r.month
	}
}

// managed tells whether Ebb has the disk already: before, it is a plain volume.
func (p *player) managed() bool { return p.on && p.now >= p.join }

// mapped is what the pool has mapped: at most the whole disk.
func (p *player) mapped() float64 { return min(p.used+p.stale, float64(p.facts.SizeBytes)) }

func (p *player) begin(h int64) {
	m := int64(p.mapped())
	p.hour = usage.Record{Hour: h, UsedMin: m, UsedMax: m, FSUsedMax: int64(p.used), BackingBytes: p.backingGiB * trace.GiB}
}

// line plays from one sample to the next.
func (p *player) line(a, b trace.Sample, i int) {
	if c := plan.CeilGiB(b.Capacity); c > p.original.GiB {
		p.expand(c)
	}
	rate := float64(b.Used-a.Used) / float64(b.At-a.At)
	if rate != p.rate {
		p.since = p.now
	}
	p.rate = rate
	p.hurry()
	p.hour.PeakIOPS, p.hour.PeakMiBs = max(p.hour.PeakIOPS, int32(b.IOPS)), max(p.hour.PeakMiBs, int32(b.MiBs))
	for p.now < b.At {
		next := min(b.At, (p.now/hour+1)*hour, p.nextEvent(), p.nextPressure())
		p.advance(next)
		if p.now == b.At {
			p.used = float64(b.Used) // no error of rounding is carried on
		}
		p.events()
		p.pressure(i)
		if p.now%hour == 0 {
			p.closeHour(i)
		}
	}
}

// nextEvent is when something that is on its way arrives.
func (p *player) nextEvent() int64 {
	at := never
	if p.growth != nil {
		at = min(at, p.growth.at, p.growth.loses)
		if s := p.growth.spare; s != nil {
			at = min(at, s.at)
		}
	}
	for _, g := range p.late {
		at = min(at, g.at)
	}
	if p.move != nil {
		at = min(at, p.move.at)
	}
	for _, r := range p.retired {
		at = min(at, r.until)
	}
	return max(at, p.now+1)
}

// nextPressure is when the agent would ask for room, as usage goes on now.
func (p *player) nextPressure() int64 {
	if p.growth != nil || !p.managed() {
		return never
	}
	if p.move != nil && p.rate > 0 {
		// The new backing is to have the headroom too, for what comes in.
		if left := float64(p.move.pool) - p.mapped() - p.headroom(p.mapped(), p.measured(p.now)); left > 0 {
			return min(p.now+1+int64(left/p.rate), p.poolPressure())
		}
		return p.now + 1
	}
	return p.poolPressure()
}

func (p *player) poolPressure() int64 {
	if p.lacks(p.mapped(), p.measured(p.now)) {
		return max(p.now+1, p.retry)
	}
	if p.rate <= 0 {
		return never
	}
	// The first moment at which the headroom is not free any more; what comes
	// after the hour's end is looked at then.
	far := min(p.now+int64(max(float64(p.pool)-p.mapped(), 0)/p.rate)+1+senses, p.now+hour)
	if !p.lacks(p.mapped()+p.rate*float64(far-p.now), p.measured(far)) {
		return never
	}
	return p.crossing(p.now+1, far)
}

// crossing finds the first second from low to high in which headroom is missing.
func (p *player) crossing(low, high int64) int64 {
	for low < high {
		mid := (low + high) / 2
		if p.lacks(p.mapped()+p.rate*float64(mid-p.now), p.measured(mid)) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return max(low, p.retry)
}

// measured is the fill rate that the agent knows at a moment of this line.
func (p *player) measured(at int64) float64 {
	if at < p.since+senses {
		return 0
	}
	return max(p.rate, 0)
}

// lacks tells whether the policy's headroom is missing, and more could be had.
func (p *player) lacks(mapped, rate float64) bool {
	return mapped+p.headroom(mapped, rate) > float64(p.pool) && p.pool < p.facts.SizeBytes
}

func (p *player) headroom(mapped, rate float64) float64 {
	return float64(p.rule.Headroom(time.Unix(p.now, 0), int64(mapped), rate))
}

// advance goes on to a moment within the present line and hour, in which nothing
// but usage changes.
func (p *player) advance(to int64) {
	seconds := to - p.now
	before := p.mapped()
	delta := p.rate * float64(seconds)
	usedBefore := p.used
	p.used = max(p.used+delta, 0)
	if delta < 0 {
		p.stale -= delta // deleted, not trimmed yet
	} else {
		p.hour.Written += int64(delta)
	}
	after := p.mapped()
	p.hour.UsedMin = min(p.hour.UsedMin, int64(after))
	p.hour.UsedMax = max(p.hour.UsedMax, int64(after))
	p.hour.FSUsedMax = max(p.hour.FSUsedMax, int64(p.used))
	p.tally.pass(p, seconds, (usedBefore+p.used)/2)
	if p.managed() && p.waiting == never && after > float64(p.pool) && after > before {
		over := min(int64((after-float64(p.pool))/p.rate), seconds)
		p.waiting = to - over
		p.waitFor = p.why()
	}
	p.now = to
}

// why says what a write waits for.
func (p *player) why() string {
	switch {
	case p.growth != nil:
		return fmt.Sprintf("a growth by %d GiB that began %ds before, at %.0f MiB/s", p.growth.newGiB-p.growth.fromGiB, p.waiting-p.growth.began, p.rate/float64(trace.MiB))
	}
	return "the planner: " + string(p.refused)
}

// flows ends a wait when there is room.
func (p *player) flows() {
	if p.waiting == never || p.mapped() > float64(p.pool) {
		return
	}
	p.tally.waited(p, float64(p.now-p.waiting))
	p.waiting = never
}

// closeHour records the hour, trims, and asks the planner when it is the disk's turn.
func (p *player) closeHour(i int) {
	p.hour.BackingBytes = p.backingGiB * trace.GiB
	p.records = append(p.records, p.hour)
	p.stale = 0 // the hourly trim
	p.flows()
	p.begin(p.now / hour)
	if s := p.d.Samples[i]; s.At > p.now { // the line goes on
		p.hour.PeakIOPS, p.hour.PeakMiBs = int32(s.IOPS), int32(s.MiBs)
	}
	if p.managed() && (p.now/hour)%p.tick == p.turn && p.growth == nil && p.move == nil {
		p.decide(i)
	}
}

// pressure asks the planner when the agent would ask for room now.
func (p *player) pressure(i int) {
	p.flows()
	if p.growth != nil || !p.managed() || p.now < p.retry {
		return
	}
	if m := p.move; m != nil && m.pool < p.facts.SizeBytes && p.mapped()+p.headroom(p.mapped(), p.measured(p.now)) > float64(m.pool) {
		p.abort("the new backing of %d GiB would be too small for what came in meanwhile", m.gib)
	}
	if !p.lacks(p.mapped(), p.measured(p.now)) {
		return
	}
	if p.stale > 0 && p.waiting == never && !p.lacks(p.used, p.measured(p.now)) {
		p.stale = 0 // a trim is enough
		return
	}
	p.decide(i)
}

// events carries out what has arrived.
func (p *player) events() {
	if g := p.growth; g != nil {
		switch {
		case g.at <= p.now, g.spare != nil && g.spare.at <= p.now:
			p.arrived(g)
		case g.loses <= p.now:
			p.spare(g)
		}
	}
	p.late = slices.DeleteFunc(p.late, func(g growth) bool {
		if g.at > p.now {
			return false
		}
		p.facts.Volumes[g.volume].GiB += g.newGiB - g.fromGiB
		p.overhead += (g.newGiB - g.fromGiB) * trace.GiB / 1000
		p.resized()
		return true
	})
	if m := p.move; m != nil && m.at <= p.now {
		p.moved(m)
	}
	if len(p.retired) > 0 && slices.ContainsFunc(p.retired, func(r retired) bool { return r.until <= p.now }) {
		p.retired = slices.DeleteFunc(p.retired, func(r retired) bool { return r.until <= p.now })
		p.extras()
	}
	p.flows()
}

// end is the end of the trace.
func (p *player) end() {
	if p.waiting != never {
		p.tally.waited(p, float64(p.now-p.waiting))
	}
	p.tally.finish(p)
}
