package fleet

import (
	"fmt"
	"time"

	"github.com/ebb-storage/ebb/internal/plan"
)

// Answers to a proposal.
const (
	Approved = "approved"
	Rejected = "rejected"
	Expired  = "expired"
)

// MemoAnswered is the memo of a Propose workflow that goes on after its answer: its
// Proposed, so that whoever lists workflows knows it.
const MemoAnswered = "answered"

// Noted is what of p the memo holds.
func (p Proposed) Noted() Proposed {
	p.Decision.Reasons = nil
	return p
}

// more is by how much of a change another one counts as a different change.
const more = 1.25

// Differs tells that what is wanted now is so much unlike what was rejected that
// people should be asked again: growth instead of a smaller backing or the other way
// round, a change in place instead of either, growth that has become urgent, or a
// quarter more of it or of the saving.
func Differs(rejected, now plan.Decision) bool {
	switch {
	case kind(rejected) != kind(now):
		return true
	case now.Wanted == plan.Shrink || now.Wanted == plan.Retype:
		return now.SavingUSDMonth > 0 && now.SavingUSDMonth >= more*max(rejected.SavingUSDMonth, 0)
	}
	return now.Urgent && !rejected.Urgent || float64(now.GiB) >= more*float64(rejected.GiB)
}

// kind is an action, and the same for both ways to grow.
func kind(d plan.Decision) plan.Action {
	if d.Wanted == plan.Append {
		return plan.Grow
	}
	return d.Wanted
}

// Open tells that p waits for an answer.
func (p Proposed) Open() bool { return p.Answer == "" }

// Waiting tells that p is approved and waits for room.
func (p Proposed) Waiting() bool { return p.Answer == Approved && p.Waits != "" }

// Holds tells that p is rejected and may still be approved.
func (p Proposed) Holds(now time.Time) bool { return p.Answer == Rejected && p.Until.After(now) }

// Standing is why an answered proposal keeps what is wanted now from being asked.
func (p Proposed) Standing() string {
	if p.Answer == Rejected {
		return fmt.Sprintf("rejected by %s, which holds until %s", p.By, p.Until.UTC().Format("2006-01-02 15:04 MST"))
	}
	if p.Waits == "" {
		return "approved by " + p.By
	}
	return fmt.Sprintf("approved by %s, waits for %s", p.By, p.Waits)
}
