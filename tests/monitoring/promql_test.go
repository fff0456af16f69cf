package monitoring

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// node is an expression.
type node interface{}

type (
	number   float64
	text     string
	selector struct {
		name     string
		matchers []matcher
		window   time.Duration // 0: an instant
		offset   time.Duration
	}
	matcher struct {
		label, op, value string
		re               *regexp.Regexp
	}
	call struct {
		fn   string
		args []node
	}
	aggregate struct {
		fn      string
		without bool
		by      []string // nil and not without: all in one
		param   node
		arg     node
	}
	binary struct {
		op          string
		left, right node
		boolean     bool
		on          []string
		matched     bool // on or ignoring was given
		ignoring    bool
		group       string // left, right or empty
		include     []string
	}
)

// functions that are known, with how many arguments they take and whether the last
// is a range.
var functions = map[string]struct {
	args   int
	window bool
}{
	"rate": {1, true}, "increase": {1, true}, "changes": {1, true}, "delta": {1, true}, "deriv": {1, true},
	"max_over_time": {1, true}, "min_over_time": {1, true}, "avg_over_time": {1, true}, "sum_over_time": {1, true},
	"time": {0, false}, "absent": {1, false}, "abs": {1, false}, "clamp_min": {2, false}, "vector": {1, false}, "histogram_quantile": {2, false},
}

var aggregations = []string{"sum", "max", "min", "avg", "count", "topk"}

var tokens = regexp.MustCompile(`\s+|[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9]+(?:ms|[smhdwy])(?:[0-9]+(?:ms|[smhdwy]))*|[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[!=<>]=|=~|!~|[-+*/%^(){}\[\],=<>]`)

type parser struct {
	toks []string
	pos  int
}

// parse reads an expression, or panics with what is wrong: only read calls it.
func read(expr string) (n node, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = nil, fmt.Errorf("%v in %q", r, expr)
		}
	}()
	p := &parser{}
	for rest := expr; rest != ""; {
		loc := tokens.FindStringIndex(rest)
		if loc == nil || loc[0] != 0 {
			panic(fmt.Sprintf("unknown characters at %q", rest))
		}
		if t := strings.TrimSpace(rest[:loc[1]]); t != "" {
			p.toks = append(p.toks, t)
		}
		rest = rest[loc[1]:]
	}
	n = p.binary(0)
	if p.pos != len(p.toks) {
		panic("something follows: " + strings.Join(p.toks[p.pos:], " "))
	}
	if kind(n) == "range" {
		panic("a range is no result")
	}
	return n, nil
}

func (p *parser) peek() string {
	if p.pos < len(p.toks) {
		return p.toks[p.pos]
	}
	return ""
}

func (p *parser) next() string {
	t := p.peek()
	p.pos++
	return t
}

func (p *parser) want(t string) {
	if got := p.next(); got != t {
		panic(fmt.Sprintf("want %q, got %q", t, got))
	}
}

// levels of operators, the loosest first.
var levels = [][]string{{"or"}, {"and", "unless"}, {"==", "!=", "<", ">", "<=", ">="}, {"+", "-"}, {"*", "/", "%"}}

func (p *parser) binary(level int) node {
	if level == len(levels) {
		return p.unary()
	}
	left := p.binary(level + 1)
	for slices.Contains(levels[level], p.peek()) {
		b := binary{op: p.next(), left: left}
		if p.peek() == "bool" {
			p.next()
			b.boolean = true
		}
		if t := p.peek(); t == "on" || t == "ignoring" {
			p.next()
			b.matched, b.ignoring, b.on = true, t == "ignoring", p.labels()
			if g := p.peek(); g == "group_left" || g == "group_right" {
				p.next()
				b.group = strings.TrimPrefix(g, "group_")
				if p.peek() == "(" {
					b.include = p.labels()
				}
			}
		}
		b.right = p.binary(level + 1)
		set := level < 2
		if set && (kind(b.left) != "vector" || kind(b.right) != "vector" || b.group != "") {
			panic(b.op + " wants vectors, and no group")
		}
		if kind(b.left) == "range" || kind(b.right) == "range" || kind(b.left) == "string" || kind(b.right) == "string" {
			panic(b.op + " wants numbers")
		}
		left = b
	}
	return left
}

func (p *parser) unary() node {
	if p.peek() == "-" {
		p.next()
		return binary{op: "*", left: number(-1), right: p.unary()}
	}
	return p.primary()
}

func (p *parser) primary() node {
	t := p.next()
	switch {
	case t == "(":
		n := p.binary(0)
		p.want(")")
		return n
	case t == "":
		panic("it ends too early")
	case t[0] == '"' || t[0] == '\'':
		s, err := strconv.Unquote(`"` + t[1:len(t)-1] + `"`)
		if err != nil {
			panic(err)
		}
		return text(s)
	case t[0] >= '0' && t[0] <= '9' || t[0] == '.':
		f, err := strconv.ParseFloat(t, 64)
		if err != nil {
			panic(err)
		}
		return number(f)
	case slices.Contains(aggregations, t):
		return p.aggregate(t)
	case p.peek() == "(":
		return p.call(t)
	}
	return p.selector(t)
}

func (p *parser) labels() []string {
	out := []string{}
	p.want("(")
	for p.peek() != ")" {
		out = append(out, p.next())
		if p.peek() == "," {
			p.next()
		}
	}
	p.want(")")
	return out
}

func (p *parser) grouping(a *aggregate) {
	if t := p.peek(); t == "by" || t == "without" {
		p.next()
		a.without, a.by = t == "without", p.labels()
	}
}

func (p *parser) aggregate(fn string) node {
	a := aggregate{fn: fn}
	p.grouping(&a)
	p.want("(")
	a.arg = p.binary(0)
	if fn == "topk" {
		a.param = a.arg
		p.want(",")
		a.arg = p.binary(0)
	}
	p.want(")")
	if a.by == nil {
		p.grouping(&a)
	}
	if kind(a.arg) != "vector" {
		panic(fn + " wants a vector")
	}
	return a
}

func (p *parser) call(fn string) node {
	f, ok := functions[fn]
	if !ok {
		panic("a function unknown here: " + fn)
	}
	c := call{fn: fn}
	p.want("(")
	for p.peek() != ")" {
		c.args = append(c.args, p.binary(0))
		if p.peek() != ")" {
			p.want(",")
		}
	}
	p.want(")")
	if len(c.args) != f.args {
		panic(fmt.Sprintf("%s takes %d arguments", fn, f.args))
	}
	for i, a := range c.args {
		if (kind(a) == "range") != (f.window && i == f.args-1) {
			panic(fn + " has an argument of the wrong kind")
		}
	}
	return c
}

func (p *parser) selector(name string) node {
	if !regexp.MustCompile(`^[a-zA-Z_:]`).MatchString(name) {
		panic("unexpected " + name)
	}
	s := selector{name: name}
	if p.peek() == "{" {
		p.next()
		for p.peek() != "}" {
			m := matcher{label: p.next(), op: p.next()}
			v, ok := p.primary().(text)
			if !ok || !slices.Contains([]string{"=", "!=", "=~", "!~"}, m.op) {
				panic("a matcher of " + m.label)
			}
			m.value = string(v)
			if strings.HasSuffix(m.op, "~") {
				m.re = regexp.MustCompile("^(?:" + m.value + ")$")
			}
			s.matchers = append(s.matchers, m)
			if p.peek() == "," {
				p.next()
			}
		}
		p.want("}")
	}
	if p.peek() == "[" {
		p.next()
		s.window = window(p.next())
		p.want("]")
	}
	if p.peek() == "offset" {
		p.next()
		s.offset = window(p.next())
	}
	return s
}

// window reads a duration such as 1d or 1h30m.
func window(t string) time.Duration {
	var d time.Duration
	for _, m := range regexp.MustCompile(`([0-9]+)(ms|[smhdwy])`).FindAllStringSubmatch(t, -1) {
		n, _ := strconv.Atoi(m[1])
		d += time.Duration(n) * map[string]time.Duration{
			"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour, "y": 365 * 24 * time.Hour,
		}[m[2]]
	}
	if d == 0 {
		panic("want a duration, got " + t)
	}
	return d
}

// kind of value an expression has: scalar, vector, range or string.
func kind(n node) string {
	switch n := n.(type) {
	case number:
		return "scalar"
	case text:
		return "string"
	case selector:
		if n.window > 0 {
			return "range"
		}
	case call:
		if n.fn == "time" {
			return "scalar"
		}
	case binary:
		if kind(n.left) == "scalar" && kind(n.right) == "scalar" {
			return "scalar"
		}
	}
	return "vector"
}

// walk calls visit for every selector of an expression.
func walk(n node, visit func(selector)) {
	switch n := n.(type) {
	case selector:
		visit(n)
	case call:
		for _, a := range n.args {
			walk(a, visit)
		}
	case aggregate:
		walk(n.arg, visit)
	case binary:
		walk(n.left, visit)
		walk(n.right, visit)
	}
}

// groupings calls visit with every list of labels that an expression groups or
// matches by, and the selectors it is about.
func groupings(n node, visit func(labels []string, under []selector)) {
	under := func(n node) (out []selector) {
		walk(n, func(s selector) { out = append(out, s) })
		return out
	}
	switch n := n.(type) {
	case call:
		for _, a := range n.args {
			groupings(a, visit)
		}
	case aggregate:
		visit(n.by, under(n.arg))
		groupings(n.arg, visit)
	case binary:
		visit(n.on, append(under(n.left), under(n.right)...))
		if n.group == "left" {
			visit(n.include, under(n.right))
		}
		groupings(n.left, visit)
		groupings(n.right, visit)
	}
}
