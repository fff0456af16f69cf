package monitoring

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// series is a metric with labels over time, a sample every step from 0 on. NaN is
// no sample.
type series struct {
	labels map[string]string // with __name__
	values []float64
}

// step is how far samples are apart.
const step = time.Minute

// world is what is evaluated against.
type world struct{ series []series }

// epoch is the Unix time of the first sample.
const epoch = 1_800_000_000

type sample struct {
	labels map[string]string
	value  float64
}

func clip(labels map[string]string, keep func(string) bool) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		if k != "__name__" && keep(k) {
			out[k] = v
		}
	}
	return out
}

func key(labels map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if k != "__name__" && labels[k] != "" {
			fmt.Fprintf(&b, "%s=%q,", k, labels[k])
		}
	}
	return b.String()
}

func all(string) bool { return true }

func (s selector) matches(labels map[string]string) bool {
	if labels["__name__"] != s.name {
		return false
	}
	for _, m := range s.matchers {
		v := labels[m.label]
		ok := v == m.value
		if m.re != nil {
			ok = m.re.MatchString(v)
		}
		if ok == strings.HasPrefix(m.op, "!") {
			return false
		}
	}
	return true
}

// eval is the value of an expression at a minute.
func (w world) eval(n node, at int) []sample {
	switch n := n.(type) {
	case number:
		return []sample{{value: float64(n)}}
	case selector:
		var out []sample
		for _, s := range w.series {
			if !n.matches(s.labels) {
				continue
			}
			i := at - int(n.offset/step)
			for back := 0; back < 5 && i-back >= 0; back++ { // as Prometheus' lookback
				if i-back < len(s.values) && !math.IsNaN(s.values[i-back]) {
					out = append(out, sample{s.labels, s.values[i-back]})
					break
				}
			}
		}
		return out
	case call:
		return w.call(n, at)
	case aggregate:
		return w.aggregate(n, at)
	case binary:
		return w.binary(n, at)
	}
	panic(fmt.Sprintf("%T has no value", n))
}

func (w world) call(c call, at int) []sample {
	switch c.fn {
	case "time":
		return []sample{{value: epoch + float64(at)*step.Seconds()}}
	case "absent":
		if len(w.eval(c.args[0], at)) == 0 {
			return []sample{{labels: map[string]string{}, value: 1}}
		}
		return nil
	}
	s, ok := c.args[len(c.args)-1].(selector)
	if !ok || s.window == 0 {
		panic(c.fn + " is not evaluated here")
	}
	var out []sample
	for _, in := range w.series {
		if !s.matches(in.labels) {
			continue
		}
		var vs []float64
		for i := max(at-int(s.window/step)+1, 0); i <= at && i < len(in.values); i++ {
			if !math.IsNaN(in.values[i]) {
				vs = append(vs, in.values[i])
			}
		}
		if v, ok := over(c.fn, vs, s.window); ok {
			out = append(out, sample{clip(in.labels, all), v})
		}
	}
	return out
}

// over is a function of a range's values.
func over(fn string, vs []float64, window time.Duration) (float64, bool) {
	if len(vs) == 0 {
		return 0, false
	}
	var sum, rise, changes float64
	for i, v := range vs {
		sum += v
		if i == 0 {
			continue
		}
		if v != vs[i-1] {
			changes++
		}
		if v < vs[i-1] { // a counter began anew
			rise += v
		} else {
			rise += v - vs[i-1]
		}
	}
	switch fn {
	case "max_over_time":
		return slices.Max(vs), true
	case "min_over_time":
		return slices.Min(vs), true
	case "avg_over_time":
		return sum / float64(len(vs)), true
	case "changes":
		return changes, true
	case "increase":
		return rise, len(vs) > 1
	case "rate":
		return rise / window.Seconds(), len(vs) > 1
	}
	panic(fn + " is not evaluated here")
}

func (w world) aggregate(a aggregate, at int) []sample {
	in := w.eval(a.arg, at)
	if a.fn == "topk" {
		k := int(w.eval(a.param, at)[0].value)
		slices.SortStableFunc(in, func(x, y sample) int { return int(math.Copysign(1, y.value-x.value)) })
		return in[:min(k, len(in))]
	}
	groups := map[string][]sample{}
	for _, s := range in {
		l := clip(s.labels, func(k string) bool { return slices.Contains(a.by, k) != a.without })
		groups[key(l)] = append(groups[key(l)], sample{l, s.value})
	}
	var out []sample
	for _, k := range slices.Sorted(maps.Keys(groups)) {
		g := groups[k]
		v := g[0].value
		for _, s := range g[1:] {
			switch a.fn {
			case "sum", "avg":
				v += s.value
			case "max":
				v = max(v, s.value)
			case "min":
				v = min(v, s.value)
			}
		}
		switch a.fn {
		case "avg":
			v /= float64(len(g))
		case "count":
			v = float64(len(g))
		}
		out = append(out, sample{g[0].labels, v})
	}
	return out
}

func (w world) binary(b binary, at int) []sample {
	left, right := w.eval(b.left, at), w.eval(b.right, at)
	sig := func(s sample) string {
		return key(clip(s.labels, func(k string) bool { return !b.matched || slices.Contains(b.on, k) != b.ignoring }))
	}
	has := func(in []sample, s sample) bool {
		return slices.ContainsFunc(in, func(o sample) bool { return sig(o) == sig(s) })
	}
	switch b.op {
	case "and", "unless":
		return slices.DeleteFunc(left, func(s sample) bool { return has(right, s) != (b.op == "and") })
	case "or":
		for _, s := range right {
			if !has(left, s) {
				left = append(left, s)
			}
		}
		return left
	}
	compare := slices.Contains(levels[2], b.op)
	result := func(labels map[string]string, x, y, kept float64) []sample {
		v, ok := apply(b.op, x, y)
		if compare {
			if !ok {
				return nil
			}
			return []sample{{labels, kept}}
		}
		return []sample{{clip(labels, all), v}}
	}
	var out []sample
	ls, rs := kind(b.left) == "scalar", kind(b.right) == "scalar"
	switch {
	case ls && rs:
		v, _ := apply(b.op, left[0].value, right[0].value)
		return []sample{{value: v}}
	case rs:
		for _, s := range left {
			out = append(out, result(s.labels, s.value, right[0].value, s.value)...)
		}
	case ls:
		for _, s := range right {
			out = append(out, result(s.labels, left[0].value, s.value, s.value)...)
		}
	default:
		for _, s := range left {
			var match []sample
			for _, o := range right {
				if sig(o) == sig(s) {
					match = append(match, o)
				}
			}
			if len(match) > 1 || b.group == "right" {
				panic("many to many: " + sig(s))
			}
			if len(match) == 0 {
				continue
			}
			labels := s.labels
			if b.group == "left" {
				labels = maps.Clone(labels)
				for _, l := range b.include {
					labels[l] = match[0].labels[l]
				}
			} else if slices.ContainsFunc(left, func(o sample) bool { return sig(o) == sig(s) && key(o.labels) != key(s.labels) }) {
				panic("many to one without group_left: " + sig(s))
			}
			out = append(out, result(labels, s.value, match[0].value, s.value)...)
		}
	}
	return out
}

func apply(op string, x, y float64) (float64, bool) {
	switch op {
	case "+":
		return x + y, true
	case "-":
		return x - y, true
	case "*":
		return x * y, true
	case "/":
		return x / y, true
	case "==":
		return x, x == y
	case "!=":
		return x, x != y
	case "<":
		return x, x < y
	case ">":
		return x, x > y
	case "<=":
		return x, x <= y
	case ">=":
		return x, x >= y
	}
	panic("operator " + op)
}
