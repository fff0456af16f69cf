package plan_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

func drawDecisions(t *rapid.T) []plan.Decision {
	out := make([]plan.Decision, rapid.IntRange(0, 40).Draw(t, "decisions"))
	for i := range out {
		node := rapid.IntRange(0, 4).Draw(t, "node")
		d := plan.Decision{
			Disk: contract.DiskID(fmt.Sprintf("d-%017x", i)), Node: fmt.Sprintf("i-%08x", node), Zone: fmt.Sprintf("zone-%d", node%2),
			Action:         rapid.SampledFrom([]plan.Action{plan.None, plan.Grow, plan.Append, plan.Retype, plan.Shrink, plan.Shrink}).Draw(t, "action"),
			GiB:            rapid.Int64Range(1, 500).Draw(t, "gib"),
			Payback:        time.Duration(rapid.IntRange(0, 3).Draw(t, "payback")) * time.Hour,
			SavingUSDMonth: float64(rapid.IntRange(0, 3).Draw(t, "saving")),
		}
		if d.Action != plan.Shrink && d.Action != plan.Retype {
			d.Urgent = rapid.Bool().Draw(t, "urgent")
			d.TimeToFull = time.Duration(rapid.IntRange(0, 3).Draw(t, "timeToFull")) * time.Minute
		}
		out[i] = d
	}
	return out
}

func TestScheduleKeepsBudgets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ds := drawDecisions(t)
		b := plan.Budgets{
			MovesPerNode: rapid.IntRange(0, 3).Draw(t, "perNode"), MovesPerZone: rapid.IntRange(0, 5).Draw(t, "perZone"),
			Moves: rapid.IntRange(0, 8).Draw(t, "moves"), ExtraGiB: rapid.SampledFrom([]int64{0, 600, 2000}).Draw(t, "extra"),
			ModificationsPerDay: rapid.IntRange(0, 6).Draw(t, "modifications"),
		}
		r := plan.Running{
			MovesByNode: map[string]int{"i-00000001": rapid.IntRange(0, 2).Draw(t, "runOnNode")}, MovesByZone: map[string]int{"zone-1": rapid.IntRange(0, 2).Draw(t, "runInZone")},
			Moves: rapid.IntRange(0, 4).Draw(t, "run"), ExtraGiB: rapid.Int64Range(0, 500).Draw(t, "runGiB"), Modifications: rapid.IntRange(0, 5).Draw(t, "runMods"),
		}
		start, held := plan.Schedule(now, ds, b, r)

		node, zone, moves, gibs, mods, todo := map[string]int{}, map[string]int{}, 0, int64(0), 0, 0
		for _, d := range start {
			switch d.Action {
			case plan.Shrink:
				node[d.Node]++
				zone[d.Zone]++
				moves++
				gibs += d.GiB
			case plan.Grow, plan.Append, plan.Retype:
				if !d.Urgent {
					mods++
				}
			}
		}
		for n, k := range node {
			require.True(t, b.MovesPerNode == 0 || k+r.MovesByNode[n] <= b.MovesPerNode, "node %s: %d", n, k)
		}
		for z, k := range zone {
			require.True(t, b.MovesPerZone == 0 || k+r.MovesByZone[z] <= b.MovesPerZone, "zone %s: %d", z, k)
		}
		require.True(t, moves == 0 || b.Moves == 0 || moves+r.Moves <= b.Moves)
		require.True(t, moves <= 1 || b.ExtraGiB == 0 || gibs+r.ExtraGiB <= b.ExtraGiB, "a single move beyond the budget may run alone")
		require.True(t, mods == 0 || b.ModificationsPerDay == 0 || mods+r.Modifications <= b.ModificationsPerDay)

		started := map[contract.DiskID]bool{}
		emergencies := true
		for _, d := range start {
			started[d.Disk] = true
			require.False(t, d.Urgent && !emergencies, "emergencies come first")
			emergencies = emergencies && d.Urgent
		}
		for _, h := range held {
			require.False(t, started[h.Disk])
			require.Equal(t, plan.WhyBudget, h.Why)
			require.NotEmpty(t, h.Reason)
		}
		for _, d := range ds {
			if d.Action != plan.None {
				todo++
			}
			require.True(t, !d.Urgent || d.Action == plan.None || started[d.Disk], "no budget holds an emergency back")
		}
		require.Equal(t, todo, len(start)+len(held), "nothing is lost")

		again, heldAgain := plan.Schedule(now, rapid.Permutation(ds).Draw(t, "order"), b, r)
		require.Equal(t, start, again, "the order of the input makes no difference")
		require.Equal(t, held, heldAgain)
	})
}

func TestScheduleOrder(t *testing.T) {
	ds := []plan.Decision{
		{Disk: "slow", Action: plan.Shrink, Payback: 3 * time.Hour},
		{Disk: "none", Action: plan.None},
		{Disk: "quick", Action: plan.Shrink, Payback: time.Hour},
		{Disk: "in place", Action: plan.Retype, SavingUSDMonth: 1},
		{Disk: "more", Action: plan.Retype, SavingUSDMonth: 2},
		{Disk: "calm", Action: plan.Grow},
		{Disk: "soon", Action: plan.Grow, TimeToFull: time.Hour},
		{Disk: "later", Action: plan.Append, Urgent: true, TimeToFull: 9 * time.Minute},
		{Disk: "now", Action: plan.Grow, Urgent: true, TimeToFull: time.Minute},
	}
	start, held := plan.Schedule(now, ds, plan.Budgets{Moves: 1}, plan.Running{})
	var order []contract.DiskID
	for _, d := range start {
		order = append(order, d.Disk)
	}
	require.Equal(t, []contract.DiskID{"now", "later", "soon", "calm", "more", "in place", "quick"}, order)
	require.Equal(t, []plan.Held{{Disk: "slow", Why: plan.WhyBudget, Reason: "1 moves run in the fleet, 1 are allowed"}}, held)
}

// A move that was left takes up the budget it counts in.
func TestScheduleTakesUpWhatWasLeft(t *testing.T) {
	left := plan.Decision{Disk: "left", Node: "n", Action: plan.Shrink, Resume: true}
	other := plan.Decision{Disk: "other", Node: "n", Action: plan.Shrink, Payback: 1}
	start, held := plan.Schedule(now, []plan.Decision{other, left}, plan.Budgets{MovesPerNode: 1, Moves: 1},
		plan.Running{MovesByNode: map[string]int{"n": 1}, Moves: 1, ExtraGiB: 10})
	require.Equal(t, []plan.Decision{left}, start)
	require.Len(t, held, 1)
}

// A move larger than the whole budget must be possible, alone.
func TestScheduleStarvesNobody(t *testing.T) {
	big := plan.Decision{Disk: "big", Action: plan.Shrink, GiB: 900}
	b := plan.Budgets{ExtraGiB: 100}
	start, _ := plan.Schedule(now, []plan.Decision{big}, b, plan.Running{})
	require.Len(t, start, 1)
	start, held := plan.Schedule(now, []plan.Decision{big}, b, plan.Running{ExtraGiB: 1})
	require.Empty(t, start)
	require.Len(t, held, 1)
}

// A disk whose writes wait already comes before one that will be full in a minute.
func TestScheduleHelpsTheFullFirst(t *testing.T) {
	soon := disk(1000, 100, 99)
	soon.Disk, soon.FillRate = "d-00000000000000000", float64(gib)/60
	full := disk(1000, 100, 99)
	full.Full, full.UsedBytes = true, full.PoolBytes()
	var ds []plan.Decision
	for _, f := range []plan.Facts{soon, full} {
		ds = append(ds, plan.Decide(now, f, known(99), enforce(), plan.DefaultLimits(), prices()))
	}
	start, _ := plan.Schedule(now, ds, plan.Budgets{}, plan.Running{})
	require.Len(t, start, 2)
	require.Equal(t, full.Disk, start[0].Disk)
}
