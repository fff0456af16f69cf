package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // maintenance windows work where no zone database is installed

	"github.com/ebb-storage/ebb/internal/plan"
)

// leastWindow is the shortest window in which anything could begin.
const leastWindow = 15 * time.Minute

var (
	dayNames = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	clockRe  = regexp.MustCompile(`^([0-2][0-9]):([0-5][0-9])$`)
)

// parseDays reads "Mon", "Mon-Fri" or "Sat-Mon" into set.
func parseDays(s string, set *[7]bool) error {
	first, last, isRange := strings.Cut(s, "-")
	from, err := weekday(first)
	if err != nil {
		return err
	}
	to := from
	if isRange {
		if to, err = weekday(last); err != nil {
			return err
		}
	}
	for d := from; ; d = (d + 1) % 7 {
		set[d] = true
		if d == to {
			return nil
		}
	}
}

func weekday(s string) (int, error) {
	if i := slices.Index(dayNames, s); i >= 0 {
		return i, nil
	}
	if len(s) >= 3 {
		for i, n := range dayNames {
			if strings.EqualFold(s[:3], n) {
				return 0, fmt.Errorf("unknown day %q; did you mean %s?", clip(s), dayNames[i])
			}
		}
	}
	return 0, fmt.Errorf("unknown day %q: want %s, or a range such as Mon-Fri", clip(s), oneOf(dayNames))
}

// parseClock reads "22:30" into the time after midnight.
func parseClock(s string) (time.Duration, error) {
	m := clockRe.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("want a time of day such as \"22:30\", in quotes")
	}
	h, _ := strconv.Atoi(m[1])
	minute, _ := strconv.Atoi(m[2])
	if h > 24 || h == 24 && minute > 0 {
		return 0, errors.New("want a time from \"00:00\" to \"24:00\"")
	}
	return time.Duration(h)*time.Hour + time.Duration(minute)*time.Minute, nil
}

func parseZone(s string) (*time.Location, error) {
	if s == "" || s == "Local" {
		return nil, errors.New("want a time zone such as UTC or Europe/Berlin")
	}
	loc, err := time.LoadLocation(s)
	if err != nil {
		return nil, fmt.Errorf("unknown time zone %q: want a name such as UTC or Europe/Berlin", clip(s))
	}
	return loc, nil
}

// impossible says why no move could ever begin in a window, or nearly none; or "".
func impossible(w plan.Window) string {
	length := w.To - w.From
	if w.To <= w.From {
		length += 24 * time.Hour
	}
	switch {
	case w.From >= 24*time.Hour:
		return `from: the day ends at "24:00"; did you mean "00:00"?`
	case w.From == w.To:
		return `the window begins when it ends; for the whole day write from: "00:00", to: "24:00"`
	case length < leastWindow:
		return fmt.Sprintf("the window is open for %s; nothing is likely to begin in less than %s", showDuration(length), showDuration(leastWindow))
	}
	return ""
}

func showWindow(w plan.Window) string {
	var days []string
	for i := range 7 {
		if d := (i + 1) % 7; w.Days[d] { // weeks begin on Monday here
			days = append(days, dayNames[d])
		}
	}
	return fmt.Sprintf("%s %s-%s %s", strings.Join(days, ","), showClock(w.From), showClock(w.To), w.Zone)
}

func showClock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute)
}
