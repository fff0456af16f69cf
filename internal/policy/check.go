package policy

import (
	"fmt"
	"math"
	"slices"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// check looks for what is readable and makes no sense: contradictions within the
// settings that hold together, rules that can never match, names used twice.
func (d *decoder) check(p *Policy) {
	d.consistent("defaults", p.defaults)
	names := map[string]int{}
	for i, r := range p.rules {
		field := fmt.Sprintf("rules[%d]", i)
		if first, ok := names[r.name]; ok {
			d.problems.add(r.at, field+".name", "rule %q exists already, in line %d", r.name, first)
		}
		names[r.name] = r.at.line
		if n := slices.IndexFunc(p.rules[:i], func(o rule) bool { return o.match.covers(r.match) }); n >= 0 {
			all := "every disk"
			if !p.rules[n].match.everything() {
				all += " that it would"
			}
			d.problems.add(r.at, field, "rule %q is never reached: rule %q before it matches %s", r.name, p.rules[n].name, all)
		}
		d.consistent(field, p.defaults, r.set)
	}
	disks := map[string]int{}
	for i, o := range p.overrides {
		field := fmt.Sprintf("disks[%d]", i)
		if first, ok := disks[o.disk]; ok {
			d.problems.add(o.at, field+".disk", "%s has an override already, in line %d", o.disk, first)
		}
		disks[o.disk] = o.at.line
		d.overrideFits(p, field, o)
	}
}

// twice complains of a disk that has an override by its id and one by its name.
func (d *decoder) twice(p *Policy, fleet []plan.Facts) {
	by := map[string]int{}
	for i, o := range p.overrides {
		by[o.disk] = i
	}
	for _, f := range fleet {
		i, byID := by[string(f.Disk)]
		j, byName := by[f.Name]
		if byID && byName && i != j {
			first, later := p.overrides[min(i, j)], p.overrides[max(i, j)]
			d.problems.add(later.at, fmt.Sprintf("disks[%d].disk", max(i, j)), "disk %s has an override already, in line %d as %q", f.Disk, first.at.line, first.disk)
		}
	}
}

// overrideFits complains of an override that contradicts whatever rule it may
// come on top of. Which one that is depends on the disk: see CheckFleet.
func (d *decoder) overrideFits(p *Policy, field string, o override) {
	try := func(layers ...layer) Problems {
		var t decoder
		t.consistent(field, layers...)
		return t.problems
	}
	found := try(p.defaults, o.set)
	for _, r := range p.rules {
		if more := try(p.defaults, r.set, o.set); len(more) < len(found) {
			found = more
		}
	}
	d.problems = append(d.problems, found...)
}

// together is settings that hold at once.
type together struct {
	d      *decoder
	prefix string
	layers []layer
	plan.Rule
}

// consistent complains of settings that contradict each other, at the place that
// set one of them last. What earlier layers alone contradict was said of them.
func (d *decoder) consistent(prefix string, layers ...layer) {
	t := together{d: d, prefix: prefix, layers: layers, Rule: plan.DefaultRule()}
	for _, l := range layers {
		l.on(&t.Rule)
	}
	t.sizes()
	t.room()
	t.moves()
	t.performance()
}

// complain about fields. Only when the last layer set one of them is it this
// layer's doing.
func (t *together) complain(format string, paths []string, args ...any) {
	last := t.layers[len(t.layers)-1]
	for _, path := range paths {
		for _, s := range last {
			if s.field.path != path {
				continue
			}
			msg := Problem{Line: s.at.line, Column: s.at.column, Field: join(t.prefix, path), Message: fmt.Sprintf(format, args...)}
			if !slices.Contains(t.d.problems, msg) {
				t.d.problems = append(t.d.problems, msg)
			}
			return
		}
	}
}

func (t *together) sizes() {
	if t.CeilingGiB > 0 && t.FloorGiB > t.CeilingGiB {
		t.complain("a floor of %d GiB is above the ceiling of %d GiB", []string{"floor", "ceiling"}, t.FloorGiB, t.CeilingGiB)
	}
	if t.MaxStepGiB > 0 && t.MinStepGiB > t.MaxStepGiB {
		t.complain("the least step of %d GiB is above the greatest of %d GiB", []string{"grow.minStep", "grow.maxStep"}, t.MinStepGiB, t.MaxStepGiB)
	}
}

func (t *together) room() {
	if most := 1 / (1 + t.HeadroomPercent); t.Target > most+1e-9 {
		t.complain("with a headroom of %.4g%% of what is used at most %.0f%% can be used: a target of %.4g%% is impossible",
			[]string{"headroom.percent", "target"}, t.HeadroomPercent*100, math.Floor(most*100), t.Target*100)
	}
	if t.CeilingGiB > 0 && t.HeadroomBytes >= t.CeilingGiB*contract.GiB {
		t.complain("a headroom of %s leaves nothing of a ceiling of %d GiB", []string{"headroom.bytes", "ceiling"}, showBytes(t.HeadroomBytes), t.CeilingGiB)
	}
	if t.HeadroomBytes == 0 && t.HeadroomPercent == 0 && t.HeadroomTime == 0 {
		t.complain("no headroom at all: growth would begin when the disk is full; want one of bytes, percent and fillTime above 0",
			[]string{"headroom.bytes", "headroom.percent", "headroom.fillTime"})
	}
}

func (t *together) moves() {
	if !t.Snapshot && t.sets("move.snapshotRetention") {
		t.complain("there is no snapshot to keep: move.snapshot is false", []string{"move.snapshotRetention", "move.snapshot"})
	}
	if t.GracePeriod > t.Payback && t.Payback > 0 {
		t.complain("the old volume is kept, and paid for, for %s: no shrink pays for itself within %s",
			[]string{"move.grace", "shrink.payback"}, showDuration(t.GracePeriod), showDuration(t.Payback))
	}
}

func (t *together) performance() {
	if t.FollowPeak && t.LookBack == 0 {
		t.complain("there is no peak to follow: shrink.lookBack is 0s", []string{"performance.followPeak", "shrink.lookBack"})
	}
	l := plan.DefaultLimits()
	if len(t.Types) == 0 || t.MinIOPS == 0 && t.MinMiBs == 0 {
		return
	}
	for _, name := range t.Types {
		if l.Gives(name, t.MinIOPS, t.MinMiBs, t.MaxStripes) {
			return
		}
	}
	t.complain("no volume type of %v gives %d IOPS and %d MiB/s", []string{"performance.minIOPS", "performance.minThroughput", "performance.types"}, t.Types, t.MinIOPS, t.MinMiBs)
}

// sets tells whether the last layer sets a field.
func (t *together) sets(path string) bool {
	for _, s := range t.layers[len(t.layers)-1] {
		if s.field.path == path {
			return true
		}
	}
	return false
}
