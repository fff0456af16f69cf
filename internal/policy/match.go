package policy

import (
	"path"
	"slices"
	"strings"

	"github.com/ebb-storage/ebb/internal/plan"
)

// Match selects disks: all that is given must hold; of a list one pattern. A
// pattern is a name in which * stands for any text without a slash and ? for one
// letter. The zero value selects every disk.
type Match struct {
	Clusters       []string
	Namespaces     []string
	Claims         []string
	StorageClasses []string
	NodeGroups     []string
	Labels         map[string]string
	Tags           map[string]string
}

// Matches tells whether a disk is selected. What is not known of it matches no
// pattern.
func (m Match) Matches(f plan.Facts) bool {
	return anyFits(m.Clusters, f.Cluster) && anyFits(m.Namespaces, f.Namespace) && anyFits(m.Claims, f.Claim) &&
		anyFits(m.StorageClasses, f.StorageClass) && anyFits(m.NodeGroups, f.NodeGroup) &&
		allFit(m.Labels, f.Labels) && allFit(m.Tags, f.Tags)
}

func (m Match) everything() bool {
	return len(m.Clusters)+len(m.Namespaces)+len(m.Claims)+len(m.StorageClasses)+len(m.NodeGroups)+len(m.Labels)+len(m.Tags) == 0
}

// covers tells whether every disk that o selects is selected, as far as the patterns
// tell one by one.
func (m Match) covers(o Match) bool {
	return anyCovers(m.Clusters, o.Clusters) && anyCovers(m.Namespaces, o.Namespaces) && anyCovers(m.Claims, o.Claims) &&
		anyCovers(m.StorageClasses, o.StorageClasses) && anyCovers(m.NodeGroups, o.NodeGroups) &&
		allCover(m.Labels, o.Labels) && allCover(m.Tags, o.Tags)
}

func anyCovers(patterns, others []string) bool {
	if len(patterns) == 0 || len(others) == 0 {
		return len(patterns) == 0
	}
	return !slices.ContainsFunc(others, func(q string) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool { return covers(p, q) })
	})
}

func allCover(patterns, others map[string]string) bool {
	for k, p := range patterns {
		if q, ok := others[k]; !ok || !covers(p, q) {
			return false
		}
	}
	return true
}

// covers tells that a pattern fits whatever another one does. It is sure where the
// other has no wildcard, and where it itself has none but *, which stands for what a
// wildcard of the other does: * and ? stand for no slash, but for * alone.
func covers(p, q string) bool {
	switch {
	case p == "*", p == q:
		return true
	case !strings.ContainsAny(q, `*?[\`):
		return fits(p, q)
	}
	return q != "*" && !strings.ContainsAny(p, `?[\`) && !strings.ContainsAny(q, `[\`) && fits(p, q)
}

// anyFits tells whether one of the patterns fits; none given fit anything.
func anyFits(patterns []string, s string) bool {
	return len(patterns) == 0 || s != "" && slices.ContainsFunc(patterns, func(p string) bool { return fits(p, s) })
}

func allFit(patterns, values map[string]string) bool {
	for k, p := range patterns {
		if v, ok := values[k]; !ok || !fits(p, v) {
			return false
		}
	}
	return true
}

func fits(pattern, s string) bool {
	if pattern == "*" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
