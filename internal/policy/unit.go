package policy

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	sizeRe    = regexp.MustCompile(`^([0-9]+)(Ki|Mi|Gi|Ti)B?$`)
	likeRe    = regexp.MustCompile(`(?i)^([0-9]+(?:\.[0-9]+)?)\s*([kmgt])?(?:i?b?)?(?:/s)?$`)
	percentRe = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)%$`)
	numberRe  = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
	partRe    = regexp.MustCompile(`^([0-9]+)(w|d|h|m|s)`)
	shift     = map[string]int{"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}
	spans     = map[string]time.Duration{"w": 7 * 24 * time.Hour, "d": 24 * time.Hour, "h": time.Hour, "m": time.Minute, "s": time.Second}
)

// parseSize reads "64GiB" into bytes.
func parseSize(s string) (int64, error) {
	m := sizeRe.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New(sizeHint(s, "GiB"))
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil || n > math.MaxInt64>>shift[m[2]] {
		return 0, errors.New("too large")
	}
	return n << shift[m[2]], nil
}

// parseGiB reads a size of whole GiB.
func parseGiB(s string) (int64, error) {
	b, err := parseSize(s)
	if err == nil && b%(1<<30) != 0 {
		return 0, fmt.Errorf("EBS volumes come in whole GiB; did you mean %dGiB?", b>>30+1)
	}
	return b >> 30, err
}

// parseRate reads "200MiB/s" into MiB per second.
func parseRate(s string) (int64, error) {
	num, ok := strings.CutSuffix(s, "/s")
	if !ok {
		return 0, errors.New(sizeHint(s, "MiB/s"))
	}
	b, err := parseSize(num)
	switch {
	case err != nil:
		return 0, errors.New(sizeHint(num, "MiB/s"))
	case b%(1<<20) != 0:
		return 0, errors.New("want whole MiB/s")
	}
	return b >> 20, nil
}

// sizeHint says what was probably meant.
func sizeHint(s, unit string) string {
	want := "want a whole number and a binary unit, such as 64" + unit
	m := likeRe.FindStringSubmatch(s)
	switch {
	case m == nil:
		return want
	case strings.Contains(m[1], "."):
		return want + " (no fractions: take the next smaller unit)"
	case m[2] == "":
		return fmt.Sprintf("the unit is missing; did you mean %s%s?", m[1], unit)
	}
	_, rate, _ := strings.Cut(unit, "iB")
	return fmt.Sprintf("did you mean %s%siB%s? Ebb counts in binary units only (1 GiB is 1.07 GB)", m[1], strings.ToUpper(m[2]), rate)
}

// parsePercent reads "80%" into 0.8.
func parsePercent(s string) (float64, error) {
	m := percentRe.FindStringSubmatch(s)
	if m == nil {
		if !numberRe.MatchString(s) {
			return 0, errors.New("want a percentage, such as 80%")
		}
		v, err := strconv.ParseFloat(s, 64)
		if err == nil && v > 0 && v < 1 {
			return 0, fmt.Errorf("want a percentage; did you mean %s%%?", strconv.FormatFloat(math.Round(v*1e4)/100, 'g', -1, 64))
		}
		return 0, fmt.Errorf("the unit is missing; did you mean %s%%?", s)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil || v > 1e6 {
		return 0, errors.New("too large")
	}
	return v / 100, nil
}

// parseDuration reads "90m", "24h", "7d", "2w" and sums such as "1d12h".
func parseDuration(s string) (time.Duration, error) {
	if numberRe.MatchString(s) {
		return 0, fmt.Errorf("the unit is missing; did you mean %[1]sm, %[1]sh or %[1]sd?", s)
	}
	var sum time.Duration
	rest := s
	for rest != "" {
		m := partRe.FindStringSubmatch(rest)
		if m == nil {
			return 0, errors.New("want a duration, such as 30m, 24h or 7d")
		}
		n, err := strconv.ParseInt(m[1], 10, 32)
		if err != nil || time.Duration(n) > 3650*24*time.Hour/spans[m[2]] {
			return 0, errors.New("too long")
		}
		sum += time.Duration(n) * spans[m[2]]
		rest = rest[len(m[0]):]
	}
	if s == "" {
		return 0, errors.New("want a duration, such as 30m, 24h or 7d")
	}
	return sum, nil
}

// showDuration is the shortest way to write what parseDuration reads.
func showDuration(d time.Duration) string {
	for _, u := range []string{"d", "h", "m"} {
		if d != 0 && d%spans[u] == 0 {
			return fmt.Sprintf("%d%s", d/spans[u], u)
		}
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// showBytes is the shortest way to write what parseSize reads.
func showBytes(b int64) string {
	for _, u := range []string{"Ti", "Gi", "Mi", "Ki"} {
		if b != 0 && b%(1<<shift[u]) == 0 {
			return fmt.Sprintf("%d%sB", b>>shift[u], u)
		}
	}
	return fmt.Sprintf("%dKiB", b>>10)
}
