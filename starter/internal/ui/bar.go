package ui

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/starter/internal/size"
)

// State is what a watcher shows of an operation at a moment.
type State struct {
	Title  string // "shrink data-1"
	Phase  string
	Step   int // 1-based; 0: unknown
	Steps  int
	Paused bool
	Note   string // what it waits for, or what went wrong

	// Done of Total bytes at MiBs; Total 0: the phase has no bytes.
	Done, Total int64
	MiBs        float64
	ETA         time.Duration // 0: unknown
}

// Fraction of the phase that is done, 0 to 1.
func (s State) Fraction() float64 {
	if s.Total <= 0 {
		return 0
	}
	return min(1, max(0, float64(s.Done)/float64(s.Total)))
}

// Watcher shows states as they come. It ignores that a stream does not take
// them: the operation matters more than its picture.
type Watcher interface {
	Show(State)
	// Close leaves the stream at the beginning of a line.
	Close()
}

// NewWatcher draws a bar on a terminal and writes lines elsewhere.
func NewWatcher(w io.Writer) Watcher {
	if IsTerminal(w) {
		return &bar{w: w, width: func() int { return width(w) }}
	}
	return &lines{w: w}
}

// bar redraws one line.
type bar struct {
	w     io.Writer
	width func() int
	drawn bool
	turn  int
}

func (b *bar) Show(s State) {
	b.turn++
	_, _ = fmt.Fprint(b.w, "\r"+barLine(s, b.width()-1, b.turn)+"\x1b[K")
	b.drawn = true
}

func (b *bar) Close() {
	if b.drawn {
		_, _ = fmt.Fprint(b.w, "\r\x1b[K")
	}
}

// barLine fits a state into width columns: the parts that matter least go
// first when the terminal is narrow.
func barLine(s State, width, turn int) string {
	head := s.Title + "  " + phaseText(s)
	if s.Total == 0 {
		spin := string(`-\|/`[turn%4])
		return cut(Clean(join(" ", spin, head, s.Note)), width)
	}
	frac := s.Fraction()
	percent := fmt.Sprintf("%3.0f%%", frac*100)
	bytes := size.Bytes(s.Done) + " of " + size.Bytes(s.Total)
	tail := join("  ", bytes, rateText(s), etaText(s), s.Note)
	room := width - len([]rune(head)) - len(percent) - len([]rune(tail)) - 8
	if room < 8 {
		return cut(Clean(join("  ", head, percent, tail)), width)
	}
	room = min(room, 40)
	full := int(frac * float64(room))
	return cut(Clean(head+"  ["+strings.Repeat("#", full)+strings.Repeat(".", room-full)+"] "+percent+"  "+tail), width)
}

// lines writes one line per phase, tenth of it, and change of note.
type lines struct {
	w    io.Writer
	last State
	any  bool
}

func (l *lines) Show(s State) {
	same := l.any && s.Phase == l.last.Phase && s.Paused == l.last.Paused && s.Note == l.last.Note &&
		s.Step == l.last.Step && tenth(s) == tenth(l.last)
	if same {
		return
	}
	l.any, l.last = true, s
	parts := []string{s.Title, phaseText(s)}
	if s.Total > 0 {
		parts = append(parts, fmt.Sprintf("%.0f%%", s.Fraction()*100),
			size.Bytes(s.Done)+" of "+size.Bytes(s.Total), rateText(s), etaText(s))
	}
	_, _ = fmt.Fprintln(l.w, Clean(join("  ", append(parts, s.Note)...)))
}

func (l *lines) Close() {}

// tenth of the phase, -1 when it has no bytes yet.
func tenth(s State) int {
	if s.Total == 0 {
		return -1
	}
	return int(math.Round(s.Fraction()*100)) / 10 // as the percentage is shown
}

func phaseText(s State) string {
	t := s.Phase
	if s.Steps > 0 {
		t = fmt.Sprintf("%d/%d %s", s.Step, s.Steps, s.Phase)
	}
	if s.Paused {
		t += " (paused)"
	}
	return t
}

func rateText(s State) string {
	if s.MiBs <= 0 {
		return ""
	}
	return size.Rate(s.MiBs)
}

func etaText(s State) string {
	if s.ETA <= 0 {
		return ""
	}
	if s.ETA < time.Minute {
		return "ETA " + s.ETA.Round(time.Second).String()
	}
	return "ETA " + strings.TrimSuffix(s.ETA.Round(time.Minute).String(), "0s")
}

func join(sep string, parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, sep)
}

func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width || width < 4 {
		return s
	}
	return string(r[:width-3]) + "..."
}
