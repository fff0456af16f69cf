package policy

import (
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/ebb-storage/ebb/internal/plan"
)

// budget is one field of budgets.
type budget struct {
	name  string
	gib   bool
	to    func(*plan.Budgets) any
	about string
}

var budgetFields = []budget{
	{name: "movesPerNode", to: func(b *plan.Budgets) any { return &b.MovesPerNode }, about: "Moves that may run at once on one node."},
	{name: "movesPerZone", to: func(b *plan.Budgets) any { return &b.MovesPerZone }, about: "Moves that may run at once in one availability zone."},
	{name: "moves", to: func(b *plan.Budgets) any { return &b.Moves }, about: "Moves that may run at once in the fleet."},
	{name: "extra", gib: true, to: func(b *plan.Budgets) any { return &b.ExtraGiB }, about: "Volumes of moves under way, beside those the disks have."},
	{name: "modificationsPerDay", to: func(b *plan.Budgets) any { return &b.ModificationsPerDay }, about: "Modifications of volumes in the fleet in 24 hours. Emergencies are not held back."},
}

func budgetNames() []string {
	out := make([]string, len(budgetFields))
	for i, f := range budgetFields {
		out[i] = f.name
	}
	return out
}

func (d *decoder) budgets(n *yaml.Node, b *plan.Budgets) {
	m := d.mapping(n, "budgets", budgetNames())
	for _, f := range budgetFields {
		e, ok := m[f.name]
		if !ok {
			continue
		}
		name := "budgets." + f.name
		s, ok := d.text(e.value, name)
		if !ok {
			continue
		}
		v, problem := f.parse(s)
		if problem != "" {
			d.complain(e.value, name, "%q: %s", clip(s), problem)
			continue
		}
		put(f.to(b), float64(v), "")
	}
	for _, p := range []struct {
		small, large string
		bad          bool
	}{
		{"movesPerNode", "moves", b.Moves > 0 && b.MovesPerNode > b.Moves},
		{"movesPerZone", "moves", b.Moves > 0 && b.MovesPerZone > b.Moves},
		{"movesPerNode", "movesPerZone", b.MovesPerZone > 0 && b.MovesPerNode > b.MovesPerZone},
	} {
		if p.bad {
			d.complain(m[p.small].value, "budgets."+p.small, "more than budgets.%s allows in all", p.large)
		}
	}
}

func (f budget) parse(s string) (int64, string) {
	if f.gib {
		v, err := parseGiB(s)
		switch {
		case err != nil:
			return 0, err.Error()
		case v == 0:
			return 0, "no move could ever begin; leave the field out for no limit"
		}
		return v, ""
	}
	v, err := strconv.ParseInt(s, 10, 32)
	switch {
	case err != nil || v < 0:
		return 0, "want a whole number of at least 1"
	case v == 0:
		return 0, "nothing could ever begin; to only watch, write mode: observe; for no limit, leave the field out"
	}
	return v, ""
}
