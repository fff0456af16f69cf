// Package size reads and writes the sizes and rates people type. It is strict:
// a number without a unit, or with a decimal one, is refused with a hint, since
// a disk of the wrong size costs more than a second try.
package size

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
)

var (
	sizeRe = regexp.MustCompile(`^([0-9]+)(Ki|Mi|Gi|Ti)B?$`)
	likeRe = regexp.MustCompile(`(?i)^([0-9]+(?:\.[0-9]+)?)\s*([kmgt])?(?:i?b?)?(?:/s)?$`)
	units  = map[string]int64{"Ki": kib, "Mi": mib, "Gi": gib, "Ti": tib}
)

// Parse reads "64GiB", "64Gi", "512MiB" or "2TiB" into bytes.
func Parse(s string) (int64, error) {
	m := sizeRe.FindStringSubmatch(s)
	if m == nil {
		return 0, fmt.Errorf("size %q: %s", clip(s), hint(s, ""))
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64/units[m[2]] {
		return 0, fmt.Errorf("size %q: too large", clip(s))
	}
	return n * units[m[2]], nil
}

// ParseGiB reads a size that must be whole GiB, as EBS sizes are, and at least
// one.
func ParseGiB(s string) (int64, error) {
	b, err := Parse(s)
	switch {
	case err != nil:
		return 0, err
	case b == 0:
		return 0, fmt.Errorf("size %q: want at least 1GiB", clip(s))
	case b%gib != 0:
		return 0, fmt.Errorf("size %q: EBS volumes come in whole GiB; try %dGiB", clip(s), b/gib+1)
	}
	return b / gib, nil
}

// Unlimited is the rate "off" stands for.
const Unlimited = 0

// ParseRate reads "200MiB/s", "1GiB/s" or "off" into MiB per second.
func ParseRate(s string) (int64, error) {
	if s == "off" {
		return Unlimited, nil
	}
	num, ok := strings.CutSuffix(s, "/s")
	if !ok {
		return 0, fmt.Errorf("rate %q: %s", clip(s), hint(s, "/s"))
	}
	b, err := Parse(num)
	switch {
	case err != nil:
		return 0, fmt.Errorf("rate %q: %s", clip(s), hint(num, "/s"))
	case b == 0:
		return 0, fmt.Errorf("rate %q: to lift the limit say off; to hold the copy use ebb pause", clip(s))
	case b%mib != 0:
		return 0, fmt.Errorf("rate %q: want whole MiB/s", clip(s))
	}
	return b / mib, nil
}

// ParseDuration reads what time.ParseDuration reads, and whole days ("7d").
// The result is positive.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int64
		n, err = strconv.ParseInt(days, 10, 32)
		d = time.Duration(n) * 24 * time.Hour
		if err == nil && n > 36500 {
			err = errors.New("too long")
		}
	}
	if err != nil {
		return 0, fmt.Errorf("duration %q: want for example 90m, 24h or 7d", clip(s))
	}
	if d <= 0 {
		return 0, fmt.Errorf("duration %q: want more than nothing; the shortest is 1s", clip(s))
	}
	return d, nil
}

// Bytes writes a size for people: three significant digits, binary units.
func Bytes(b int64) string {
	switch {
	case b < 0:
		return "-" + Bytes(-b)
	case b >= tib:
		return scaled(b, tib, "TiB")
	case b >= gib:
		return scaled(b, gib, "GiB")
	case b >= mib:
		return scaled(b, mib, "MiB")
	case b >= kib:
		return scaled(b, kib, "KiB")
	}
	return strconv.FormatInt(b, 10) + " B"
}

// Rate writes a rate in MiB per second for people.
func Rate(mibs float64) string {
	if mibs >= 100 {
		return fmt.Sprintf("%.0f MiB/s", mibs)
	}
	return fmt.Sprintf("%.1f MiB/s", mibs)
}

func scaled(b, unit int64, name string) string {
	if b%unit == 0 {
		return fmt.Sprintf("%d %s", b/unit, name)
	}
	v := float64(b) / float64(unit)
	digits := 2
	if v >= 10 {
		digits = 1
	}
	if v >= 100 {
		digits = 0
	}
	return fmt.Sprintf("%.*f %s", digits, v, name)
}

// hint says what was probably meant.
func hint(s, suffix string) string {
	want := "want a whole number and a binary unit, such as 64GiB"
	if suffix != "" {
		want = "want off, or a whole number and a binary unit, such as 64MiB" + suffix
	}
	m := likeRe.FindStringSubmatch(s)
	if m == nil {
		return want
	}
	if strings.Contains(m[1], ".") {
		return "want a whole number; use the next smaller unit, such as 1536MiB" + suffix
	}
	if m[2] == "" {
		unit := "GiB"
		if suffix != "" {
			unit = "MiB"
		}
		return fmt.Sprintf("the unit is missing; did you mean %s%s%s?", m[1], unit, suffix)
	}
	return fmt.Sprintf("did you mean %s%siB%s? Ebb counts in binary units only", m[1], strings.ToUpper(m[2]), suffix)
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "..."
	}
	return s
}
