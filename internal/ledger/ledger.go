// Package ledger adds up what became of a fleet: the hours its disks remember, the
// operations that were done to them, and prices, to the account that internal/report
// shows. It is pure: whoever calls it has gathered the figures, and says what time
// it is.
//
// What every figure means is in docs/report.md.
package ledger

import (
	"fmt"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
)

// Input is what is to be added up.
type Input struct {
	Title string
	Scope report.Scope
	// From and To bound the time; To is now.
	From, To   time.Time
	Disks      []Disk
	Operations []Operation // in any order
	// Retired says when retired volumes were deleted, by volume; zero: they still
	// wait. One that is not listed counts for the usual grace period.
	Retired map[string]time.Time
	// Snapshots says when snapshots were deleted, by id. One that is not listed is
	// there until To.
	Snapshots map[string]time.Time
	// Held is what the planner wanted and did not do, by its reason, at its last look.
	Held   map[string]int
	HeldAt time.Time
	// Retention is how long Temporal remembers ended operations; 0: not known.
	Retention time.Duration
	// Cut is how many operations were read, when there were more; 0: all were.
	Cut int
	// Unread counts ended operations whose result could not be read.
	Unread int

	Prices  plan.Prices
	BuiltIn bool // the prices came with Ebb
	// Region of the volumes, when the price list lacks it and Prices are another's.
	Region string
	// ControlUSDMonth is what worker, agents and Temporal cost a month; 0: not counted.
	ControlUSDMonth float64
}

// Missing says what of the operations could not be read.
func (in Input) Missing() []string {
	var out []string
	if in.Cut > 0 {
		out = append(out, fmt.Sprintf("Only the latest %d operations were read: what earlier ones did and cost is missing, so the net saving is overstated. A shorter time has fewer.", in.Cut))
	}
	if in.Unread > 0 {
		out = append(out, fmt.Sprintf("The results of %d ended operations could not be read: what they did and cost is missing, in part or whole.", in.Unread))
	}
	return out
}

// Disk is one disk and its past.
type Disk struct {
	Facts plan.Facts
	Class string // of its workload; empty: not known
	// Hours in order, the oldest first; those outside of the time are left out.
	Hours []contract.HistoryHour
	// Unknown says why the disk could not be measured or its past not be read;
	// empty: both are there.
	Unknown string
}

// Operation is one operation on a disk, as Temporal remembers it.
type Operation struct {
	Disk     contract.DiskID
	Name     string // of the disk; empty: not known
	Node     string
	Workflow string // a workflow type of internal/contract
	Outcome  string // one of report's
	Began    time.Time
	Ended    time.Time // zero: it runs
	By       string    // who or what asked for it; empty: not known
	Reason   string    // in the operation's own words; or why it failed
	Code     string    // why it was refused, where Result does not say
	FromGiB  int64
	ToGiB    int64
	Result   *contract.Result // nil: it runs, has failed or is not readable
}

// Codes of proposals that led to nothing, beside those of refusals.
const (
	ProposalExpired  = "ProposalExpired"
	ProposalRejected = "ProposalRejected"
)

// Sum adds everything up.
func Sum(in Input) *report.Account {
	in.From, in.To = in.From.UTC(), in.To.UTC()
	b := newBook(in)
	for _, d := range in.Disks {
		b.disk(d)
	}
	b.operations()
	return b.close()
}
