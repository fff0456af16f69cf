package ec2sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

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
	return eachData(src, limit, func(_, start, end int64) error {
		if start == end || cloned {
			return nil
		}
		return copyRange(ctx, dst, src, start, end)
	})
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

// compareChunk is how much is compared, and written when it differs, at once.
const compareChunk = 1 << 20

// sparseUpdate does what sparseCopy does to a dst that was copied from src
// before: it writes only what has changed since. Comparing is several times
// faster than writing, and as many compare as there are processors.
func sparseUpdate(ctx context.Context, dst, src *os.File, limit int64) (int64, error) {
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return sparseCopy(ctx, dst, src, limit)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type chunk struct{ at, n int64 }
	chunks := make(chan chunk)
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		wg.Go(func() {
			c := comparer{dst: dst, src: src, old: make([]byte, compareChunk), now: make([]byte, compareChunk)}
			for k := range chunks {
				if ctx.Err() == nil {
					if err := c.update(k.at, k.n); err != nil {
						cancel(err)
					}
				}
			}
		})
	}
	total, err := eachData(src, limit, func(hole, start, end int64) error {
		if err := punch(dst, hole, start); err != nil {
			return err
		}
		for at := start; at < end; at += compareChunk {
			chunks <- chunk{at, min(end-at, compareChunk)}
		}
		return context.Cause(ctx)
	})
	close(chunks)
	wg.Wait()
	if cause := context.Cause(ctx); err == nil {
		err = cause
	}
	return total, err
}

// eachData calls fn for each range of data [start, end) and the hole [hole,
// start) before it; a last hole has an empty range of data behind it. It returns
// how many bytes of data there are.
func eachData(src *os.File, limit int64, fn func(hole, start, end int64) error) (total int64, err error) {
	for pos := int64(0); pos < limit; {
		start, end, err := nextData(src, pos, limit)
		if err != nil {
			return total, err
		}
		if err := fn(pos, start, end); err != nil {
			return total, err
		}
		total += end - start
		pos = end
	}
	return total, nil
}

// punch makes a hole of [start, end) where there is data.
func punch(f *os.File, start, end int64) error {
	for start < end {
		from, to, err := nextData(f, start, end)
		if err != nil || from == to {
			return err
		}
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
		if err != nil {
			return fmt.Errorf("punch a hole: %w", err)
		}
		start = to
	}
	return nil
}

type comparer struct {
	dst, src *os.File
	old, now []byte
}

func (c *comparer) update(at, n int64) error {
	now := c.now[:n]
	if err := readZeros(c.src, now, at); err != nil {
		return err
	}
	if err := readZeros(c.dst, c.old[:n], at); err != nil {
		return err
	}
	if bytes.Equal(now, c.old[:n]) {
		return nil
	}
	_, err := c.dst.WriteAt(now, at)
	return err
}

// readZeros fills b from the file; behind the file's end there are zeros.
func readZeros(f *os.File, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	clear(b[n:])
	return err
}
