package plan

import (
	"fmt"
	"math"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/usage"
)

// Decide says what should become of one disk's backing now. It is pure: the same
// input gives the same decision.
//
// Growth comes first and waits for no window or quiet time. It begins when less
// than the headroom is free, and goes to the target utilization or to what lasts
// at the present rate. A shrink leaves room for the look-back window's peak, keeps
// the performance on record and the policy's floor, and must pay for itself. Where the
// size stays, the volume's type and performance are changed in place if that gives the
// same for less, or what the policy wants at least.
func Decide(now time.Time, f Facts, h History, r Rule, l Limits, p Prices) Decision {
	c := &weighing{now: now, f: f, h: h, r: r, l: l, p: p, have: f.BackingGiB(), pool: f.PoolBytes()}
	c.d = Decision{
		GiB: c.have, FromGiB: c.have, Enough: true, Action: None, Wanted: None,
		Disk: f.Disk, Node: f.Node, Zone: f.Zone, Rule: r.Name, Mode: r.Mode,
	}
	c.spent = f.spent(now, l.ModificationWindow)
	switch {
	case len(f.Volumes) == 0 || c.have <= 0 || c.pool <= 0 || f.SizeBytes <= 0 || f.UsedBytes < 0 || r.Target <= 0 || r.Target > 0.95:
		c.hold(None, WhyFacts, time.Time{}, "the facts or the rule are incomplete: nothing is decided")
	case c.grow():
	default:
		c.improve()
	}
	if c.d.Reason == "" {
		c.d.Reason = Bytes(f.UsedBytes) + " of " + Bytes(c.pool) + " used"
		c.d.Reasons = []string{c.d.Reason}
	}
	return c.d
}

// weighing is one decision being made.
type weighing struct {
	now  time.Time
	f    Facts
	h    History
	r    Rule
	l    Limits
	p    Prices
	have int64 // GiB
	pool int64 // bytes
	// spent are the disk's modifications in the window, latest first.
	spent []time.Time
	// smaller: the move that is wanted is for its size.
	smaller bool
	d       Decision
}

func (c *weighing) because(format string, args ...any) {
	c.d.Reasons = append(c.d.Reasons, fmt.Sprintf(format, args...))
}

// want notes the wanted action; nothing holds it back so far.
func (c *weighing) want(a Action, gib int64) {
	c.d.Action, c.d.Wanted, c.d.GiB, c.d.Enough = a, a, gib, false
}

// hold keeps a wanted action from being taken. The first reason counts, the
// latest time.
func (c *weighing) hold(a Action, why Why, until time.Time, format string, args ...any) {
	c.d.Action, c.d.Wanted, c.d.Enough, c.d.NotAfter = None, a, a == None, time.Time{}
	if c.d.Why == WhyNone {
		c.d.Why = why
		c.d.Reason = fmt.Sprintf(format, args...)
	}
	if until.After(c.d.NotBefore) {
		c.d.NotBefore = until
	}
	c.because(format, args...)
}

// usage is the facts as operations look at them.
func (c *weighing) usage() Usage {
	return Usage{
		SizeBytes: c.f.SizeBytes, BackingBytes: c.have * contract.GiB, OverheadBytes: c.f.OverheadBytes,
		UsedBytes: c.f.UsedBytes, FillRate: c.f.FillRate,
	}
}

// ceilingGiB is what the disk can use at most, and the policy's ceiling if lower.
func (c *weighing) ceilingGiB() int64 {
	all := CeilingGiB(c.usage())
	if c.r.CeilingGiB > 0 {
		return min(all, c.r.CeilingGiB)
	}
	return all
}

// fitting is the least backing, made in one piece, whose pool holds n bytes.
func fitting(n int64) int64 {
	gib := CeilGiB(n + 16<<20 + n/999)
	for gib*contract.GiB-OverheadBytes(gib) < n {
		gib++
	}
	return gib
}

func (c *weighing) step(of int64) int64 {
	return max(c.r.MinStepGiB, int64(math.Ceil(float64(of)*c.r.MinStep)), 1)
}

// lasting is what used bytes need for a while to come: the headroom, and for
// what comes in meanwhile at most as much again as is used.
func (c *weighing) lasting(used int64, rate float64) int64 {
	coming := max(within(rate, c.r.HeadroomTime), c.h.DayGrowthBytes/3)
	return used + c.r.Headroom(c.now, used, rate) + min(coming, max(used, contract.GiB))
}

// comfortable is what used bytes want of a pool right after an operation.
func (c *weighing) comfortable(used int64, rate float64) int64 {
	return max(int64(math.Ceil(float64(used)/c.r.Target)), c.lasting(used, rate))
}

// grow decides on growth and tells whether it had to.
func (c *weighing) grow() bool {
	// A pool that holds the whole disk needs no more: then the filesystem says so.
	need := min(c.f.UsedBytes+c.r.Headroom(c.now, c.f.UsedBytes, c.f.FillRate), max(c.f.SizeBytes, c.f.UsedBytes))
	floor := min(c.r.FloorGiB, c.ceilingGiB())
	free := c.pool - c.f.UsedBytes
	c.d.TimeToFull = c.timeToFull(free)
	if need <= c.pool && c.have >= floor && !c.f.Full {
		return false
	}
	headroom := need - c.f.UsedBytes
	c.d.Urgent = c.f.Full || free <= headroom/2 && need > c.pool || c.d.TimeToFull > 0 && c.d.TimeToFull <= c.l.Urgent
	c.because("%s of %s used, %s wanted free", Bytes(c.f.UsedBytes), Bytes(c.pool), Bytes(headroom))
	switch {
	case c.f.Full:
		c.because("the pool is full: writes wait")
	case c.d.TimeToFull > 0 && c.d.TimeToFull < 30*24*time.Hour:
		c.because("full in %s at %s/s", words(c.d.TimeToFull), Bytes(int64(c.f.FillRate)))
	}
	least := max(c.fit(need), floor)
	want := c.growth(least, floor)
	if want <= c.have {
		c.d.AtCeiling = c.r.AtCeiling
		c.hold(Grow, WhyCeiling, time.Time{}, "the backing has %d GiB, and %d GiB is the ceiling", c.have, c.ceilingGiB())
		return true
	}
	c.want(Grow, want)
	c.d.Reason = fmt.Sprintf("grow from %d to %d GiB: %s used, %s wanted free", c.have, want, Bytes(c.f.UsedBytes), Bytes(headroom))
	c.extend(want - c.have)
	c.price(c.p.VolumeMonth(Volume{GiB: c.d.VolumeGiB, Type: c.d.Type, IOPS: c.d.IOPS, ThroughputMiBs: c.d.ThroughputMiBs}) - c.grownMonth())
	c.gate()
	return true
}

// timeToFull is at the present rate; a pool that is full has the least time there is.
func (c *weighing) timeToFull(free int64) time.Duration {
	const most = 10 * 365 * 24 * time.Hour
	switch {
	case c.f.Full, c.f.FillRate > 0 && free <= 0:
		return 1
	case c.f.FillRate > 0:
		return max(time.Duration(min(float64(free)/c.f.FillRate, most.Seconds())*1e9), 1)
	}
	return 0
}

// grownMonth is what the volume that Grow modifies costs now; 0 for Append.
func (c *weighing) grownMonth() float64 {
	if c.d.Wanted == Append {
		return 0
	}
	return c.p.VolumeMonth(c.f.Volumes[len(c.f.Volumes)-1])
}

func (c *weighing) price(more float64) { c.d.SavingUSDMonth = -more }

// fit is the size the present backing must get to hold n bytes.
func (c *weighing) fit(n int64) int64 { return HoldingGiB(c.usage(), n) }

// extend chooses between a modification and another volume.
func (c *weighing) extend(gib int64) {
	last := c.f.Volumes[len(c.f.Volumes)-1]
	t, known := c.l.Types[last.Type]
	c.d.Volume, c.d.VolumeGiB = last.ID, last.GiB+gib
	c.d.Type, c.d.IOPS, c.d.ThroughputMiBs = last.Type, last.IOPS, last.ThroughputMiBs
	from, why := c.l.modifiable(c.now, last, c.d.Urgent)
	tooLarge := known && c.d.VolumeGiB > t.MaxGiB
	switch {
	case c.left() <= 0 && !c.f.Full, c.left() <= c.l.Reserve && !c.d.Urgent:
		until := c.free(c.l.DiskModifications)
		if c.left() > 0 {
			until = c.free(c.l.DiskModifications - c.l.Reserve)
		}
		c.hold(Grow, WhyModifications, until, "%d of the %d modifications of a day are spent, the next is free from %s on",
			len(c.spent), c.l.DiskModifications, until.UTC().Format(time.RFC3339))
		return
	case !tooLarge && !from.After(c.now) && !c.last():
		return
	case !tooLarge && from.After(c.now) && !c.d.Urgent:
		c.hold(Grow, why, from, "EBS can modify %s again from %s on", name(last), from.UTC().Format(time.RFC3339))
		return
	case len(c.f.Volumes) >= c.l.MaxVolumes:
		c.hold(Append, WhyVolumes, time.Time{}, "the backing has %d volumes already", len(c.f.Volumes))
		return
	}
	want := c.have + gib
	if known {
		gib = min(max(gib, t.MinGiB), t.MaxGiB)
	}
	c.want(Append, min(c.have+gib, max(want, c.ceilingGiB()))) // the least volume may be more than is of use
	c.d.Volume, c.d.VolumeGiB = "", gib
	switch {
	case tooLarge:
		c.because("a %s volume has at most %d GiB: another volume of %d GiB", last.Type, t.MaxGiB, gib)
	case !from.After(c.now):
		c.because("the last modification of the day: another volume of %d GiB, since nothing could help one that takes long", gib)
	default:
		c.because("EBS cannot modify %s before %s: another volume of %d GiB", name(last), from.UTC().Format(time.RFC3339), gib)
	}
}

func name(v Volume) string {
	if v.ID == "" {
		return "the volume"
	}
	return v.ID
}

// gate holds back what may not be done whatever it is.
func (c *weighing) gate() {
	if c.d.Action == None {
		return
	}
	switch {
	case c.f.Operation != "" && c.f.Operation != MoveLeft:
		c.hold(c.d.Wanted, WhyRunning, time.Time{}, "%s runs on the disk", c.f.Operation)
	case c.r.Mode != Enforce:
		// What is wanted, and why, is what people are asked about: that stays the reason.
		wanted := c.d.Reason
		c.hold(c.d.Wanted, WhyMode, time.Time{}, "the mode is %s (%s)", c.r.Mode, c.r)
		if c.d.Why == WhyMode && wanted != "" {
			c.d.Reason = wanted
		}
	}
}

// A move copies whole regions, so somewhat more than is used, and may fill the new
// pool that far as they land; a trim gives the rest back.
const (
	copied = .05
	landed = .98
)

// move decides on a shrink and tells whether one is wanted.
func (c *weighing) move() bool {
	if c.f.Operation == MoveLeft { // it is begun: nothing but the mode holds it back
		c.want(Shrink, c.have)
		c.d.Resume = true
		c.d.Reason = "a move was begun and no operation carries it on: take it up"
		c.because("%s", c.d.Reason)
		c.gate()
		return true
	}
	used := usage.Trimmed(c.f.UsedBytes, c.f.FilesystemUsedBytes)
	base := max(used, c.h.PeakUsedBytes)
	if day, _ := c.dayPeak(); len(c.spent) >= often {
		base = max(base, day)
	}
	rate := max(c.f.FillRate, c.h.PeakFillRate)
	headroom := c.r.Headroom(c.now, base, max(rate, c.burst()))
	if fitting(min(base+headroom, c.f.SizeBytes)) > c.have {
		return false
	}
	bytes := max(c.comfortable(base, rate), base+headroom, int64(float64(used)*(1+copied)/landed))
	gib := min(max(fitting(min(bytes, c.f.SizeBytes)), min(c.r.FloorGiB, c.ceilingGiB())), c.have)
	old := c.p.BackingMonth(c.f.Volumes)
	fold := len(c.f.Volumes) > 1 && !c.f.Striped
	least := max(c.r.MinShrinkGiB, int64(math.Ceil(float64(c.have)*c.r.MinShrink)), c.step(gib)+1+c.have/1000) // growth rounds up by less
	if !fold && c.have-gib < least && !c.retyping() {
		return false
	}
	s, ok := c.choose(gib, false)
	if !ok || s.total() > c.have {
		return false
	}
	month := c.p.BackingMonth(s.volumes())
	saving := old - month
	c.smaller = c.have-s.total() >= least && saving > 0
	if !c.smaller && !fold && old-c.p.BackingMonth(s.resized(c.have).volumes()) < max(old*c.r.MinShrink, 0.01) {
		return false
	}
	c.want(Shrink, s.total())
	c.d.Fold = fold
	c.d.Stripes, c.d.VolumeGiB, c.d.Type, c.d.IOPS, c.d.ThroughputMiBs = s.count, s.GiB, s.Type, s.IOPS, s.ThroughputMiBs
	c.d.CopyBytes = base + int64(float64(base)*copied)
	c.cost(old, month, base)
	c.d.Reason = c.headline(s, base, saving)
	c.because("%s used, at most %s in the last %s", Bytes(c.f.UsedBytes), Bytes(base), words(c.r.LookBack))
	c.because("%d GiB of %s instead of %d GiB: $%.2f instead of $%.2f a month", s.total(), s.Type, c.have, month, old)
	c.because("costs $%.2f, paid back in %s", c.d.CostUSD, words(c.d.Payback))
	c.holdMove()
	return true
}

// burst is the fastest that the disk can have filled in the look-back window, by its
// recorded throughput: growth goes by the rate of the moment, and a shrink must not
// leave less than growth will ask for when the next burst comes. A peak above what
// the volumes can give was not theirs.
func (c *weighing) burst() float64 {
	peak := c.h.PeakMiBs
	if _, together := c.l.delivered(c.f); together.mibs > 0 {
		peak = min(peak, together.mibs)
	}
	if peak <= 0 {
		return 0
	}
	return float64(peak+1) * (1 << 20) // it is recorded rounded down
}

// headline of a move, by what it is for.
func (c *weighing) headline(s shape, base int64, saving float64) string {
	what := fmt.Sprintf("shrink from %d to %d GiB", c.have, s.total())
	switch {
	case c.d.Fold:
		what = fmt.Sprintf("fold %d volumes of %d GiB into %d GiB", len(c.f.Volumes), c.have, s.total())
	case s.total() == c.have:
		what = fmt.Sprintf("change %d GiB of %s to %s with %d IOPS and %d MiB/s", c.have, c.f.Volumes[0].Type, s.Type, s.IOPS, s.ThroughputMiBs)
	}
	return fmt.Sprintf("%s: at most %s used in %s, saves $%.2f a month", what, Bytes(base), words(c.r.LookBack), saving)
}

// cost of a move: both volumes while it copies and verifies, the old one for the
// grace period, the snapshot for its retention, the bytes copied.
func (c *weighing) cost(old, month float64, used int64) {
	mibs := c.l.CopyMiBs
	if c.r.ThrottleMiBs > 0 {
		mibs = min(mibs, float64(c.r.ThrottleMiBs))
	}
	gib := float64(c.d.CopyBytes) / float64(contract.GiB)
	took := time.Duration(2 * gib * 1024 / max(mibs, 1) * 1e9)
	usd := For(month, took) + For(old, c.r.GracePeriod) + gib*c.p.CopyGiB
	if c.r.Snapshot {
		usd += For(float64(used)/float64(contract.GiB)*c.p.SnapshotGiBMonth, max(c.r.SnapshotRetention, 24*time.Hour))
	}
	c.d.CostUSD, c.d.SavingUSDMonth = usd, old-month
	if c.d.SavingUSDMonth > 0 {
		c.d.Payback = time.Duration(min(usd/c.d.SavingUSDMonth*float64(Month), math.MaxInt64/2))
	}
}

// holdMove checks what a move has to wait for.
func (c *weighing) holdMove() {
	start := c.now
	if !c.d.Fold && (c.d.SavingUSDMonth <= 0 || c.d.Payback > c.r.Payback) {
		c.hold(Shrink, WhyPayback, time.Time{}, "would be paid back in %s, %s allows %s", words(c.d.Payback), c.r, words(c.r.Payback))
	}
	if c.h.Known < c.r.LookBack {
		start = c.now.Add(c.r.LookBack - c.h.Known)
		c.hold(Shrink, WhyHistory, start, "%s of usage are on record, %s wants %s", words(c.h.Known), c.r, words(c.r.LookBack))
	}
	if until := c.holdSpent(); until.After(start) {
		start = until
	}
	start = c.holdQuiet(Shrink, start)
	c.holdWindow(Shrink, start)
	c.gate()
}

// holdQuiet waits for some time after the last growth or shrink, and tells from when on
// nothing that was found so far is in the way. The hour of a change is on record, not the
// minute: it is quiet from its end on, but a policy that wants less than an hour does not
// wait for more than twice that.
func (c *weighing) holdQuiet(a Action, start time.Time) time.Time {
	for _, last := range []time.Time{c.h.LastGrow, c.h.LastShrink} {
		until := last.Add(c.r.ShrinkQuiet + min(c.r.ShrinkQuiet, time.Hour))
		if !last.IsZero() && until.After(c.now) {
			c.hold(a, WhyQuiet, until, "changed in the hour from %s on, %s wants %s of quiet", last.UTC().Format(time.RFC3339), c.r, words(c.r.ShrinkQuiet))
			if until.After(start) {
				start = until
			}
		}
	}
	return start
}

// holdWindow waits for a maintenance window.
func (c *weighing) holdWindow(a Action, start time.Time) {
	switch open, next := c.r.Open(start); {
	case open && c.d.Action == a:
		c.d.NotAfter = c.r.closes(c.now)
	case open:
	case next.IsZero():
		c.hold(a, WhyWindow, time.Time{}, "no maintenance window ever opens")
		c.d.NotBefore = time.Time{}
	default:
		c.hold(a, WhyWindow, next, "outside of the maintenance windows; the next opens %s", next.UTC().Format(time.RFC3339))
	}
}

// retyping tells whether another type or performance may cost less at all.
func (c *weighing) retyping() bool {
	return c.r.FollowPeak || len(c.r.Types) > 0 || c.stripes() > 1 || c.f.Volumes[0].Type == gp2
}

// words prints a duration for people.
func words(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%.0fd", d.Hours()/24)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%.0fh", d.Hours())
	case d >= 2*time.Minute:
		return fmt.Sprintf("%.0fm", d.Minutes())
	}
	return d.Round(time.Second).String()
}
