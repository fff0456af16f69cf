package ec2sim

import (
	"encoding/base64"
	"sort"
	"strings"
)

// pageLimits are the smallest and greatest MaxResults of an action.
type pageLimits struct{ min, max int32 }

// page is the part of a list a call asks for: what comes after a key.
type page struct {
	action string
	max    int32 // 0: no MaxResults, everything
	after  string
}

func (r *request) page(l pageLimits) (page, error) {
	p := page{action: r.action}
	n, err := r.int32("MaxResults")
	if err != nil {
		return p, err
	}
	if n != nil {
		switch {
		case *n < l.min:
			return p, apiErr("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value greater than or equal to %d.", *n, l.min)
		case *n > l.max:
			return p, apiErr("InvalidParameterValue", "Value ( %d ) for parameter maxResults is invalid. Expecting a value less than or equal to %d.", *n, l.max)
		}
		p.max = *n
	}
	if tok := r.str("NextToken"); tok != "" {
		raw, err := base64.URLEncoding.DecodeString(tok)
		action, after, ok := strings.Cut(string(raw), "\n")
		if err != nil || !ok || action != r.action {
			return p, apiErr("InvalidPaginationToken", "The specified pagination token is not valid.")
		}
		p.after = after
	}
	return p, nil
}

// noIDs refuses MaxResults together with explicit ids, as EC2 does.
func (p page) noIDs(param string, ids []string) error {
	if p.max > 0 && len(ids) > 0 {
		return apiErr("InvalidParameterCombination", "The parameter %s cannot be used with the parameter maxResults", param)
	}
	return nil
}

// paged returns the page of items, in the order of their keys, and the token
// of the next one. The token names a key, so it stays right when items come
// and go between calls.
func paged[T any](p page, items []T, key func(T) string) ([]T, string) {
	before := func(i, j int) bool { return key(items[i]) < key(items[j]) }
	if !sort.SliceIsSorted(items, before) {
		sort.SliceStable(items, before)
	}
	start := 0
	if p.after != "" {
		start = sort.Search(len(items), func(i int) bool { return key(items[i]) > p.after })
	}
	items = items[start:]
	if p.max == 0 || len(items) <= int(p.max) {
		return items, ""
	}
	items = items[:p.max]
	return items, base64.URLEncoding.EncodeToString([]byte(p.action + "\n" + key(items[len(items)-1])))
}
