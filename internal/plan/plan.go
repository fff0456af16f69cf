// Package plan holds the sizing decisions of Ebb as pure functions: figures in,
// a size and the reason in words out. It knows nothing of Temporal, AWS or
// nodes, keeps no state and reads no clock.
package plan

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Policy is what a size aims at. The zero value is not useful: see Settings of
// the contract for the defaults.
type Policy struct {
	Utilization float64       // wanted share of the pool that is used, 0 < u < 1
	MinStepGiB  int64         // least growth
	MinStep     float64       // least growth as a share of the present backing
	Horizon     time.Duration // how long a growth should last at the fill rate
	CeilingGiB  int64         // greatest backing; 0: all the disk can use
	// What a shrink leaves free beside what is used, the greater of both: bytes, and a
	// share of what is used.
	HeadroomBytes   int64
	HeadroomPercent float64
}

// PolicyOf reads the policy from an operation's settings.
func PolicyOf(s contract.Settings) Policy {
	s = s.WithDefaults()
	return Policy{
		Utilization: float64(s.UtilizationPercent) / 100,
		MinStepGiB:  s.MinGrowGiB,
		MinStep:     float64(s.MinGrowPercent) / 100,
		Horizon:     s.FillHorizon,
		CeilingGiB:  s.CeilingGiB,
	}
}

// Usage is the state of one backing.
type Usage struct {
	SizeBytes     int64 // the disk's own size
	BackingBytes  int64 // sum of the member volumes
	OverheadBytes int64 // headers, logs, metadata
	UsedBytes     int64 // mapped in the pool
	FillRate      float64
	// Spent is how many modifications the disk has had in the last 24 hours, and
	// FreeIn when the first of the last four will be that old.
	Spent  int
	FreeIn time.Duration
}

// WithModified counts the disk's modifications as planning does (paces): the more
// of a day's four are spent, the further the next growth goes.
func (u Usage) WithModified(now time.Time, modified []time.Time) Usage {
	l := DefaultLimits()
	recent := recentFirst(now, modified, l.ModificationWindow)
	u.Spent = len(recent)
	if u.Spent > 0 {
		u.FreeIn = recent[min(u.Spent, l.Modifications)-1].Add(l.ModificationWindow).Sub(now)
	}
	return u
}

// lasting is what a growth must hold at least: what comes in during the horizon,
// and at most as much again as is used, since a burst is not a trend. The fewer of a
// day's modifications are left, the further a growth goes; beyond the last it goes
// as far as the rate leads until one is free, to four times what is used at most.
func (u Usage) lasting(p Policy) int64 {
	coming := u.FillRate * p.Horizon.Seconds()
	used := float64(u.UsedBytes)
	switch {
	case u.Spent >= 4: // EBS may refuse the next one for as long
		coming = max(used, min(u.FillRate*u.FreeIn.Seconds(), 3*used))
		return int64(min((used+coming)/p.Utilization, float64(contract.MaxDiskBytes)))
	case u.Spent == 3: // a rate of the moment is not a day's
		return int64(min(2*used/p.Utilization, float64(contract.MaxDiskBytes)))
	case u.Spent > 0:
		pace := paces[min(u.Spent, len(paces)-1)]
		coming = max(coming*max(pace.times, 1), pace.least*used)
	}
	return u.UsedBytes + int64(min(coming, used))
}

// CeilingGiB is the size beyond which a backing is of no use: its pool holds the
// whole disk then, whatever the overhead is by then.
func CeilingGiB(u Usage) int64 {
	if u.BackingBytes-u.OverheadBytes < u.SizeBytes {
		return HoldingGiB(u, u.SizeBytes)
	}
	return min(fitting(u.SizeBytes), CeilGiB(u.BackingBytes))
}

// HoldingGiB is the size the present backing must get for its pool to hold so many
// bytes: metadata grows with it, and another volume has headers of its own.
func HoldingGiB(u Usage, bytes int64) int64 {
	have, missing := CeilGiB(u.BackingBytes), bytes-(u.BackingBytes-u.OverheadBytes)
	if missing <= 0 {
		return have
	}
	return have + CeilGiB(missing+missing/990+4<<20)
}

// CeilGiB rounds bytes up to whole GiB.
func CeilGiB(b int64) int64 { return (b + contract.GiB - 1) / contract.GiB }

// GrowTarget is the size a backing should have. Forced asks for at least the
// least step even where usage alone would not (a pressure signal: the agent
// knows the low-water mark better). AtCeiling is refused; Enough is for the
// caller to judge.
func GrowTarget(u Usage, p Policy, forced bool) (Decision, error) {
	have := CeilGiB(u.BackingBytes)
	ceiling := CeilingGiB(u)
	lowered := p.CeilingGiB > 0 && p.CeilingGiB < ceiling
	if lowered {
		ceiling = p.CeilingGiB
	}
	pool := u.BackingBytes - u.OverheadBytes
	comfortable := int64(float64(u.UsedBytes)/p.Utilization) + u.OverheadBytes
	lasting := u.lasting(p) + u.OverheadBytes
	need := max(comfortable, lasting)
	if !forced && max(comfortable, u.UsedBytes+int64(min(u.FillRate*p.Horizon.Seconds(), float64(u.UsedBytes)))+u.OverheadBytes) <= u.BackingBytes {
		return Decision{GiB: have, Enough: true, Reason: fmt.Sprintf(
			"%s of %s used is within %.0f%% and lasts %s at the present rate", Bytes(u.UsedBytes), Bytes(pool), p.Utilization*100, p.Horizon)}, nil
	}
	if have >= ceiling && lowered {
		return Decision{}, contract.Refuse(contract.AtCeiling,
			"the backing has %d GiB, and %d GiB is the policy's ceiling", have, ceiling).
			WithNext("delete files, or raise the ceiling in the policy: ebb schedule apply --policy FILE")
	}
	if have >= ceiling {
		return Decision{}, contract.Refuse(contract.AtCeiling,
			"the backing has %d GiB, enough for the whole disk of %s", have, Bytes(u.SizeBytes)).
			WithNext("delete files, or expand the disk")
	}
	step := max(p.MinStepGiB, int64(math.Ceil(float64(have)*p.MinStep)), 1)
	want := max(CeilGiB(need), have+step)
	d := Decision{GiB: min(want, ceiling)}
	switch {
	case want > ceiling && lowered:
		d.Reason = fmt.Sprintf("%d GiB is the policy's ceiling", ceiling)
	case want > ceiling:
		d.Reason = fmt.Sprintf("%d GiB is all the disk of %s can use", ceiling, Bytes(u.SizeBytes))
	case want == have+step:
		d.Reason = fmt.Sprintf("%s of %s used: one step of %d GiB", Bytes(u.UsedBytes), Bytes(pool), step)
	case lasting > comfortable && u.Spent > 0:
		d.Reason = fmt.Sprintf("%s used, and %d modifications spent in 24 hours: room for what may come until the next", Bytes(u.UsedBytes), u.Spent)
	case lasting > comfortable:
		d.Reason = fmt.Sprintf("%s used, filling at %s/s: room for %s", Bytes(u.UsedBytes), Bytes(int64(u.FillRate)), p.Horizon)
	default:
		d.Reason = fmt.Sprintf("%s used: %.0f%% utilization", Bytes(u.UsedBytes), p.Utilization*100)
	}
	return d, nil
}

// GrowTo checks an explicit size.
func GrowTo(u Usage, gib int64) (Decision, error) {
	have, ceiling := CeilGiB(u.BackingBytes), CeilingGiB(u)
	switch {
	case gib <= have:
		return Decision{}, contract.Refuse(contract.NothingToGrow, "the backing already has %d GiB", have).
			WithNext("to make it smaller: ebb shrink")
	case gib > ceiling:
		return Decision{}, contract.Refuse(contract.AtCeiling,
			"a disk of %s can use %d GiB at most, %d GiB were asked for", Bytes(u.SizeBytes), ceiling, gib).
			WithNext("ask for at most %d GiB, or expand the disk", ceiling)
	}
	return Decision{GiB: gib, Reason: fmt.Sprintf("%d GiB were asked for", gib)}, nil
}

// ShrinkTarget is the smallest backing that holds what is used with headroom.
// CopyBytes is the estimate of what a move writes (whole regions, so somewhat
// more than is used); 0 assumes a tenth more than used. FloorGiB is the least size
// that the volume type and the performance to keep allow (LeastGiB). ToGiB,
// when not 0, is what was asked for.
//
// Other says that the move has another purpose too (a new volume type or key),
// so that a target of the present size is fine.
func ShrinkTarget(u Usage, p Policy, floorGiB, copyBytes, toGiB int64, other bool) (Decision, error) {
	have := CeilGiB(u.BackingBytes)
	if copyBytes <= 0 {
		copyBytes = u.UsedBytes + u.UsedBytes/10
	}
	copyBytes = min(max(copyBytes, u.UsedBytes), max(u.SizeBytes, u.UsedBytes))
	// Room for the copy as it lands, at most 98% full, and for what is used at
	// the wanted utilization and with headroom.
	room := max(int64(float64(u.UsedBytes)/p.Utilization), int64(float64(copyBytes)/landed))
	free := max(p.HeadroomBytes, int64(float64(u.UsedBytes)*p.HeadroomPercent))
	headroom := min(u.UsedBytes+free, max(u.SizeBytes, u.UsedBytes))
	tight := headroom > room
	room = max(room, headroom)
	need := room + u.OverheadBytes
	least := max(CeilGiB(need), floorGiB)
	if toGiB != 0 {
		// A size that was worked out already: the new backing has less overhead than
		// a large old one, and needs no more than the whole disk.
		need = min(fitting(min(room, max(u.SizeBytes, u.UsedBytes)))*contract.GiB, need)
		least = max(CeilGiB(need), floorGiB)
	}
	reason := fmt.Sprintf("%s used and %s of overhead at %.0f%% utilization: %d GiB", Bytes(u.UsedBytes), Bytes(u.OverheadBytes), p.Utilization*100, least)
	if tight {
		reason = fmt.Sprintf("%s used and %s of overhead, %s to be free: %d GiB", Bytes(u.UsedBytes), Bytes(u.OverheadBytes), Bytes(free), least)
	}
	if CeilGiB(need) < floorGiB {
		reason = fmt.Sprintf("%d GiB is the least volume of its type that keeps the performance", floorGiB)
	}
	want := toGiB
	if want == 0 {
		want = least
		if other {
			want = min(least, have)
		}
	}
	switch {
	case want > have, want == have && !other:
		return Decision{}, contract.Refuse(contract.NoRoomToShrink,
			"the backing has %d GiB; %s", have, reason).WithNext("delete files first, then shrink")
	case want < least && want < have:
		return Decision{}, contract.Refuse(contract.BelowUsed,
			"%d GiB is too small; %s", want, reason).WithNext("ask for at least %d GiB", least)
	}
	if toGiB != 0 {
		reason = fmt.Sprintf("%d GiB were asked for (%s)", toGiB, reason)
	}
	return Decision{GiB: want, Reason: reason}, nil
}

// Bytes prints a number of bytes for people.
func Bytes(b int64) string {
	const unit = 1024
	if b < unit {
		return strconv.FormatInt(b, 10) + " B"
	}
	v, i := float64(b)/unit, 0
	for v >= unit && i < 4 {
		v /= unit
		i++
	}
	var out [32]byte // decisions are made by the million: no fmt here
	return string(append(strconv.AppendFloat(out[:0], v, 'f', 1, 64), ' ', "KMGTP"[i], 'i', 'B'))
}
