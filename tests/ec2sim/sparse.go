package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// copyChunk bounds one copy_file_range call, so that a copy notices its
// context's end.
const copyChunk = 64 << 20

// sparseCopy makes dst (of any length) hold the first limit bytes of src,
// holes kept, and returns how many bytes of data that were. Whatever data dst
// had is gone. On filesystems that share extents it is a reflink.
func sparseCopy(ctx context.Context, dst, src *os.File, limit int64) (int64, error) {
	fi, err := dst.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat destination: %w", err)
	}
	length := max(fi.Size(), limit)
	if err := dst.Truncate(0); err != nil {
		return 0, fmt.Errorf("empty destination: %w", err)
	}
	cloned := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil
	if cloned {
		if err := dst.Truncate(limit); err != nil {
			return 0, fmt.Errorf("cut destination: %w", err)
		}
	}
	if err := dst.Truncate(length); err != nil {
		return 0, fmt.Errorf("extend destination: %w", err)
	}
	var total int64
	for pos := int64(0); pos < limit; {
		start, end, err := nextData(src, pos, limit)
		if err != nil {
			return total, err
		}
		if start < end && !cloned {
			if err := copyRange(ctx, dst, src, start, end); err != nil {
				return total, err
			}
		}
		total += end - start
		pos = end
	}
	return total, nil
}

// nextData is the first range of data in [pos, limit); [limit, limit) when
// there is none left.
func nextData(f *os.File, pos, limit int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO) || err == nil && start >= limit:
		return limit, limit, nil
	case err != nil:
		return 0, 0, fmt.Errorf("find data: %w", err)
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("find hole: %w", err)
	}
	return start, min(end, limit), nil
}

func copyRange(ctx context.Context, dst, src *os.File, start, end int64) error {
	from, to := start, start
	for from < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := unix.CopyFileRange(int(src.Fd()), &from, int(dst.Fd()), &to, int(min(end-from, copyChunk)), 0)
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		if n == 0 {
			return nil // the source was cut meanwhile; the rest is a hole
		}
	}
	return nil
}
