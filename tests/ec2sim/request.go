package ec2sim

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// request is one call of an action: the decoded form and what the server
// decided about the call before the action runs.
type request struct {
	ctx    context.Context
	action string
	id     string
	form   url.Values
	// hang and failCreate come from an injected fault.
	hang bool
	// failAsync and failMessage are of a Fault.FailAsync.
	failAsync, failMessage string
}

func (r *request) str(key string) string { return r.form.Get(key) }

func (r *request) has(key string) bool { return r.form.Get(key) != "" }

// int32 returns nil when the parameter is absent.
func (r *request) int32(key string) (*int32, error) {
	s := r.form.Get(key)
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return nil, errValue(s, lowerFirst(key), "Expected an integer.")
	}
	v := int32(n)
	return &v, nil
}

func (r *request) bool(key string) (bool, error) {
	switch s := r.form.Get(key); s {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, errValue(s, lowerFirst(key), "Expected true or false.")
	}
}

// indices returns the numbers n for which "prefix.n" or "prefix.n.*" occurs.
func (r *request) indices(prefix string) []int {
	var ns []int
	for key := range r.form {
		rest, ok := strings.CutPrefix(key, prefix+".")
		if !ok {
			continue
		}
		head, _, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(head); err == nil && !slices.Contains(ns, n) {
			ns = append(ns, n)
		}
	}
	sort.Ints(ns)
	return ns
}

// list returns "prefix.1", "prefix.2", ... in order.
func (r *request) list(prefix string) []string {
	var out []string
	for _, n := range r.indices(prefix) {
		out = append(out, r.form.Get(prefix+"."+strconv.Itoa(n)))
	}
	return out
}

// tags reads "prefix.n.Key" and "prefix.n.Value".
func (r *request) tags(prefix string) []tag {
	var out []tag
	for _, n := range r.indices(prefix) {
		p := prefix + "." + strconv.Itoa(n)
		out = append(out, tag{
			Key:      r.form.Get(p + ".Key"),
			Value:    r.form.Get(p + ".Value"),
			hasValue: r.form.Has(p + ".Value"),
		})
	}
	return out
}

// tagSpecification collects the tags meant for a resource of the given type.
func (r *request) tagSpecification(resourceType string, limit int) (map[string]string, error) {
	var all []tag
	for _, n := range r.indices("TagSpecification") {
		p := "TagSpecification." + strconv.Itoa(n)
		if rt := r.form.Get(p + ".ResourceType"); rt != resourceType {
			return nil, apiErr("InvalidParameterValue",
				"'%s' is not a valid taggable resource type for this operation.", rt)
		}
		all = append(all, r.tags(p+".Tag")...)
	}
	return addTags(nil, all, limit)
}

// fingerprint identifies the request's parameters for idempotency.
func (r *request) fingerprint() string {
	form := url.Values{}
	for key, vals := range r.form {
		switch key {
		case "ClientToken", "DryRun", "Version", "Action":
		default:
			form[key] = vals
		}
	}
	return form.Encode()
}

var (
	volumeID   = regexp.MustCompile(`^vol-[0-9a-f]{8}([0-9a-f]{9})?$`)
	snapshotID = regexp.MustCompile(`^snap-[0-9a-f]{8}([0-9a-f]{9})?$`)
	instanceID = regexp.MustCompile(`^i-[0-9a-f]{8}([0-9a-f]{9})?$`)
)

func checkVolumeID(id string) error {
	if !volumeID.MatchString(id) {
		return errValue(id, "volumeId", "Expected: 'vol-...'.")
	}
	return nil
}

func checkSnapshotID(id string) error {
	if !snapshotID.MatchString(id) {
		return errValue(id, "snapshotId", "Expected: 'snap-...'.")
	}
	return nil
}

func checkInstanceID(id string) error {
	if !instanceID.MatchString(id) {
		return apiErr("InvalidInstanceID.Malformed", "Invalid id: %q", id)
	}
	return nil
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
