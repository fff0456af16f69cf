package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tree is a set of files that is made and thinned out at random, the same for
// the same seed.
type tree struct {
	dir   string
	rnd   *rand.Rand
	data  []byte
	made  int
	files []string
}

func newTree(dir string, seed uint64) *tree {
	t := &tree{dir: dir, rnd: rand.New(rand.NewPCG(seed, 1)), data: make([]byte, 16*mib)} //nolint:gosec // repeatable on purpose
	for i := range t.data {
		t.data[i] = byte(t.rnd.Uint32())
	}
	return t
}

// between draws a size, each doubling of which is as likely as the next.
func (t *tree) between(low, high int64) int64 {
	return int64(float64(low) * math.Pow(float64(high)/float64(low), t.rnd.Float64()))
}

// add makes one file of n bytes.
func (t *tree) add(n int64) error {
	dir := filepath.Join(t.dir, fmt.Sprintf("%02d", t.made%32))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, fmt.Sprintf("f%06d", t.made))
	t.made++
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	for n > 0 && err == nil {
		k := min(n, int64(len(t.data)))
		_, err = f.Write(t.data[:k])
		n -= k
	}
	if e := f.Close(); err == nil {
		err = e
	}
	t.files = append(t.files, name)
	return err
}

// drop removes one file, any.
func (t *tree) drop() error {
	i := t.rnd.IntN(len(t.files))
	name := t.files[i]
	t.files[i] = t.files[len(t.files)-1]
	t.files = t.files[:len(t.files)-1]
	return os.Remove(name)
}

// full is the share of the filesystem that is in use.
func (t *tree) full() (float64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(t.dir, &s); err != nil {
		return 0, err
	}
	return 1 - float64(s.Bfree)/float64(s.Blocks), nil
}

// fill adds files until the filesystem is full to a share.
func (t *tree) fill(share float64, low, high int64) error {
	for i := 0; ; i++ {
		if now, err := t.full(); err != nil || now >= share {
			return err
		}
		if err := t.add(t.between(low, high)); err != nil {
			return err
		}
		if i%64 == 63 {
			unix.Sync() // delayed allocation decides where files lie, and statfs lags behind it
		}
	}
}

// thin removes files until the filesystem is full to a share.
func (t *tree) thin(share float64) error {
	for len(t.files) > 0 {
		now, err := t.full()
		if err != nil || now <= share {
			return err
		}
		for range min(8, len(t.files)) {
			if err := t.drop(); err != nil {
				return err
			}
		}
		unix.Sync() // XFS frees in the background
	}
	return nil
}

// Ageing of a filesystem, as the benchmark understands it: filled to agedFull
// with files of 4 KiB to 16 MiB (each doubling as likely as the next, so most
// are small and most bytes are in large ones), then agedRounds times thinned out
// at random to agedThin and filled again, at last thinned out to agedEnd.
const (
	agedFull   = 0.80
	agedThin   = 0.65
	agedEnd    = 0.50
	agedRounds = 10
	agedLow    = 4 * kib
	agedHigh   = 16 * mib
)

func (t *tree) age() error {
	for range agedRounds {
		if err := t.fill(agedFull, agedLow, agedHigh); err != nil {
			return err
		}
		if err := t.thin(agedThin); err != nil {
			return err
		}
	}
	if err := t.fill(agedFull, agedLow, agedHigh); err != nil {
		return err
	}
	return t.thin(agedEnd)
}
