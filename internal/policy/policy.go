// Package policy reads the one YAML document that says how Ebb treats which disk,
// and answers what it says of a disk. Reading is strict: what is unknown,
// misspelt, in the wrong unit or contradicts itself is refused with its line and
// column. It plans nothing (internal/plan does) and reads no file.
package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ebb-storage/ebb/internal/plan"
)

// What a document must begin with.
const (
	APIVersion = "ebb.io/v1alpha1"
	Kind       = "Policy"
)

// DefaultsName is what For calls a rule that comes from the defaults alone.
const DefaultsName = "defaults"

// Policy is a document that was read without a complaint.
type Policy struct {
	Name    string // metadata.name; may be empty
	Budgets plan.Budgets

	defaults  layer
	rules     []rule
	overrides []override
}

// layer is a set of settings from one place of the document.
type layer []setting

// setting is one field that was set.
type setting struct {
	field *field
	apply func(*plan.Rule)
	at    position
}

type rule struct {
	name  string
	match Match
	set   layer
	at    position
}

type override struct {
	disk string // id or name
	set  layer
	at   position
}

func (l layer) on(r *plan.Rule) {
	for _, s := range l {
		s.apply(r)
	}
}

// For is what holds for a disk, and which rule said so: the first that matches
// on top of the defaults, and the disk's own override on top of both.
func (p *Policy) For(f plan.Facts) (plan.Rule, string) {
	r := plan.DefaultRule()
	var names []string
	for _, l := range p.layers(f) {
		l.set.on(&r)
		if l.name != DefaultsName {
			names = append(names, l.name)
		}
	}
	r.Name = DefaultsName
	if len(names) > 0 {
		r.Name = strings.Join(names, " + ")
	}
	// What a caller changes in its rule is not the policy's.
	r.Windows, r.Types = slices.Clone(r.Windows), slices.Clone(r.Types)
	return r, r.Name
}

type namedLayer struct {
	name string
	set  layer
}

// layers that hold for a disk, the strongest last.
func (p *Policy) layers(f plan.Facts) []namedLayer {
	out := []namedLayer{{DefaultsName, p.defaults}}
	if i := p.first(f); i >= 0 {
		out = append(out, namedLayer{p.rules[i].name, p.rules[i].set})
	}
	for _, o := range p.overrides {
		if o.is(f) {
			out = append(out, namedLayer{"override for " + o.disk, o.set})
		}
	}
	return out
}

func (o override) is(f plan.Facts) bool {
	return o.disk == string(f.Disk) || f.Name != "" && o.disk == f.Name
}

// Source says where a setting that holds for a disk comes from.
type Source struct {
	Field string `json:"field"`
	Value string `json:"value"`
	From  string `json:"from"`           // rule or override; "built in" for what the document leaves out
	Line  int    `json:"line,omitempty"` // 0: built in
}

// Explain lists every setting that holds for a disk and where it comes from.
func (p *Policy) Explain(f plan.Facts) []Source {
	r, _ := p.For(f)
	out := make([]Source, 0, len(fields))
	for i := range fields {
		s := Source{Field: fields[i].path, Value: fields[i].show(&r), From: "built in"}
		for _, l := range p.layers(f) {
			for _, set := range l.set {
				if set.field == &fields[i] {
					s.From, s.Line = l.name, set.at.line
				}
			}
		}
		out = append(out, s)
	}
	return out
}

// CheckFleet holds the document against the disks there are: overrides for no
// disk, two for one, rules that hold for none, and overrides that contradict the rule of
// their disk. Rules without a disk may be there for disks to come: they are a matter of
// taste, the rest is wrong.
func (p *Policy) CheckFleet(fleet []plan.Facts) (wrong, idle Problems) {
	matched := make([]bool, len(p.rules))
	var d decoder
	for _, f := range fleet {
		if i := p.first(f); i >= 0 {
			matched[i] = true
		}
	}
	d.twice(p, fleet)
	for i, o := range p.overrides {
		field := fmt.Sprintf("disks[%d]", i)
		n := slices.IndexFunc(fleet, o.is)
		if n < 0 {
			d.problems.add(o.at, field+".disk", "an override for no disk: there is none with the id or name %q", o.disk)
			continue
		}
		layers := []layer{p.defaults}
		if i := p.first(fleet[n]); i >= 0 {
			layers = append(layers, p.rules[i].set)
		}
		d.consistent(field, append(layers, o.set)...)
	}
	for i, r := range p.rules {
		if !matched[i] {
			idle.add(r.at, fmt.Sprintf("rules[%d]", i), "rule %q holds for no disk", r.name)
		}
	}
	d.problems.sort()
	return d.problems, idle
}

// first is the rule that holds for a disk, -1: none.
func (p *Policy) first(f plan.Facts) int {
	return slices.IndexFunc(p.rules, func(r rule) bool { return r.match.Matches(f) })
}

// ByCluster tells whether a rule is for the disks of some clusters only.
func (p *Policy) ByCluster() bool {
	return slices.ContainsFunc(p.rules, func(r rule) bool { return len(r.match.Clusters) > 0 })
}

// Rules are the names of the rules in order, for overviews.
func (p *Policy) Rules() []string {
	out := make([]string, len(p.rules))
	for i, r := range p.rules {
		out[i] = r.name
	}
	return out
}
