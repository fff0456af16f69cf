package plan

import (
	"fmt"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Mode says how far a decision goes.
type Mode = contract.Mode

// Modes.
const (
	Observe   = contract.Observe
	Recommend = contract.Recommend
	Enforce   = contract.Enforce
)

// What happens to writes at a ceiling below the disk's own size.
const (
	AtCeilingWait = "wait"
	AtCeilingFail = "fail"
)

// Rule is the policy in force for one disk. The zero value is not useful: see
// DefaultRule.
type Rule struct {
	Name string `json:"name,omitempty"` // of the policy's rule, for reasons
	Mode Mode   `json:"mode"`

	// Target is the share of the pool that is used right after an operation,
	// 0 < Target <= 0.95.
	Target float64 `json:"target"`
	// Headroom is what must be free: the greatest of bytes, a share of what is
	// used, and a time at the present fill rate. Less free space starts a growth.
	HeadroomBytes   int64         `json:"headroomBytes,omitempty"`
	HeadroomPercent float64       `json:"headroomPercent,omitempty"` // of what is used
	HeadroomTime    time.Duration `json:"headroomTimeNanos,omitempty"`
	// ExtraBytes are wanted free beside the headroom until ExtraUntil (asked for
	// by a person, for a restore or an import).
	ExtraBytes int64     `json:"extraBytes,omitempty"`
	ExtraUntil time.Time `json:"extraUntil,omitzero"`

	FloorGiB   int64 `json:"floorGiB,omitempty"`   // least backing
	CeilingGiB int64 `json:"ceilingGiB,omitempty"` // greatest backing; 0: all that the disk can use

	// A growth is at least MinStepGiB and MinStep (a share of the backing), and
	// at most MaxStepGiB (0: no limit) unless what is used needs more.
	MinStepGiB int64   `json:"minStepGiB,omitempty"`
	MinStep    float64 `json:"minStep,omitempty"`
	MaxStepGiB int64   `json:"maxStepGiB,omitempty"`
	// A shrink saves at least MinShrinkGiB and MinShrink (a share of the backing).
	MinShrinkGiB int64   `json:"minShrinkGiB,omitempty"`
	MinShrink    float64 `json:"minShrink,omitempty"`

	LookBack    time.Duration `json:"lookBackNanos"`    // whose peak a shrink must leave room for
	ShrinkQuiet time.Duration `json:"shrinkQuietNanos"` // since the last growth or shrink
	Windows     []Window      `json:"windows,omitempty"`
	// Payback is the longest time in which a shrink's saving may pay for it.
	Payback time.Duration `json:"paybackNanos"`

	Verify            string        `json:"verify,omitempty"` // contract.VerifyFull or VerifyNone
	Snapshot          bool          `json:"snapshot,omitempty"`
	SnapshotRetention time.Duration `json:"snapshotRetentionNanos,omitempty"`
	// GracePeriod is how long the old volume is kept, and paid for, after a move.
	GracePeriod  time.Duration `json:"gracePeriodNanos,omitempty"`
	ThrottleMiBs int64         `json:"throttleMiBs,omitempty"` // 0: unlimited

	// MinIOPS and MinMiBs are never undercut.
	MinIOPS int32 `json:"minIops,omitempty"`
	MinMiBs int32 `json:"minMiBs,omitempty"`
	// FollowPeak lets a move give a volume less performance than the old one
	// delivered: the recorded peak and PeakHeadroom more. False: never less than
	// the old one.
	FollowPeak   bool    `json:"followPeak,omitempty"`
	PeakHeadroom float64 `json:"peakHeadroom,omitempty"`
	// Types a move may choose from by price; empty: the present type, and gp3 for gp2.
	Types []string `json:"types,omitempty"`
	// MaxStripes lets a move spread a disk over several volumes where that gives
	// the same performance for less; below 2: one volume.
	MaxStripes int `json:"maxStripes,omitempty"`

	AtCeiling string `json:"atCeiling,omitempty"` // AtCeilingWait or AtCeilingFail
}

// DefaultRule is a rule with everything a policy leaves out.
func DefaultRule() Rule {
	return Rule{
		Mode:              Observe,
		Target:            0.80,
		HeadroomBytes:     5 << 30,
		HeadroomPercent:   0.10,
		HeadroomTime:      time.Minute,
		MinStepGiB:        1,
		MinStep:           0.05,
		MinShrinkGiB:      2,
		MinShrink:         0.10,
		LookBack:          7 * 24 * time.Hour,
		ShrinkQuiet:       24 * time.Hour,
		Payback:           30 * 24 * time.Hour,
		Verify:            contract.VerifyFull,
		Snapshot:          true,
		SnapshotRetention: 7 * 24 * time.Hour,
		GracePeriod:       contract.DefaultGrace,
		PeakHeadroom:      0.25,
		MaxStripes:        1,
		AtCeiling:         AtCeilingWait,
	}
}

// Headroom is how many bytes must be free when used are in use and rate bytes
// come in each second.
func (r Rule) Headroom(now time.Time, used int64, rate float64) int64 {
	h := max(r.HeadroomBytes, int64(float64(used)*r.HeadroomPercent), within(rate, r.HeadroomTime))
	if now.Before(r.ExtraUntil) {
		h += r.ExtraBytes
	}
	return h
}

// within is how much comes in at a rate, kept where sums of sizes cannot overflow. A
// rate that is no number is none.
func within(rate float64, d time.Duration) int64 {
	const most = int64(1) << 60
	n := rate * d.Seconds()
	switch {
	case n > 0 && n < float64(most):
		return int64(n)
	case n > 0:
		return most
	}
	return 0
}

// Window is a weekly time in which moves may begin: on Days, from From to To
// after midnight. To at or before From is on the next day.
type Window struct {
	Days [7]bool       `json:"days"` // by time.Weekday
	From time.Duration `json:"fromNanos"`
	To   time.Duration `json:"toNanos"`
	Zone string        `json:"zone"`
	// Location of Zone, filled by who reads the policy. Without it a window of a zone
	// other than UTC never opens: better no move than one by day.
	Location *time.Location `json:"-"`
}

// next is the begin and end of the window that is open at now, or the next one
// to open; zero when it never opens.
func (w Window) next(now time.Time) (from, to time.Time) {
	loc := w.Location
	switch {
	case loc != nil:
	case w.Zone == "" || w.Zone == "UTC":
		loc = time.UTC
	default:
		return time.Time{}, time.Time{}
	}
	local := now.In(loc)
	for day := -1; day <= 8; day++ {
		y, m, d := local.Date()
		begin := clock(y, m, d+day, w.From, loc)
		if !w.Days[time.Date(y, m, d+day, 12, 0, 0, 0, loc).Weekday()] {
			continue
		}
		last := d + day
		if w.To <= w.From {
			last++
		}
		end := clock(y, m, last, w.To, loc)
		if end.After(now) && end.After(begin) {
			return begin, end
		}
	}
	return time.Time{}, time.Time{}
}

func clock(y int, m time.Month, d int, of time.Duration, loc *time.Location) time.Time {
	return time.Date(y, m, d, int(of/time.Hour), int(of%time.Hour/time.Minute), 0, 0, loc)
}

// Open tells whether moves may begin at now, and if not, when; zero: never.
func (r Rule) Open(now time.Time) (bool, time.Time) {
	if len(r.Windows) == 0 {
		return true, now
	}
	var next time.Time
	for _, w := range r.Windows {
		from, to := w.next(now)
		switch {
		case to.IsZero():
		case !from.After(now):
			return true, now
		case next.IsZero() || from.Before(next):
			next = from
		}
	}
	return false, next
}

// closes is when the last of the windows closes that are open now; zero: there are none.
func (r Rule) closes(now time.Time) time.Time {
	var last time.Time
	for _, w := range r.Windows {
		if from, to := w.next(now); !from.After(now) && to.After(last) {
			last = to
		}
	}
	return last
}

// String names a rule for reasons.
func (r Rule) String() string {
	if r.Name == "" {
		return "the policy"
	}
	return fmt.Sprintf("rule %q", r.Name)
}
