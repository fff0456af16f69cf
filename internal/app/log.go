package app

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Log is how a program logs.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // json, text or auto
}

// Flags gives a command and those below it --log-level and --log-format.
func (l *Log) Flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&l.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&l.Format, "log-format", "auto", "json, text, or auto: text on a terminal")
}

// New makes a logger to stderr, as JSON unless a person is looking. A bad level
// or format is a UsageError.
func (l *Log) New() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		return nil, Usagef("--log-level %q: want debug, info, warn or error", l.Level)
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.Format {
	case "json":
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "auto":
		if term.IsTerminal(int(os.Stderr.Fd())) {
			return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
		}
	default:
		return nil, Usagef("--log-format %q: want json, text or auto", l.Format)
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
}

// Usagef makes a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }
