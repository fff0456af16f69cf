package cmd

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// topLine is one line of the screen.
type topLine struct {
	text  string
	style ui.Style // empty: none
}

// barWidth of a utilization bar in a table.
const barWidth = 10

// page draws the data for a screen: no line is wider, and there are no more of them
// than height, 0 being as many as it takes. rows bounds the disks, 0 likewise.
func (d *topData) page(now time.Time, width, height, rows int) []topLine {
	var out []topLine
	add := func(style ui.Style, format string, args ...any) {
		out = append(out, topLine{fitTo(ui.Clean(fmt.Sprintf(format, args...)), width), style})
	}
	t := d.Totals

	// 1. The fleet.
	add(ui.Bold, "ebb top  %s  %d disks, %d in trouble, %d operations", now.Local().Format(time.TimeOnly), t.Disks, t.Troubled, len(d.Operations))
	bar := min(max(width-56, barWidth), 40)
	add("", "[%s] %3.0f%%  %s used of %s backing", meter(t.Utilization, bar), 100*t.Utilization, size.Bytes(t.UsedBytes), size.Bytes(t.BackingBytes))
	saved := fmt.Sprintf("saved %s of %s full size", size.Bytes(t.SavedBytes), size.Bytes(t.SizeBytes))
	if t.SizeBytes > 0 {
		saved += fmt.Sprintf(" (%.0f%%)", 100*float64(t.SavedBytes)/float64(t.SizeBytes))
	}
	if t.Unmeasured > 0 {
		saved += fmt.Sprintf("; %d disks not measured", t.Unmeasured)
	}
	add("", "%s; figures are %s old", saved, shortTime(now.Sub(d.Measured).Seconds()))
	if d.Problem != "" {
		add(ui.Bad, "%s", d.Problem)
	}
	add("", "")
	left := height - len(out)
	if height == 0 {
		left = math.MaxInt
	}

	// 2. What runs: at most a third of what is left, for each a line.
	if n := len(d.Operations); n > 0 {
		show := min(n, max((left-3)/3, 1))
		if height == 0 {
			show = n
		}
		for _, o := range d.Operations[:show] {
			add("", "%s", o.line(now, width))
		}
		if show < n {
			add(ui.Faint, "and %d more operations", n-show)
		}
		add("", "")
	}

	// 3. Disks.
	if len(d.Disks) == 0 {
		add(ui.Faint, "no disks; make one with: ebb disk create")
		return clipLines(out, height)
	}
	name := 4
	for _, x := range d.Disks {
		name = min(max(name, utf8.RuneCountInString(x.ref())), 32, max(width/3, 8))
	}
	add(ui.Faint, "%s", diskHead(name))
	show := len(d.Disks)
	if rows > 0 {
		show = min(show, rows)
	}
	if height > 0 {
		show = min(show, max(height-len(out)-1, 1))
	}
	for _, x := range d.Disks[:show] {
		add(x.style(), "%s", x.line(name))
	}
	if more := len(d.Disks) - show; more > 0 {
		add(ui.Faint, "and %d more disks", more)
	}
	return clipLines(out, height)
}

func clipLines(lines []topLine, height int) []topLine {
	if height > 0 && len(lines) > height {
		return lines[:height]
	}
	return lines
}

func diskHead(name int) string {
	return fmt.Sprintf("%-*s  %-*s %5s  %9s  %9s  %9s  %9s  %12s  %s", name, "DISK", barWidth+2, "", "USED%", "USED", "BACKING", "SIZE", "SAVED", "FILLING", "STATE")
}

func (d topDisk) line(name int) string {
	ref := fitTo(ui.Clean(d.ref()), name)
	ref += strings.Repeat(" ", max(name-utf8.RuneCountInString(ref), 0))
	if !d.Measured {
		return fmt.Sprintf("%s  %-*s %5s  %9s  %9s  %9s  %9s  %12s  %s", ref, barWidth+2, "["+strings.Repeat("?", barWidth)+"]", "-", "-", size.Bytes(d.BackingBytes), "-", "-", "-", d.State)
	}
	fill := "-"
	if d.FillRate > 0 {
		fill = size.Rate(d.FillRate / (1 << 20))
	}
	return fmt.Sprintf("%s  [%s] %4.0f%%  %9s  %9s  %9s  %9s  %12s  %s", ref, meter(d.share(), barWidth), 100*d.share(),
		size.Bytes(d.UsedBytes), size.Bytes(d.BackingBytes), size.Bytes(d.SizeBytes), size.Bytes(d.SavedBytes), fill, d.State)
}

func (d topDisk) style() ui.Style {
	switch d.rank {
	case rankFull:
		return ui.Bad
	case rankSoon, rankCeiling, rankUnmeasured:
		return ui.Warn
	}
	return ""
}

// line shows how far an operation is: the same words as ebb watch.
func (o topOperation) line(now time.Time, width int) string {
	d := control.Disk{ID: o.Disk, Name: o.Name}
	s := state(&control.Run{Disk: d, Operation: o.Progress.Operation}, o.Snapshot)
	head := fmt.Sprintf("%s  %s", s.Title, s.Phase)
	if s.Steps > 0 {
		head = fmt.Sprintf("%s  %d/%d %s", s.Title, s.Step, s.Steps, s.Phase)
	}
	if s.Paused {
		head += " (paused)"
	}
	tail := []string{}
	bar := ""
	if s.Total > 0 {
		bar = fmt.Sprintf("  [%s] %3.0f%%", meter(s.Fraction(), barWidth), 100*s.Fraction())
		if s.MiBs > 0 {
			tail = append(tail, size.Rate(s.MiBs))
		}
		if s.ETA > 0 {
			tail = append(tail, "ETA "+shortTime(s.ETA.Seconds()))
		}
	} else {
		tail = append(tail, "for "+shortTime(now.Sub(o.Since).Seconds()))
	}
	if s.Note != "" {
		tail = append(tail, s.Note)
	}
	return fitTo(head+bar+"  "+strings.Join(tail, "  "), width)
}

// meter is a bar without its brackets, for a share as its percentage is shown.
func meter(share float64, width int) string {
	share = math.Round(min(max(share, 0), 1)*100) / 100
	full := int(share*float64(width) + 1e-9)
	return strings.Repeat("#", full) + strings.Repeat(".", width-full)
}

// shortTime is a time in its two greatest units at most.
func shortTime(seconds float64) string {
	d := time.Duration(min(max(seconds, 0), 1e8)) * time.Second
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// fitTo cuts text to width columns; 0 is any width.
func fitTo(s string, width int) string {
	r := []rune(s)
	if width <= 0 || len(r) <= width {
		return s
	}
	if width <= 3 {
		return string(r[:width])
	}
	return string(r[:width-3]) + "..."
}
