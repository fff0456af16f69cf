package ui

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Streams are the command's three files.
type Streams struct {
	In  io.Reader
	Out io.Writer // data
	Err io.Writer // talk

	// Plain turns colors off even on a terminal.
	Plain bool
}

// Std is the process's own streams. Colors are off when NO_COLOR is set to
// anything (no-color.org) or TERM is "dumb".
func Std() Streams {
	return Streams{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Plain: os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb",
	}
}

// Say writes a line of talk. Nobody may be listening; that is no error.
func (s Streams) Say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Err, format+"\n", args...)
}

// Style is a color of meaning.
type Style string

// Styles.
const (
	Good  Style = "32"
	Warn  Style = "33"
	Bad   Style = "31"
	Faint Style = "2"
	Bold  Style = "1"
)

// Paint colors text for w, when w is a terminal and colors are wanted.
func (s Streams) Paint(w io.Writer, style Style, text string) string {
	if s.Plain || !IsTerminal(w) {
		return text
	}
	return "\x1b[" + string(style) + "m" + text + "\x1b[0m"
}

// IsTerminal says whether a person watches the stream.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is the terminal's, or a safe guess.
func width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 20 {
			return cols
		}
	}
	return 80
}
