package ebs

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// LoopAttach makes a block device of a file and returns its path.
func LoopAttach(ctx context.Context, file string) (string, error) {
	return losetup(ctx, "--find", "--show", file)
}

// LoopRefresh lets a loop device see that its file has grown.
func LoopRefresh(ctx context.Context, disk string) error {
	_, err := losetup(ctx, "--set-capacity", disk)
	return err
}

// LoopDetach takes a loop device away.
func LoopDetach(ctx context.Context, disk string) error {
	_, err := losetup(ctx, "--detach", disk)
	return err
}

func losetup(ctx context.Context, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "losetup", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("losetup %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
