package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// maxBytes and maxNodes bound what a document may be, aliases followed.
const (
	maxBytes = 1 << 20
	maxNodes = 100_000
)

// Load reads a document. The error is Problems: everything that is wrong with it,
// each with line, column and field.
func Load(data []byte) (*Policy, error) {
	d := &decoder{}
	p := d.document(data)
	if len(d.problems) == 0 {
		d.check(p)
	}
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.problems
	}
	return p, nil
}

// decoder walks a document and gathers its problems.
type decoder struct {
	problems Problems
	nodes    int
}

func at(n *yaml.Node) position { return position{n.Line, n.Column} }

func (d *decoder) complain(n *yaml.Node, field, format string, args ...any) {
	d.problems.add(at(n), field, format, args...)
}

var syntaxRe = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// parse reads exactly one document.
func (d *decoder) parse(data []byte) *yaml.Node {
	top := position{1, 1}
	if len(data) > maxBytes {
		d.problems.add(top, "", "the document has %d bytes; a policy has at most %d", len(data), maxBytes)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			d.problems.add(top, "", "the document is empty; it begins with apiVersion: %s", APIVersion)
			return nil
		}
		msg := strings.SplitN(err.Error(), "\n", 2)[0]
		if m := syntaxRe.FindStringSubmatch(msg); m != nil {
			if line, err := strconv.Atoi(m[1]); err == nil {
				top.line = line
			}
			msg = m[2]
		}
		d.problems.add(top, "", "not YAML: %s", msg)
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		where := top
		if err == nil {
			where = at(&more)
		}
		d.problems.add(where, "", "a policy is one document; a second one begins here")
		return nil
	}
	return d.resolve(doc.Content[0])
}

// resolve follows an alias, and counts, so that aliases of aliases cannot blow up.
func (d *decoder) resolve(n *yaml.Node) *yaml.Node {
	d.nodes++
	if d.nodes == maxNodes {
		d.complain(n, "", "the document is too large")
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

type entry struct{ key, value *yaml.Node }

// mapping lists the entries of a mapping whose keys must be among known; nil
// known allows any text.
func (d *decoder) mapping(n *yaml.Node, field string, known []string) map[string]entry {
	n = d.resolve(n)
	out := map[string]entry{}
	if n.Kind != yaml.MappingNode {
		what := "fields"
		if known != nil {
			what = "the fields " + oneOf(known)
		}
		d.complain(n, field, "want a mapping with %s", what)
		return out
	}
	if d.nodes > maxNodes {
		return out
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name := k.Value
		switch before, twice := out[name]; {
		case k.Kind != yaml.ScalarNode || k.Tag == "!!merge":
			d.complain(k, field, "merge keys and nested keys are not understood; write the fields out")
		case twice:
			d.complain(k, join(field, name), "set twice, first in line %d", before.key.Line)
		case known != nil && !slices.Contains(known, name):
			hint := "known are " + strings.Join(known, ", ")
			if c := nearest(name, known); c != "" {
				hint = fmt.Sprintf("did you mean %s?", c)
			}
			d.complain(k, join(field, clip(name)), "unknown field; %s", hint)
		default:
			out[name] = entry{k, d.resolve(v)}
		}
	}
	return out
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "." + b
}

// sequence lists the items of a list.
func (d *decoder) sequence(n *yaml.Node, field string) []*yaml.Node {
	n = d.resolve(n)
	if n.Kind != yaml.SequenceNode {
		d.complain(n, field, "want a list")
		return nil
	}
	if d.nodes > maxNodes {
		return nil
	}
	if len(n.Content) == 0 {
		d.complain(n, field, "the list is empty; leave the field out instead")
	}
	out := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		out[i] = d.resolve(c)
	}
	return out
}

// text is a scalar as it was written.
func (d *decoder) text(n *yaml.Node, field string) (string, bool) {
	n = d.resolve(n)
	switch {
	case n.Kind != yaml.ScalarNode:
		d.complain(n, field, "want a single value")
		return "", false
	case n.Tag == "!!null":
		d.complain(n, field, "the value is missing")
		return "", false
	}
	return n.Value, true
}

// texts is a list of patterns, or one alone.
func (d *decoder) texts(n *yaml.Node, field string) []string {
	items := []*yaml.Node{n}
	if n.Kind != yaml.ScalarNode {
		items = d.sequence(n, field)
	}
	var out []string
	for i, item := range items {
		name := field
		if n.Kind != yaml.ScalarNode {
			name = fmt.Sprintf("%s[%d]", field, i)
		}
		if s, ok := d.text(item, name); ok && d.pattern(item, name, s) {
			out = append(out, s)
		}
	}
	return out
}

func (d *decoder) pattern(n *yaml.Node, field, s string) bool {
	if s == "" {
		d.complain(n, field, "the pattern is empty; * matches any name")
		return false
	}
	if _, err := path.Match(s, ""); err != nil {
		d.complain(n, field, "the pattern %q is not complete (an open bracket?)", clip(s))
		return false
	}
	return true
}

func (d *decoder) document(data []byte) *Policy {
	p := &Policy{}
	root := d.parse(data)
	if root == nil {
		return p
	}
	m := d.mapping(root, "", []string{"apiVersion", "kind", "metadata", "defaults", "rules", "disks", "budgets"})
	if root.Kind != yaml.MappingNode {
		return p
	}
	d.constant(root, m, "apiVersion", APIVersion)
	d.constant(root, m, "kind", Kind)
	if e, ok := m["metadata"]; ok {
		if name, ok := d.mapping(e.value, "metadata", []string{"name"})["name"]; ok {
			p.Name, _ = d.text(name.value, "metadata.name")
		}
	}
	if e, ok := m["defaults"]; ok {
		p.defaults = d.settings(e.value, "defaults", nil)
	}
	if e, ok := m["rules"]; ok {
		for i, n := range d.sequence(e.value, "rules") {
			p.rules = append(p.rules, d.rule(n, fmt.Sprintf("rules[%d]", i)))
		}
	}
	if e, ok := m["disks"]; ok {
		for i, n := range d.sequence(e.value, "disks") {
			p.overrides = append(p.overrides, d.override(n, fmt.Sprintf("disks[%d]", i)))
		}
	}
	if e, ok := m["budgets"]; ok {
		d.budgets(e.value, &p.Budgets)
	}
	return p
}

func (d *decoder) constant(root *yaml.Node, m map[string]entry, name, want string) {
	e, ok := m[name]
	if !ok {
		d.complain(root, name, "missing; want %s: %s", name, want)
		return
	}
	if s, ok := d.text(e.value, name); ok && s != want {
		d.complain(e.value, name, "%q: want %s", clip(s), want)
	}
}

var nameRe = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$`)

func (d *decoder) rule(n *yaml.Node, field string) rule {
	r := rule{at: at(n)}
	m := d.mapping(n, field, append([]string{"name", "match"}, groups...))
	e, ok := m["name"]
	switch {
	case !ok && n.Kind == yaml.MappingNode:
		d.complain(n, field+".name", "missing; decisions and reports name the rule they follow")
	case ok:
		if r.name, ok = d.text(e.value, field+".name"); ok && (!nameRe.MatchString(r.name) || r.name == DefaultsName) {
			d.complain(e.value, field+".name", "%q: want 1 to 63 letters, digits, spaces, '.', '_' or '-', and not %q", clip(r.name), DefaultsName)
		}
	}
	if e, ok := m["match"]; ok {
		r.match = d.match(e.value, field+".match")
	}
	delete(m, "name")
	delete(m, "match")
	r.set = d.layer(m, field)
	return r
}

func (d *decoder) match(n *yaml.Node, field string) Match {
	var out Match
	lists := map[string]*[]string{
		"clusters": &out.Clusters, "namespaces": &out.Namespaces, "claims": &out.Claims,
		"storageClasses": &out.StorageClasses, "nodeGroups": &out.NodeGroups,
	}
	m := d.mapping(n, field, []string{"clusters", "namespaces", "claims", "storageClasses", "nodeGroups", "labels", "tags"})
	for name, to := range lists {
		if e, ok := m[name]; ok {
			*to = d.texts(e.value, join(field, name))
		}
	}
	for name, to := range map[string]*map[string]string{"labels": &out.Labels, "tags": &out.Tags} {
		e, ok := m[name]
		if !ok {
			continue
		}
		*to = map[string]string{}
		for k, v := range d.mapping(e.value, join(field, name), nil) {
			f := fmt.Sprintf("%s.%s", join(field, name), clip(k))
			if s, ok := d.text(v.value, f); ok && d.pattern(v.value, f, s) {
				(*to)[k] = s
			}
		}
	}
	return out
}

func (d *decoder) override(n *yaml.Node, field string) override {
	o := override{at: at(n)}
	m := d.mapping(n, field, append([]string{"disk"}, groups...))
	e, ok := m["disk"]
	switch {
	case !ok && n.Kind == yaml.MappingNode:
		d.complain(n, field+".disk", "missing; an override for no disk: want a disk's id or name")
	case ok:
		if o.disk, ok = d.text(e.value, field+".disk"); ok &&
			contract.DiskID(o.disk).Validate() != nil && contract.ValidateName(o.disk) != nil {
			d.complain(e.value, field+".disk", "%q: want a disk's id (d- and 17 hexadecimal digits) or name", clip(o.disk))
		}
	}
	delete(m, "disk")
	o.set = d.layer(m, field)
	if len(o.set) == 0 && n.Kind == yaml.MappingNode && len(m) == 0 {
		d.complain(n, field, "the override sets nothing")
	}
	return o
}

// groups are the first parts of the fields' paths, in order.
var groups = func() []string {
	var out []string
	for i := range fields {
		g, _, _ := strings.Cut(fields[i].path, ".")
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}()

func (d *decoder) settings(n *yaml.Node, field string, more []string) layer {
	return d.layer(d.mapping(n, field, append(more, groups...)), field)
}

// layer reads the settings among the entries of a mapping, in the order of fields.
func (d *decoder) layer(m map[string]entry, prefix string) layer {
	var out layer
	nested := map[string]map[string]entry{}
	for i := range fields {
		f := &fields[i]
		group, sub, isNested := strings.Cut(f.path, ".")
		e, ok := m[group]
		if !ok {
			continue
		}
		if isNested {
			if nested[group] == nil {
				nested[group] = d.mapping(e.value, join(prefix, group), members(group))
			}
			if e, ok = nested[group][sub]; !ok {
				continue
			}
		}
		if apply := d.value(f, e.value, join(prefix, f.path)); apply != nil {
			out = append(out, setting{f, apply, at(e.value)})
		}
	}
	return out
}

// members are the fields of a group.
func members(group string) []string {
	var out []string
	for i := range fields {
		if g, sub, ok := strings.Cut(fields[i].path, "."); ok && g == group {
			out = append(out, sub)
		}
	}
	return out
}

// value reads one field; nil after a complaint.
func (d *decoder) value(f *field, n *yaml.Node, name string) func(*plan.Rule) {
	switch f.kind {
	case windowsKind:
		return d.windows(n, name)
	case typesKind:
		return d.types(f, n, name)
	}
	s, ok := d.text(n, name)
	if !ok {
		return nil
	}
	apply, err := f.read(s)
	if err != nil {
		hint := ""
		if f.kind == choiceKind {
			if c := nearest(s, f.choices); c != "" {
				hint = fmt.Sprintf("; did you mean %s?", c)
			}
		}
		d.complain(n, name, "%q: %s%s", clip(s), err, hint)
		return nil
	}
	return apply
}

func (d *decoder) types(f *field, n *yaml.Node, name string) func(*plan.Rule) {
	var out []string
	for i, item := range d.sequence(n, name) {
		where := fmt.Sprintf("%s[%d]", name, i)
		s, ok := d.text(item, where)
		switch {
		case !ok:
		case !slices.Contains(f.choices, s):
			d.complain(item, where, "%q: want %s", clip(s), oneOf(f.choices))
		case slices.Contains(out, s):
			d.complain(item, where, "%s is listed twice", s)
		default:
			out = append(out, s)
		}
	}
	return func(r *plan.Rule) { r.Types = out }
}

func (d *decoder) windows(n *yaml.Node, name string) func(*plan.Rule) {
	var out []plan.Window
	for i, item := range d.sequence(n, name) {
		if w, ok := d.window(item, fmt.Sprintf("%s[%d]", name, i)); ok {
			out = append(out, w)
		}
	}
	return func(r *plan.Rule) { r.Windows = out }
}

func (d *decoder) window(n *yaml.Node, name string) (plan.Window, bool) {
	before := len(d.problems)
	m := d.mapping(n, name, []string{"days", "from", "to", "zone"})
	if n.Kind != yaml.MappingNode {
		return plan.Window{}, false
	}
	w := plan.Window{Days: [7]bool{true, true, true, true, true, true, true}, Zone: "UTC"}
	if e, ok := m["days"]; ok {
		w.Days = [7]bool{}
		for _, s := range d.texts(e.value, name+".days") {
			if err := parseDays(s, &w.Days); err != nil {
				d.complain(e.value, name+".days", "%s", err)
			}
		}
	}
	for _, end := range []string{"from", "to"} {
		e, ok := m[end]
		if !ok {
			d.complain(n, join(name, end), "missing; want a time of day such as \"22:30\"")
			continue
		}
		s, ok := d.text(e.value, join(name, end))
		if !ok {
			continue
		}
		t, err := parseClock(s)
		if err != nil {
			d.complain(e.value, join(name, end), "%q: %s", clip(s), err)
		}
		if end == "from" {
			w.From = t
		} else {
			w.To = t
		}
	}
	if e, ok := m["zone"]; ok {
		w.Zone, _ = d.text(e.value, name+".zone")
	}
	loc, err := parseZone(w.Zone)
	if err != nil {
		where := n
		if e, ok := m["zone"]; ok {
			where = e.value
		}
		d.complain(where, name+".zone", "%s", err)
	}
	w.Location = loc
	if len(d.problems) == before {
		if why := impossible(w); why != "" {
			d.complain(n, name, "%s", why)
		}
	}
	return w, len(d.problems) == before
}
