package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Budgets bound what runs at once. 0: no limit. Emergencies are never held back
// by a budget, but count.
type Budgets struct {
	MovesPerNode int `json:"movesPerNode,omitempty"`
	MovesPerZone int `json:"movesPerZone,omitempty"`
	Moves        int `json:"moves,omitempty"` // in the fleet
	// ExtraGiB is what moves under way may take beside the disks' present volumes.
	ExtraGiB int64 `json:"extraGiB,omitempty"`
	// ModificationsPerDay of all volumes together.
	ModificationsPerDay int `json:"modificationsPerDay,omitempty"`
}

// Running is what is under way already. The zero value is nothing.
type Running struct {
	MovesByNode   map[string]int `json:"movesByNode,omitempty"`
	MovesByZone   map[string]int `json:"movesByZone,omitempty"`
	Moves         int            `json:"moves,omitempty"`
	ExtraGiB      int64          `json:"extraGiB,omitempty"`
	Modifications int            `json:"modifications,omitempty"` // in the last 24 hours
}

// Held is a decision that a budget holds back.
type Held struct {
	Disk   contract.DiskID `json:"disk"`
	Why    Why             `json:"why"` // WhyBudget
	Reason string          `json:"reason"`
}

// Schedule chooses which decisions start now, in the order in which they should:
// emergencies first (the soonest full first), then growth, then changes in place, then
// moves, those that were begun before, then the soonest paid back; by disk id where nothing else differs. Decisions with
// nothing to do are left out of both results.
func Schedule(_ time.Time, decisions []Decision, b Budgets, running Running) (start []Decision, held []Held) {
	var todo []Decision
	for _, d := range decisions {
		if d.Action != None && d.Action != "" {
			todo = append(todo, d)
		}
	}
	slices.SortStableFunc(todo, before)
	u := used{b: b, r: running, node: map[string]int{}, zone: map[string]int{}}
	for _, d := range todo {
		if why := u.take(d); why != "" {
			held = append(held, Held{Disk: d.Disk, Why: WhyBudget, Reason: why})
			continue
		}
		start = append(start, d)
	}
	return start, held
}

func before(a, b Decision) int {
	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		byTimeToFull(a, b),
		cmp.Compare(a.Payback, b.Payback),
		cmp.Compare(b.SavingUSDMonth, a.SavingUSDMonth),
		cmp.Compare(a.Disk, b.Disk),
	)
}

func rank(d Decision) int {
	switch {
	case d.Urgent:
		return 0
	case d.Action == Retype, d.Resume:
		return 2
	case d.Action != Shrink:
		return 1
	}
	return 3
}

func byTimeToFull(a, b Decision) int {
	if a.Action == Shrink || a.Action == Retype || a.TimeToFull == b.TimeToFull {
		return 0
	}
	switch { // 0: not filling
	case a.TimeToFull == 0:
		return 1
	case b.TimeToFull == 0:
		return -1
	}
	return cmp.Compare(a.TimeToFull, b.TimeToFull)
}

// used counts budgets down.
type used struct {
	b          Budgets
	r          Running
	node, zone map[string]int // beside what runs already
}

// take counts a decision, or says which budget it would exceed.
func (u *used) take(d Decision) string {
	switch d.Action {
	case Grow, Append, Retype:
		if !d.Urgent && u.b.ModificationsPerDay > 0 && u.r.Modifications >= u.b.ModificationsPerDay {
			return fmt.Sprintf("%d volumes were modified in 24 hours, %d are allowed", u.r.Modifications, u.b.ModificationsPerDay)
		}
		u.r.Modifications++
	case Shrink:
		if d.Resume {
			return "" // it counts already, by its volume
		}
		if why := u.full(d); why != "" {
			return why
		}
		u.node[d.Node]++
		u.zone[d.Zone]++
		u.r.Moves++
		u.r.ExtraGiB += d.GiB
	}
	return ""
}

func (u *used) full(d Decision) string {
	node, zone := u.r.MovesByNode[d.Node]+u.node[d.Node], u.r.MovesByZone[d.Zone]+u.zone[d.Zone]
	switch {
	case u.b.Moves > 0 && u.r.Moves >= u.b.Moves:
		return fmt.Sprintf("%d moves run in the fleet, %d are allowed", u.r.Moves, u.b.Moves)
	case u.b.MovesPerNode > 0 && node >= u.b.MovesPerNode:
		return fmt.Sprintf("%d moves run on node %s, %d are allowed", node, d.Node, u.b.MovesPerNode)
	case u.b.MovesPerZone > 0 && zone >= u.b.MovesPerZone:
		return fmt.Sprintf("%d moves run in zone %s, %d are allowed", zone, d.Zone, u.b.MovesPerZone)
	case u.b.ExtraGiB > 0 && u.r.ExtraGiB > 0 && u.r.ExtraGiB+d.GiB > u.b.ExtraGiB:
		return fmt.Sprintf("%d GiB more than the disks need are in use by moves, %d more would exceed the allowed %d", u.r.ExtraGiB, d.GiB, u.b.ExtraGiB)
	}
	return ""
}
