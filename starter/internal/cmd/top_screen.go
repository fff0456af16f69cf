package cmd

import (
	"context"
	"os"
	"strings"

	"golang.org/x/term"
)

// Sequences every terminal since the VT100's heirs understands.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[2J" // another screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// screen is a terminal that is drawn on as a whole. close gives it back as it was,
// and must be called on every way out.
type screen struct {
	in, out       *os.File
	before        *term.State // of in; nil: it is no terminal, and there are no keys
	width, height int
}

// openScreen takes the terminal. Without an input that is one too there are no
// keys; Ctrl-C is the shell's then.
func openScreen(in, out *os.File) (*screen, error) {
	if !term.IsTerminal(int(out.Fd())) {
		return nil, errNoTerminal
	}
	s := &screen{in: in, out: out}
	if in != nil && term.IsTerminal(int(in.Fd())) {
		before, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return nil, err
		}
		s.before = before
	}
	if _, err := out.WriteString(enterScreen); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close gives the terminal back.
func (s *screen) close() {
	_, _ = s.out.WriteString(leaveScreen)
	if s.before != nil {
		_ = term.Restore(int(s.in.Fd()), s.before)
	}
}

// size is the terminal's, and whether it is another than last time.
func (s *screen) size() (width, height int, changed bool) {
	w, h, err := term.GetSize(int(s.out.Fd()))
	if err != nil || w < 1 || h < 1 {
		w, h = 80, 24
	}
	changed = w != s.width || h != s.height
	s.width, s.height = w, h
	return w, h, changed
}

// draw replaces what is on the screen, without clearing it first: nothing flickers.
func (s *screen) draw(lines []topLine, plain bool) error {
	var b strings.Builder
	b.WriteString(home)
	for i, l := range lines {
		if i == s.height && s.height > 0 {
			break
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		text := fitTo(l.text, s.width)
		if l.style != "" && !plain {
			text = "\x1b[" + string(l.style) + "m" + text + "\x1b[0m"
		}
		b.WriteString(text + clearLine)
	}
	b.WriteString(clearBelow)
	_, err := s.out.WriteString(b.String())
	return err
}

// keys is closed when q, Escape or Ctrl-C is typed, or the input ends. The reader
// ends then, or with the process: a read of a terminal cannot be called off.
func (s *screen) keys(ctx context.Context) <-chan struct{} {
	quit := make(chan struct{})
	if s.before == nil {
		return quit // never
	}
	go func() {
		defer close(quit)
		b := make([]byte, 64)
		for ctx.Err() == nil {
			n, err := s.in.Read(b)
			if err != nil || leaves(b[:n]) {
				return
			}
		}
	}()
	return quit
}

// leaves tells whether somebody typed what ends a view: q, Q, Ctrl-C, Ctrl-D, or
// Escape alone (an arrow key begins with one).
func leaves(typed []byte) bool {
	if len(typed) == 1 && typed[0] == 0x1b {
		return true
	}
	for i, c := range typed {
		if c == 'q' || c == 'Q' || c == 3 || c == 4 {
			return i == 0 || typed[0] != 0x1b
		}
	}
	return false
}
