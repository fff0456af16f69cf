package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// claimPath is the file whose lock a process with loop nodes holds.
const claimPath = "/run/ebb-loop-nodes.lock"

// claim waits until no other process has loop nodes on this host, and keeps it so until this process
// ends: what a stopped node left behind is gone then, too. Repeating it in the same process is free.
func claim(ctx context.Context, path string) error {
	// A POSIX lock is the process's own and lasts until the process closes any descriptor of the file. So the
	// descriptor stays open for good; one that os.File owned would be closed by a finalizer.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("claim this host: %s: %w", path, err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("claim this host: %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("claim this host: another process has loop nodes (%s): %w", path, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
