package ec2sim

import (
	"strconv"
	"strings"
	"time"
)

type filter struct {
	name     string
	values   []string
	exact    map[string]bool // values without wildcards
	patterns []string        // the others
}

func (r *request) filters() ([]filter, error) {
	var out []filter
	n := 0
	for _, i := range r.indices("Filter") {
		p := "Filter." + strconv.Itoa(i)
		f := filter{name: r.form.Get(p + ".Name"), values: r.list(p + ".Value")}
		if f.name == "" {
			return nil, errMissing("filter name")
		}
		if len(f.values) == 0 {
			return nil, apiErr("InvalidParameterValue", "The filter '%s' has no values", f.name)
		}
		n += len(f.values)
		f.exact = map[string]bool{}
		for _, v := range f.values {
			if strings.ContainsAny(v, `*?\`) {
				f.patterns = append(f.patterns, v)
			} else {
				f.exact[v] = true
			}
		}
		out = append(out, f)
	}
	if n > 200 {
		return nil, apiErr("FilterLimitExceeded", "The maximum number of filter values specified on a single call is 200")
	}
	return out, nil
}

// filtered keeps the items that match one value of every filter. get returns
// an item's values for a filter name; false when EC2 has no such filter.
func filtered[T any](r *request, items []T, get func(item T, name string) ([]string, bool)) ([]T, error) {
	fs, err := r.filters()
	if err != nil || len(fs) == 0 {
		return items, err
	}
	var zero T
	for _, f := range fs {
		if _, ok := get(zero, f.name); !ok {
			return nil, apiErr("InvalidParameterValue", "The filter '%s' is invalid", f.name)
		}
	}
	var out []T
next:
	for _, item := range items {
		for _, f := range fs {
			have, _ := get(item, f.name)
			if !f.matches(have) {
				continue next
			}
		}
		out = append(out, item)
	}
	return out, nil
}

func (f filter) matches(values []string) bool {
	for _, v := range values {
		if f.exact[v] {
			return true
		}
		for _, p := range f.patterns {
			if matches(p, v) {
				return true
			}
		}
	}
	return false
}

// matches compares with EC2's wildcards: * any run, ? one character, \ escapes.
func matches(pattern, s string) bool {
	if pattern == "" {
		return s == ""
	}
	switch pattern[0] {
	case '*':
		for i := 0; i <= len(s); i++ {
			if matches(pattern[1:], s[i:]) {
				return true
			}
		}
		return false
	case '?':
		return s != "" && matches(pattern[1:], s[1:])
	case '\\':
		if len(pattern) > 1 {
			pattern = pattern[1:]
		}
	}
	return s != "" && s[0] == pattern[0] && matches(pattern[1:], s[1:])
}

// tagFilter answers the tag filters every resource has.
func tagFilter(tags map[string]string, name string) ([]string, bool) {
	if name == "tag-key" {
		return sortedKeys(tags), true
	}
	key, ok := strings.CutPrefix(name, "tag:")
	if !ok {
		return nil, false
	}
	if v, has := tags[key]; has {
		return []string{v}, true
	}
	return nil, true
}

func one(s string) ([]string, bool) { return []string{s}, true }

func oneBool(b bool) ([]string, bool) { return one(strconv.FormatBool(b)) }

func oneInt[N int | int32 | int64](n N) ([]string, bool) { return one(strconv.FormatInt(int64(n), 10)) }

func oneTime(t time.Time) ([]string, bool) { return one(timeXML(t)) }
