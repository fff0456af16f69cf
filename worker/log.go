package main

import (
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// newLogger logs to stderr, as JSON unless a person is looking.
func newLogger(cfg settings) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.logLevel)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", cfg.logLevel)}
	}
	options := &slog.HandlerOptions{Level: level}
	switch cfg.logFormat {
	case "json":
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "auto":
		if term.IsTerminal(int(os.Stderr.Fd())) {
			return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
		}
	default:
		return nil, usageError{fmt.Errorf("--log-format %q: want json, text or auto", cfg.logFormat)}
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
}
