package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// GuestEnv names the environment variable that points to a guest program built beforehand, for machines
// without the Go toolchain.
const GuestEnv = "EBB_NODE_GUEST"

// keepGuests is longer than any node lives.
const keepGuests = 7 * 24 * time.Hour

// BuildGuest builds the program that runs inside nodes, if what is cached is not up to date, and returns
// its path, which names its content. It may be called by several processes at once.
func BuildGuest(ctx context.Context) (string, error) {
	if p := os.Getenv(GuestEnv); p != "" {
		return p, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = filepath.Join(os.TempDir(), "ebb-cache")
	}
	dir := filepath.Join(cache, "ebb", "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build guest: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "guest.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("build guest: %w", err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("build guest: lock: %w", err)
	}
	built := filepath.Join(dir, "guest")
	if err := goTool(ctx, "build", "-trimpath", "-buildvcs=false", "-o", built, "github.com/ebb-storage/ebb/tests/node/guest"); err != nil {
		return "", fmt.Errorf("build guest: %w", err)
	}
	b, err := os.ReadFile(built)
	if err != nil {
		return "", fmt.Errorf("build guest: %w", err)
	}
	sum := sha256.Sum256(b)
	named := fmt.Sprintf("%s-%x", built, sum[:6])
	if _, err := os.Stat(named); err == nil {
		return named, nil
	}
	prune(built)
	if err := os.WriteFile(named+".new", b, 0o755); err != nil {
		return "", fmt.Errorf("build guest: %w", err)
	}
	if err := os.Rename(named+".new", named); err != nil {
		return "", fmt.Errorf("build guest: %w", err)
	}
	return named, nil
}

// prune removes programs that were built long ago.
func prune(built string) {
	old, _ := filepath.Glob(built + "-*")
	for _, f := range old {
		if s, err := os.Stat(f); err == nil && time.Since(s.ModTime()) > keepGuests {
			_ = os.Remove(f)
		}
	}
}

// goTool runs the go command for a static binary, in the module of the working directory.
func goTool(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
