package fleet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func shrink(disk, node string, gib int64) plan.Decision {
	return fleet.Brief(plan.Decision{Disk: contract.DiskID(disk), Node: node, Zone: "z", Wanted: plan.Shrink, GiB: gib})
}

func TestLedgerCountsWhatIsNotSeenYet(t *testing.T) {
	var l fleet.Ledger
	require.True(t, l.Stale(noon))
	l.Count(noon, fleet.Counted{})
	ask := fleet.Ask{Budgets: plan.Budgets{Moves: 2}, Want: []plan.Decision{shrink("a", "n", 10), shrink("b", "n", 10), shrink("c", "n", 10)}}
	r := l.Take(noon, ask)
	require.Equal(t, []contract.DiskID{"a", "b"}, r.Begin)
	require.Equal(t, "2 moves run in the fleet, 2 are allowed", r.Held[0].Reason)

	// Another one has no room, whatever visibility shows; the same one asked again has.
	other := fleet.Ask{Budgets: plan.Budgets{Moves: 2}, Want: []plan.Decision{shrink("d", "n", 10)}}
	require.Empty(t, l.Take(noon, other).Begin)
	l.Count(noon.Add(90*time.Second), fleet.Counted{Moves: []fleet.Move{{Disk: "a", Node: "n", Zone: "z", GiB: 10}}})
	require.Empty(t, l.Take(noon, other).Begin, "b is not seen yet")
	again := l.Take(noon, fleet.Ask{Budgets: plan.Budgets{Moves: 2}, Want: []plan.Decision{shrink("b", "n", 10)}})
	require.Equal(t, []contract.DiskID{"b"}, again.Begin)
	require.Equal(t, 1, again.Running.Moves)

	// An end makes room at once, by whatever it is counted.
	other.Ended = []contract.DiskID{"a"}
	require.Equal(t, []contract.DiskID{"d"}, l.Take(noon, other).Begin)
	back := fleet.Ask{Budgets: plan.Budgets{Moves: 2}, Want: []plan.Decision{shrink("a", "n", 10)}}
	require.Empty(t, l.Take(noon, back).Begin)
	back.Ended = []contract.DiskID{"d"}
	require.Equal(t, []contract.DiskID{"a"}, l.Take(noon, back).Begin, "a again, soon after its end")
	other.Ended = nil
	require.Empty(t, l.Take(noon, other).Begin)
}

func TestCountedTakesTheGreaterNumber(t *testing.T) {
	c := fleet.Counted{
		EC2:   plan.Running{MovesByNode: map[string]int{"n": 1, "m": 2}, MovesByZone: map[string]int{"z": 3}, Moves: 3, ExtraGiB: 30, Modifications: 7},
		Moves: []fleet.Move{{Disk: "a", Node: "n", Zone: "z", GiB: 20}, {Disk: "b", Node: "n", Zone: "z", GiB: 20}, {Disk: "c"}},
	}
	require.Equal(t, plan.Running{
		MovesByNode: map[string]int{"n": 2, "m": 2}, MovesByZone: map[string]int{"z": 3}, Moves: 3, ExtraGiB: 40, Modifications: 7,
	}, c.Running())
}

func TestLedgerModificationsStaySpent(t *testing.T) {
	var l fleet.Ledger
	l.Count(noon, fleet.Counted{EC2: plan.Running{Modifications: 1}})
	grow := func(d string) fleet.Ask {
		return fleet.Ask{Budgets: plan.Budgets{ModificationsPerDay: 2}, Want: []plan.Decision{{Disk: contract.DiskID(d), Action: plan.Grow, GiB: 10}}, Ended: []contract.DiskID{"a"}}
	}
	require.Len(t, l.Take(noon, grow("a")).Begin, 1)
	require.Empty(t, l.Take(noon, grow("b")).Begin)
	l.Count(noon.Add(fleet.Remember), fleet.Counted{EC2: plan.Running{Modifications: 1}})
	require.Len(t, l.Take(noon, grow("b")).Begin, 1, "it was not modified after all")
}

// TestLedgerNeverExceeds: however late visibility is within what is remembered, and
// whoever asks, no more moves run than the budgets allow.
func TestLedgerNeverExceeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := plan.Budgets{Moves: rapid.IntRange(1, 4).Draw(t, "moves"), MovesPerNode: rapid.IntRange(0, 2).Draw(t, "per node"), ExtraGiB: int64(rapid.IntRange(0, 30).Draw(t, "extra"))}
		var l fleet.Ledger
		now, n := noon, 0
		begun := map[contract.DiskID]time.Time{}
		var running, recent []fleet.Move // recent have ended, but may still be seen
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 59).Draw(t, "seconds")) * time.Second)
			if l.Stale(now) {
				seen := slices.DeleteFunc(slices.Clone(running), func(m fleet.Move) bool {
					return now.Sub(begun[m.Disk]) < fleet.Remember && rapid.Bool().Draw(t, "late")
				})
				for _, m := range recent {
					if rapid.Bool().Draw(t, "ghost") {
						seen = append(seen, m)
					}
				}
				l.Count(now, fleet.Counted{Moves: seen})
				recent = nil
			}
			ask := fleet.Ask{Budgets: b}
			if len(running) > 0 && rapid.Bool().Draw(t, "ends") {
				i := rapid.IntRange(0, len(running)-1).Draw(t, "which")
				if rapid.Bool().Draw(t, "said") {
					ask.Ended = append(ask.Ended, running[i].Disk)
				}
				recent = append(recent, running[i])
				running = slices.Delete(running, i, i+1)
			}
			for range rapid.IntRange(0, 3).Draw(t, "wanted") {
				n++
				ask.Want = append(ask.Want, shrink(fmt.Sprintf("d%03d", n), rapid.SampledFrom([]string{"n", "m"}).Draw(t, "node"), int64(rapid.IntRange(1, 20).Draw(t, "gib"))))
			}
			for _, d := range l.Take(now, ask).Begin {
				w := ask.Want[slices.IndexFunc(ask.Want, func(w plan.Decision) bool { return w.Disk == d })]
				running = append(running, fleet.Move{Disk: d, Node: w.Node, Zone: w.Zone, GiB: w.GiB})
				begun[d] = now
			}
			nodes, gib := map[string]int{}, int64(0)
			for _, m := range running {
				nodes[m.Node]++
				gib += m.GiB
			}
			if len(running) > b.Moves || b.MovesPerNode > 0 && max(nodes["n"], nodes["m"]) > b.MovesPerNode || b.ExtraGiB > 0 && gib > b.ExtraGiB && len(running) > 1 {
				t.Fatalf("%d moves of %d GiB run, by node %v; allowed: %+v", len(running), gib, nodes, b)
			}
		}
	})
}

func TestDiffers(t *testing.T) {
	was := plan.Decision{Wanted: plan.Shrink, GiB: 100, SavingUSDMonth: 20}
	grown := plan.Decision{Wanted: plan.Grow, GiB: 100}
	for name, c := range map[string]struct {
		was, now plan.Decision
		want     bool
	}{
		"the same":                  {was, was, false},
		"a little more":             {was, plan.Decision{Wanted: plan.Shrink, GiB: 90, SavingUSDMonth: 24.9}, false},
		"a quarter more":            {was, plan.Decision{Wanted: plan.Shrink, GiB: 80, SavingUSDMonth: 25}, true},
		"less":                      {was, plan.Decision{Wanted: plan.Shrink, GiB: 150, SavingUSDMonth: 5}, false},
		"a saving instead of none":  {plan.Decision{Wanted: plan.Shrink, SavingUSDMonth: -3}, was, true},
		"none, as before":           {plan.Decision{Wanted: plan.Shrink}, plan.Decision{Wanted: plan.Shrink}, false},
		"growth instead":            {was, grown, true},
		"a shrink instead":          {grown, was, true},
		"a change in place instead": {was, plan.Decision{Wanted: plan.Retype, GiB: 100, SavingUSDMonth: 20}, true},
		"the same change": {
			plan.Decision{Wanted: plan.Retype, SavingUSDMonth: 20}, plan.Decision{Wanted: plan.Retype, SavingUSDMonth: 21}, false,
		},
		"another way to grow": {grown, plan.Decision{Wanted: plan.Append, GiB: 110}, false},
		"more growth":         {grown, plan.Decision{Wanted: plan.Grow, GiB: 125}, true},
		"urgent growth":       {grown, plan.Decision{Wanted: plan.Grow, GiB: 100, Urgent: true}, true},
		"urgent as before":    {plan.Decision{Wanted: plan.Grow, GiB: 100, Urgent: true}, plan.Decision{Wanted: plan.Grow, GiB: 110, Urgent: true}, false},
	} {
		require.Equal(t, c.want, fleet.Differs(c.was, c.now), name)
	}
}

func TestBriefTellsThatAMoveIsTakenUp(t *testing.T) {
	require.True(t, fleet.Brief(plan.Decision{Wanted: plan.Shrink, Resume: true}).Resume)
}
