// Package devserver finds the Temporal server that tests run against.
package devserver

import (
	"fmt"
	"os"
	"path/filepath"
)

// Path is Temporal's command, which brings a server for development: EBB_TEMPORAL, or
// where make puts it. An error says what to do when it is not there.
func Path() (string, error) {
	path := os.Getenv("EBB_TEMPORAL")
	if path == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(cache, "ebb", "bin", "temporal")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no Temporal server: run make setup, or set EBB_TEMPORAL to the temporal command: %w", err)
	}
	return path, nil
}

// Skipper is a test.
type Skipper interface {
	Helper()
	Skip(args ...any)
}

// Need is Path, and skips the test without it.
func Need(t Skipper) string {
	t.Helper()
	path, err := Path()
	if err != nil {
		t.Skip(err)
	}
	return path
}
