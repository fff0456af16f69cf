package fleet

import (
	"maps"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

const (
	// countAge is how old a count may be for an answer. It walks over all of EC2's
	// volumes.
	countAge = time.Minute
	// Remember is how long what was allowed counts at least, whether Temporal's
	// visibility shows it or not, which may be behind.
	Remember = 2 * time.Minute
)

// Counted is what runs, as EC2 and Temporal's visibility tell it.
type Counted struct {
	EC2   plan.Running `json:"ec2"`             // moves by the volumes that are for them
	Moves []Move       `json:"moves,omitempty"` // by the workflows that run, each disk once
}

// Move is one that runs.
type Move struct {
	Disk contract.DiskID `json:"disk"`
	Node string          `json:"node,omitempty"`
	Zone string          `json:"zone,omitempty"`
	GiB  int64           `json:"gib,omitempty"` // of the new backing
}

// Running is both together. A move that has just begun has no volume yet, one of
// another Temporal namespace no workflow here: the greater number counts.
func (c Counted) Running() plan.Running { return (&Ledger{Counted: c}).running() }

// Ask is what somebody wants to begin.
type Ask struct {
	Budgets plan.Budgets    `json:"budgets,omitzero"`
	Want    []plan.Decision `json:"want,omitempty"` // Brief
	// Ended are moves that were allowed before and have ended.
	Ended []contract.DiskID `json:"ended,omitempty"`
	// Windows in which all this may begin; none: at any time. At is now.
	Windows []plan.Window `json:"windows,omitempty"`
	At      time.Time     `json:"at"`
}

// Room is the answer.
type Room struct {
	Begin []contract.DiskID `json:"begin,omitempty"`
	Held  []plan.Held       `json:"held,omitempty"`
	// NotBefore is when the next window opens.
	NotBefore time.Time `json:"notBefore,omitzero"`
	// Running is what ran before.
	Running plan.Running `json:"running,omitzero"`
}

// Brief is what of a decision matters to budgets.
func Brief(d plan.Decision) plan.Decision {
	return plan.Decision{
		Disk: d.Disk, Node: d.Node, Zone: d.Zone, Action: d.Wanted, GiB: d.GiB,
		Urgent: d.Urgent, TimeToFull: d.TimeToFull, Payback: d.Payback, SavingUSDMonth: d.SavingUSDMonth, Resume: d.Resume,
	}
}

// Ledger is the last count and what was allowed since: the state of the workflow
// Budgets. What was allowed counts until a count that must show it, or its end.
type Ledger struct {
	At      time.Time `json:"at,omitzero"` // of the count; zero: there was none
	Counted Counted   `json:"counted,omitzero"`
	Taken   []Taken   `json:"taken,omitempty"`
	Ended   []Move    `json:"ended,omitempty"` // of Counted
}

// Taken is what was allowed.
type Taken struct {
	Move
	Moves bool      `json:"moves,omitempty"` // false: it modifies a volume
	At    time.Time `json:"at"`
}

// Stale tells that it wants another count.
func (l *Ledger) Stale(now time.Time) bool { return l.At.IsZero() || now.Sub(l.At) > countAge }

// Count takes what was counted from a time on.
func (l *Ledger) Count(from time.Time, c Counted) {
	l.At, l.Counted, l.Ended = from, c, nil
	l.Taken = slices.DeleteFunc(l.Taken, func(t Taken) bool { return from.Sub(t.At) >= Remember })
}

// Take allows what the budgets have room for, the most pressing first.
func (l *Ledger) Take(now time.Time, a Ask) Room {
	for _, d := range a.Ended {
		l.end(d)
	}
	for _, d := range a.Want { // asked again: the answer was lost
		l.forget(d.Disk)
	}
	out := Room{Running: l.running()}
	begin, held := plan.Schedule(now, a.Want, a.Budgets, out.Running)
	out.Held = held
	for _, d := range begin {
		out.Begin = append(out.Begin, d.Disk)
		l.Taken = append(l.Taken, Taken{Move: Move{Disk: d.Disk, Node: d.Node, Zone: d.Zone, GiB: d.GiB}, Moves: d.Action == plan.Shrink, At: now})
	}
	return out
}

// forget drops a move that was allowed.
func (l *Ledger) forget(d contract.DiskID) {
	l.Taken = slices.DeleteFunc(l.Taken, func(t Taken) bool { return t.Disk == d && t.Moves })
}

func (l *Ledger) end(d contract.DiskID) {
	l.forget(d)
	if i := find(l.Counted.Moves, d); i >= 0 && find(l.Ended, d) < 0 {
		l.Ended = append(l.Ended, l.Counted.Moves[i])
	}
}

func find(moves []Move, d contract.DiskID) int {
	return slices.IndexFunc(moves, func(m Move) bool { return m.Disk == d })
}

// running is what runs now.
func (l *Ledger) running() plan.Running {
	r := l.Counted.EC2
	r.MovesByNode, r.MovesByZone = copied(r.MovesByNode), copied(r.MovesByZone)
	for _, m := range l.Ended {
		add(&r, m, -1)
	}
	known := plan.Running{MovesByNode: map[string]int{}, MovesByZone: map[string]int{}}
	seen := map[contract.DiskID]bool{}
	for _, m := range l.Counted.Moves {
		if find(l.Ended, m.Disk) < 0 {
			seen[m.Disk] = true
			raise(&r, &known, m)
		}
	}
	for _, t := range l.Taken {
		switch {
		case !t.Moves:
			r.Modifications++
		case !seen[t.Disk]:
			raise(&r, &known, t.Move)
		}
	}
	return r
}

// raise counts a move that is known, and has r tell of no fewer than are.
func raise(r, known *plan.Running, m Move) {
	add(known, m, 1)
	if m.Node != "" {
		r.MovesByNode[m.Node] = max(r.MovesByNode[m.Node], known.MovesByNode[m.Node])
	}
	if m.Zone != "" {
		r.MovesByZone[m.Zone] = max(r.MovesByZone[m.Zone], known.MovesByZone[m.Zone])
	}
	r.Moves, r.ExtraGiB = max(r.Moves, known.Moves), max(r.ExtraGiB, known.ExtraGiB)
}

// add counts a move up or down, not below nothing.
func add(r *plan.Running, m Move, n int) {
	r.MovesByNode[m.Node] = max(r.MovesByNode[m.Node]+n, 0)
	r.MovesByZone[m.Zone] = max(r.MovesByZone[m.Zone]+n, 0)
	r.Moves, r.ExtraGiB = max(r.Moves+n, 0), max(r.ExtraGiB+int64(n)*m.GiB, 0)
}

func copied(m map[string]int) map[string]int {
	if m == nil {
		return map[string]int{}
	}
	return maps.Clone(m)
}
