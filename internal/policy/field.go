package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// kind is how a field's value is written.
type kind int

const (
	choiceKind kind = iota
	bytesKind
	gibKind
	rateKind
	percentKind
	durationKind
	countKind
	boolKind
	typesKind
	windowsKind
)

// field is one setting: the decoder, the explanation and the schema read this
// table alone.
type field struct {
	path    string
	kind    kind
	choices []string
	least   float64 // in the unit of the kind: bytes, GiB, MiB/s, a share, seconds, a count
	most    float64
	in      func(*plan.Rule) any // pointer to the value
	about   string
}

var (
	modes    = []string{string(plan.Observe), string(plan.Recommend), string(plan.Enforce)}
	ceilings = []string{plan.AtCeilingWait, plan.AtCeilingFail}
	verifies = []string{contract.VerifyFull, contract.VerifyNone}
	types    = []string{"gp3", "gp2", "io2", "io1"}
)

const (
	hour        = 3600.0
	day         = 24 * hour
	maxGiB      = 65536
	historyDays = 170
)

var fields = []field{
	{path: "mode", choices: modes, in: func(r *plan.Rule) any { return &r.Mode }, about: "observe: plan and record. recommend: ask for approval. enforce: do it."},
	{path: "target", kind: percentKind, least: 0.10, most: 0.95, in: func(r *plan.Rule) any { return &r.Target }, about: "Share of the backing that is used right after an operation."},
	{path: "headroom.bytes", kind: bytesKind, most: maxGiB << 30, in: func(r *plan.Rule) any { return &r.HeadroomBytes }, about: "Free space below which a growth begins; the greatest of bytes, percent and fillTime counts."},
	{path: "headroom.percent", kind: percentKind, most: 10, in: func(r *plan.Rule) any { return &r.HeadroomPercent }, about: "The same, as a share of what is used."},
	{path: "headroom.fillTime", kind: durationKind, most: 7 * day, in: func(r *plan.Rule) any { return &r.HeadroomTime }, about: "The same, as a time at the present fill rate."},
	{path: "floor", kind: gibKind, least: 1, most: maxGiB, in: func(r *plan.Rule) any { return &r.FloorGiB }, about: "Least backing."},
	{path: "ceiling", kind: gibKind, least: 1, most: maxGiB, in: func(r *plan.Rule) any { return &r.CeilingGiB }, about: "Greatest backing. Left out: all that the disk's own size can use."},
	{path: "atCeiling", choices: ceilings, in: func(r *plan.Rule) any { return &r.AtCeiling }, about: "What becomes of writes at a ceiling: they wait, or fail."},
	{path: "grow.minStep", kind: gibKind, least: 1, most: maxGiB, in: func(r *plan.Rule) any { return &r.MinStepGiB }, about: "Least growth."},
	{path: "grow.minStepPercent", kind: percentKind, most: 10, in: func(r *plan.Rule) any { return &r.MinStep }, about: "Least growth as a share of the backing."},
	{path: "grow.maxStep", kind: gibKind, least: 1, most: maxGiB, in: func(r *plan.Rule) any { return &r.MaxStepGiB }, about: "Greatest growth at once, unless what is used needs more."},
	{path: "shrink.min", kind: gibKind, least: 1, most: maxGiB, in: func(r *plan.Rule) any { return &r.MinShrinkGiB }, about: "Least GiB that a shrink must save."},
	{path: "shrink.minPercent", kind: percentKind, most: 0.9, in: func(r *plan.Rule) any { return &r.MinShrink }, about: "The same, as a share of the backing."},
	{path: "shrink.lookBack", kind: durationKind, most: historyDays * day, in: func(r *plan.Rule) any { return &r.LookBack }, about: "A shrink leaves room for the most that was used in this time, and waits until so much is on record. 0s: only what is used now counts."},
	{path: "shrink.quiet", kind: durationKind, most: historyDays * day, in: func(r *plan.Rule) any { return &r.ShrinkQuiet }, about: "No shrink so soon after a growth or a shrink."},
	{path: "shrink.payback", kind: durationKind, least: hour, most: 3650 * day, in: func(r *plan.Rule) any { return &r.Payback }, about: "Longest time in which a shrink's saving may pay for its cost."},
	{path: "windows", kind: windowsKind, in: func(r *plan.Rule) any { return &r.Windows }, about: "When moves may begin. Left out: always. Growth never waits."},
	{path: "move.verify", choices: verifies, in: func(r *plan.Rule) any { return &r.Verify }, about: "full: every used byte of both volumes is read and compared before the switch."},
	{path: "move.snapshot", kind: boolKind, in: func(r *plan.Rule) any { return &r.Snapshot }, about: "Take a snapshot before a move."},
	{path: "move.snapshotRetention", kind: durationKind, least: hour, most: 3650 * day, in: func(r *plan.Rule) any { return &r.SnapshotRetention }, about: "How long that snapshot is kept."},
	{path: "move.grace", kind: durationKind, most: 90 * day, in: func(r *plan.Rule) any { return &r.GracePeriod }, about: "How long the old volume is kept, and paid for, after a move."},
	{path: "move.throttle", kind: rateKind, least: 1, most: 100000, in: func(r *plan.Rule) any { return &r.ThrottleMiBs }, about: "Greatest copy rate. Left out: unlimited."},
	{path: "performance.minIOPS", kind: countKind, least: 1, most: 256000, in: func(r *plan.Rule) any { return &r.MinIOPS }, about: "A new volume gives at least so many I/O operations per second."},
	{path: "performance.minThroughput", kind: rateKind, least: 1, most: 4000, in: func(r *plan.Rule) any { return &r.MinMiBs }, about: "A new volume gives at least this throughput."},
	{path: "performance.followPeak", kind: boolKind, in: func(r *plan.Rule) any { return &r.FollowPeak }, about: "Provision for the recorded peak and peakHeadroom. false: never less than the old volume delivered."},
	{path: "performance.peakHeadroom", kind: percentKind, most: 10, in: func(r *plan.Rule) any { return &r.PeakHeadroom }, about: "What followPeak adds to the recorded peak, as far as the old volume delivered it."},
	{path: "performance.types", kind: typesKind, choices: types, in: func(r *plan.Rule) any { return &r.Types }, about: "Volume types a move may choose from by price. Left out: the present one, and gp3 instead of gp2."},
	{path: "performance.maxStripes", kind: countKind, least: 1, most: 8, in: func(r *plan.Rule) any { return &r.MaxStripes }, about: "How many volumes a move may spread a disk over where that gives the same performance for less."},
}

// read turns text into what puts the value into a rule.
func (f *field) read(s string) (func(*plan.Rule), error) {
	n, text, err := f.parse(s)
	if err != nil {
		return nil, err
	}
	if f.kind != choiceKind && f.kind != boolKind {
		if n < f.least {
			return nil, fmt.Errorf("want at least %s", f.unit(f.least))
		}
		if f.most > 0 && n > f.most {
			return nil, fmt.Errorf("want at most %s", f.unit(f.most))
		}
	}
	return func(r *plan.Rule) { put(f.in(r), n, text) }, nil
}

// parse reads one scalar: a number in the kind's unit, or a text.
func (f *field) parse(s string) (n float64, text string, err error) {
	var v int64
	switch f.kind {
	case choiceKind:
		for _, c := range f.choices {
			if s == c {
				return 0, s, nil
			}
		}
		return 0, "", fmt.Errorf("want %s", oneOf(f.choices))
	case bytesKind:
		v, err = parseSize(s)
	case gibKind:
		v, err = parseGiB(s)
	case rateKind:
		v, err = parseRate(s)
	case percentKind:
		n, err = parsePercent(s)
		return n, "", err
	case durationKind:
		var d time.Duration
		d, err = parseDuration(s)
		return d.Seconds(), "", err
	case countKind:
		v, err = strconv.ParseInt(s, 10, 32)
		if err != nil {
			err = fmt.Errorf("want a whole number")
		}
	case boolKind:
		if s != "true" && s != "false" {
			return 0, "", fmt.Errorf("want true or false")
		}
		if s == "true" {
			v = 1
		}
	}
	return float64(v), "", err
}

// put stores a parsed value behind the pointer of a field.
func put(to any, n float64, text string) {
	switch p := to.(type) {
	case *plan.Mode:
		*p = plan.Mode(text)
	case *string:
		*p = text
	case *float64:
		*p = n
	case *int64:
		*p = int64(n)
	case *int32:
		*p = int32(n)
	case *int:
		*p = int(n)
	case *time.Duration:
		*p = time.Duration(n) * time.Second
	case *bool:
		*p = n != 0
	}
}

// unit writes a number of the field's kind as a document would.
func (f *field) unit(n float64) string {
	switch f.kind {
	case bytesKind:
		return showBytes(int64(n))
	case gibKind:
		return showBytes(int64(n) << 30)
	case rateKind:
		return fmt.Sprintf("%.0fMiB/s", n)
	case percentKind:
		return strconv.FormatFloat(n*100, 'g', 6, 64) + "%"
	case durationKind:
		return showDuration(time.Duration(n) * time.Second)
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}

// show writes a rule's value of the field as a document would.
func (f *field) show(r *plan.Rule) string {
	switch p := f.in(r).(type) {
	case *plan.Mode:
		return string(*p)
	case *string:
		return *p
	case *float64:
		return f.unit(*p)
	case *int64:
		return f.orNone(float64(*p))
	case *int32:
		return f.orNone(float64(*p))
	case *int:
		return f.orNone(float64(*p))
	case *time.Duration:
		return f.unit(p.Seconds())
	case *bool:
		return strconv.FormatBool(*p)
	case *[]string:
		return strings.Join(*p, ", ")
	case *[]plan.Window:
		out := make([]string, len(*p))
		for i, w := range *p {
			out[i] = showWindow(w)
		}
		return strings.Join(out, "; ")
	}
	return ""
}

// orNone leaves a 0 out that stands for "not set".
func (f *field) orNone(n float64) string {
	if n == 0 && f.least > 0 {
		return ""
	}
	return f.unit(n)
}
