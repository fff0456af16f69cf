package simulate

import (
	"cmp"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/internal/trace"
)

// week is the time after which a disk's figures count as settled.
const week = 7 * 24 * hour

// tally counts, in whole numbers, so that the order of the disks changes nothing.
type tally struct {
	first   int64 // hour of hours[0]
	hours   []bucket
	classes map[string]*group
	spaces  map[string]*group
	done    map[[2]string]*reason
	refused map[[2]string]*reason
	top     []report.Operation
	waits   []Wait
	swings  []string

	disks, decisions                        int
	firstGiB, lastGiB, firstUsed, lastUsed  int64
	all                                     group
	expands, aborted, regrown, oscillations int
	nearMisses, outOfSpace, ebsRefused      int
	spares                                  int // volumes begun beside a growth
	waitedSeconds, longest, waitsTotal      int64
	maxMods                                 int
	movedMiB                                int64
	class, space                            *group // of the present disk
	settled                                 int64  // when its first week is over
	from, to                                int64  // of the present disk
	firstAt, lastAt                         int64
	diskSeconds                             int64
}

// bucket is an hour of the fleet.
type bucket struct {
	usedMiBs, backingGiBs, extraGiBs, withoutGiBs int64 // times seconds
	volumes, extra, without                       int64 // nano-dollars
	snapshots                                     int64
	grows, urgent, shrinks, refused, moves        int32
}

// group is a part of the fleet, after the first week.
type group struct {
	disks                                         int
	usedMiBs, backingGiBs, extraGiBs, withoutGiBs int64
	volumes, extra, without, snapshots            int64
	grows, shrinks, outOfSpace, waits             int
}

func (g *group) add(o *group) {
	g.disks += o.disks
	g.usedMiBs += o.usedMiBs
	g.backingGiBs += o.backingGiBs
	g.extraGiBs += o.extraGiBs
	g.withoutGiBs += o.withoutGiBs
	g.volumes += o.volumes
	g.extra += o.extra
	g.without += o.without
	g.snapshots += o.snapshots
	g.grows += o.grows
	g.shrinks += o.shrinks
	g.outOfSpace += o.outOfSpace
	g.waits += o.waits
}

type reason struct {
	times   int
	gib     int64
	example report.Example
	weight  int64 // of the example
}

func newTally() *tally {
	return &tally{classes: map[string]*group{}, spaces: map[string]*group{}, done: map[[2]string]*reason{}, refused: map[[2]string]*reason{}}
}

// at is an hour's bucket. begin has made room for it.
func (t *tally) at(second int64) *bucket { return &t.hours[second/hour-t.first] }

// room makes room for the hours from one second to another.
func (t *tally) room(from, to int64) {
	a, b := from/hour, to/hour
	switch {
	case t.hours == nil:
		t.first = a
	case a < t.first:
		t.hours = append(make([]bucket, t.first-a), t.hours...)
		t.first = a
	}
	if n := int(b - t.first + 1); n > len(t.hours) {
		t.hours = append(t.hours, make([]bucket, n-len(t.hours))...)
	}
}

func find(m map[string]*group, name string) *group {
	g := m[name]
	if g == nil {
		g = &group{}
		m[name] = g
	}
	return g
}

func (t *tally) begin(d *trace.Disk, from, to, gib, used int64) {
	t.room(from, to)
	t.class, t.space = find(t.classes, cmp.Or(d.Class, "(none)")), find(t.spaces, cmp.Or(d.Namespace, "(none)"))
	t.class.disks++
	t.space.disks++
	t.all.disks++
	t.disks++
	t.settled, t.from, t.to = from+week, from, to
	if t.disks == 1 || from < t.firstAt {
		t.firstAt = from
	}
	t.lastAt = max(t.lastAt, to)
	t.diskSeconds += to - from
	t.firstGiB += gib
	t.firstUsed += used
}

const nano = 1e9 / (730 * 3600) // of a monthly price, for a second

// pass counts a time in which nothing changed but use, whose mean is given.
func (t *tally) pass(p *player, seconds int64, used float64) {
	b := t.at(p.now)
	usedMiBs := int64(used/float64(trace.MiB)) * seconds
	backing, extra, without := p.backingGiB*seconds, p.extraGiB*seconds, p.original.GiB*seconds
	volumes, extras, original := int64(p.volumesUSD*nano*float64(seconds)), int64(p.extraUSD*nano*float64(seconds)), int64(p.originalUSD*nano*float64(seconds))
	b.usedMiBs += usedMiBs
	b.backingGiBs += backing
	b.extraGiBs += extra
	b.withoutGiBs += without
	b.volumes += volumes
	b.extra += extras
	b.without += original
	if p.now < t.settled {
		return
	}
	for _, g := range [...]*group{&t.all, t.class, t.space} {
		g.usedMiBs += usedMiBs
		g.backingGiBs += backing
		g.extraGiBs += extra
		g.withoutGiBs += without
		g.volumes += volumes
		g.extra += extras
		g.without += original
	}
}

// groups are those the present disk belongs to.
func (t *tally) groups() [3]*group { return [...]*group{&t.all, t.class, t.space} }

func (t *tally) finish(p *player) {
	t.lastGiB += p.backingGiB
	t.lastUsed += int64(p.used)
}

func (t *tally) snapshot(p *player, usd float64) {
	n := int64(usd * 1e9)
	t.at(p.now).snapshots += n
	if p.now >= t.settled {
		for _, g := range t.groups() {
			g.snapshots += n
		}
	}
}

func (t *tally) moved(p *player, copied int64, usd float64) {
	t.movedMiB += copied / trace.MiB
	n := int64(usd * 1e9)
	t.at(p.now).extra += n
	if p.now >= t.settled {
		for _, g := range t.groups() {
			g.extra += n
		}
	}
}

// moving counts the moves of each hour.
func (t *tally) moving(from, to int64) {
	for h := from / hour; h <= min(to, t.to)/hour; h++ {
		t.hours[h-t.first].moves++
	}
}

func (t *tally) near(*player) { t.nearMisses++ }

// tolerable is how many seconds a write may wait for a growth before the disk
// counts as out of space: as long as Linux lets an NVMe device take for a request
// unless told otherwise (nvme_core.io_timeout).
const tolerable = 30

func (t *tally) waited(p *player, seconds float64) {
	t.waitsTotal++
	t.waitedSeconds += int64(seconds)
	t.longest = max(t.longest, int64(seconds))
	for _, g := range t.groups() {
		g.waits++
		if seconds > tolerable {
			g.outOfSpace++
		}
	}
	if seconds > tolerable {
		t.outOfSpace++
	}
	t.waits = append(t.waits, Wait{Disk: p.d.ID, At: time.Unix(p.waiting, 0).UTC(), Seconds: seconds, Why: p.waitFor})
	if len(t.waits) > 1000 {
		t.cut()
	}
}

func (t *tally) oscillation(_ *player, text string) {
	t.oscillations++
	t.swings = append(t.swings, text)
	if len(t.swings) > 1000 {
		t.cut()
	}
}

// cut keeps lists short: what is kept does not depend on the order.
func (t *tally) cut() {
	slices.SortFunc(t.waits, func(a, b Wait) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Disk, b.Disk), a.At.Compare(b.At))
	})
	t.waits = t.waits[:min(len(t.waits), 100)]
	slices.Sort(t.swings)
	t.swings = t.swings[:min(len(t.swings), 100)]
	slices.SortFunc(t.top, func(a, b report.Operation) int {
		return cmp.Or(cmp.Compare(weight(b), weight(a)), cmp.Compare(a.Disk, b.Disk), a.At.Compare(b.At))
	})
	t.top = t.top[:min(len(t.top), 200)]
}

// weight is how telling an operation is.
func weight(o report.Operation) int64 {
	n := o.ToGiB - o.FromGiB
	if n < 0 {
		n = -n
	}
	return n
}

// Why something is done, in words, by what it is and whether it was urgent.
var doneWhy = map[string]string{
	"grow":        "less than the policy's headroom was free",
	"grow urgent": "the disk was about to be full: ahead of everything",
	"append":      "EBS could not modify the volume in time: another one",
	"shrink":      "the look-back window's peak needs less, and the move pays for itself",
	"fold":        "one volume instead of several",
	"change":      "another volume type or performance is cheaper",
	"retype":      "another volume type or performance, in place",
	"abort":       "a move was given up: the disk needed more room than its new backing had",
}

func (t *tally) operation(o report.Operation) {
	key := o.What
	b := t.at(o.At.Unix())
	switch o.What {
	case "grow", "append":
		b.grows++
		if o.Urgent {
			b.urgent++
			if o.What == "grow" {
				key = "grow urgent"
			}
		}
		for _, g := range t.groups() {
			g.grows++
		}
	case "retype":
	case "shrink", "fold", "change":
		b.shrinks++
		for _, g := range t.groups() {
			g.shrinks++
		}
	}
	count(t.done, [2]string{key, doneWhy[key]}, weight(o), weight(o), report.Example{Disk: o.Disk, At: o.At, Text: o.Why})
	if o.What != "abort" {
		t.top = append(t.top, o)
		if len(t.top) > 2000 {
			t.cut()
		}
	}
}

// Why something is not done, in words.
var refusedWhy = map[plan.Why]string{
	plan.WhyMode:          "the policy only observes or recommends",
	plan.WhyRunning:       "an operation runs on the disk",
	plan.WhyHistory:       "the look-back window is not on record yet",
	plan.WhyQuiet:         "too soon after the last growth or shrink",
	plan.WhyWindow:        "outside of the maintenance windows",
	plan.WhyPayback:       "it would not pay for itself in time",
	plan.WhyModifications: "EBS's modifications of 24 hours are spent, but for the reserve",
	plan.WhyModifying:     "EBS still works on the last modification",
	plan.WhyCeiling:       "the backing may not grow further",
	plan.WhyVolumes:       "the backing can hold no more volumes",
	plan.WhyRoom:          "growth may be due while EBS works on the change",
	plan.WhyFacts:         "the facts are incomplete",
	plan.WhyBudget:        "a budget is used up",
}

func (t *tally) refusal(p *player, d plan.Decision) {
	t.at(p.now).refused++
	gib := d.GiB - d.FromGiB
	if gib < 0 {
		gib = -gib
	}
	count(t.refused, [2]string{string(d.Wanted) + ": " + string(d.Why), refusedWhy[d.Why]}, gib, gib,
		report.Example{Disk: p.d.ID, At: time.Unix(p.now, 0).UTC(), Text: d.Reason})
}

func count(m map[[2]string]*reason, key [2]string, gib, weight int64, e report.Example) {
	r := m[key]
	if r == nil {
		r = &reason{weight: -1}
		m[key] = r
	}
	r.times++
	r.gib += gib
	if weight > r.weight || weight == r.weight && better(e, r.example) {
		r.weight, r.example = weight, e
	}
}

func better(a, b report.Example) bool {
	return cmp.Or(cmp.Compare(a.Disk, b.Disk), a.At.Compare(b.At)) < 0
}
