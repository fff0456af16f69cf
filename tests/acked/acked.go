// Package acked is a writer that knows what was promised to it, and a checker
// that holds the storage to it.
//
// Every write makes a new file, which is never written again. It counts as
// acknowledged once the file and its directory are fsynced and a line about it
// is fsynced in a journal that lies on other storage. After a power cut exactly
// the acknowledged files must be there, with the right bytes; others may.
package acked

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Writer writes files until told to stop. Its methods other than Run may be
// called while Run runs.
type Writer struct {
	Dir     string // on the storage under test
	Journal string // on other storage, appended to
	// Bytes is the size of file i; nil: 4 KiB to 1 MiB, mostly small.
	Bytes func(i uint64) int
	// Pause between two files; 0: none.
	Pause time.Duration

	acked, failed, bytes atomic.Uint64
	stalls               atomic.Pointer[[]Stall]
	syncs                []time.Duration // fsync latencies of Run
}

// Stall is one wait for a write or fsync.
type Stall struct {
	Begin time.Time     `json:"begin"`
	Took  time.Duration `json:"took_ns"`
}

// stallsKept is how many of the longest stalls a run remembers.
const stallsKept = 16

// Stats of a run.
type Stats struct {
	Acked          uint64        `json:"acknowledged_writes"`
	Bytes          uint64        `json:"acknowledged_bytes"`
	Failed         uint64        `json:"failed_writes"`
	LongestStallMS int64         `json:"longest_write_stall_ms"` // longest single write or fsync
	Stalls         []Stall       `json:"stalls"`                 // the longest ones, longest first
	FsyncP50       time.Duration `json:"fsync_p50_ns"`
	FsyncP99       time.Duration `json:"fsync_p99_ns"`
}

// Stats so far; the percentiles only after Run has returned.
func (w *Writer) Stats() Stats {
	s := Stats{Acked: w.acked.Load(), Bytes: w.bytes.Load(), Failed: w.failed.Load()}
	if st := w.stalls.Load(); st != nil {
		s.Stalls = *st
		s.LongestStallMS = s.Stalls[0].Took.Milliseconds()
	}
	return s
}

// Run writes until ctx ends or a write fails, which is what must never happen.
func (w *Writer) Run(ctx context.Context) (Stats, error) {
	next, err := w.next()
	if err != nil {
		return w.Stats(), err
	}
	j, err := os.OpenFile(w.Journal, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return w.Stats(), err
	}
	defer j.Close()
	dir, err := os.Open(w.Dir)
	if err != nil {
		return w.Stats(), err
	}
	defer dir.Close()
	size := w.Bytes
	if size == nil {
		size = mixed
	}
	var runErr error
	for i := next; ctx.Err() == nil; i++ {
		n := size(i)
		sum, err := w.write(i, n, dir)
		if err == nil {
			_, err = fmt.Fprintf(j, "W %d %d %08x\n", i, n, sum)
		}
		if err == nil {
			err = j.Sync()
		}
		if err != nil {
			w.failed.Add(1)
			runErr = err
			break
		}
		w.acked.Add(1)
		w.bytes.Add(uint64(n))
		if w.Pause > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(w.Pause):
			}
		}
	}
	s := w.Stats()
	if len(w.syncs) > 0 {
		slices.Sort(w.syncs)
		s.FsyncP50, s.FsyncP99 = w.syncs[len(w.syncs)/2], w.syncs[len(w.syncs)*99/100]
	}
	return s, runErr
}

// next is the first file number that no journal line has used. A number used
// without an acknowledgement may be used again: that file was promised nothing.
func (w *Writer) next() (uint64, error) {
	var next uint64
	err := lines(w.Journal, func(op byte, i uint64, _ int, _ uint32) { next = max(next, i+1) })
	return next, err
}

func (w *Writer) write(i uint64, n int, dir *os.File) (uint32, error) {
	f, err := os.OpenFile(filepath.Join(w.Dir, name(i)), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := content(i, n)
	sum := crc32.New(castagnoli)
	buf := make([]byte, min(n, 256<<10))
	for {
		k, err := io.ReadFull(r, buf)
		if k > 0 {
			sum.Write(buf[:k])
			start := time.Now()
			if _, err := f.Write(buf[:k]); err != nil {
				return 0, err
			}
			w.took(start)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
	}
	for _, f := range []*os.File{f, dir} {
		start := time.Now()
		if err := f.Sync(); err != nil {
			return 0, err
		}
		w.syncs = append(w.syncs, w.took(start))
	}
	return sum.Sum32(), nil
}

// took notes how long a write or fsync took that has just returned. Run alone
// calls it.
func (w *Writer) took(begin time.Time) time.Duration {
	d := time.Since(begin)
	var kept []Stall
	if old := w.stalls.Load(); old != nil {
		kept = *old
	}
	if len(kept) < stallsKept || d > kept[len(kept)-1].Took {
		kept = append(slices.Clone(kept), Stall{begin, d})
		slices.SortStableFunc(kept, func(a, b Stall) int { return cmp.Compare(b.Took, a.Took) })
		kept = kept[:min(len(kept), stallsKept)]
		w.stalls.Store(&kept)
	}
	return d
}

// Delete removes acknowledged files for which keep is false; the journal knows
// first, so a file that is half deleted is not missed.
func Delete(dir, journal string, keep func(i uint64) bool) error {
	var gone []uint64
	if err := eachAcked(journal, func(i uint64, _ int, _ uint32) error {
		if !keep(i) {
			gone = append(gone, i)
		}
		return nil
	}); err != nil {
		return err
	}
	j, err := os.OpenFile(journal, os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer j.Close()
	for _, i := range gone {
		if _, err := fmt.Fprintf(j, "D %d 0 0\n", i); err != nil {
			return err
		}
	}
	if err := j.Sync(); err != nil {
		return err
	}
	for _, i := range gone {
		if err := os.Remove(filepath.Join(dir, name(i))); err != nil {
			return err
		}
	}
	return nil
}

// Report of a check.
type Report struct {
	Acked   uint64   `json:"acknowledged_writes"`
	Bytes   uint64   `json:"verified_bytes"`
	Lost    uint64   `json:"lost_writes"`
	Wrong   uint64   `json:"wrong_checksums"`
	Details []string `json:"details,omitempty"` // of the first ten
}

// OK says that nothing is lost or wrong.
func (r Report) OK() bool { return r.Lost == 0 && r.Wrong == 0 }

// Check reads every acknowledged file back.
func Check(dir, journal string) (Report, error) {
	var r Report
	err := eachAcked(journal, func(i uint64, n int, sum uint32) error {
		r.Acked++
		b, err := os.ReadFile(filepath.Join(dir, name(i)))
		bad := ""
		switch {
		case errors.Is(err, fs.ErrNotExist):
			r.Lost++
			bad = "is gone"
		case err != nil:
			r.Wrong++
			bad = err.Error()
		case len(b) != n || crc32.Checksum(b, castagnoli) != sum:
			r.Wrong++
			bad = fmt.Sprintf("has %d bytes of checksum %08x, not %d of %08x", len(b), crc32.Checksum(b, castagnoli), n, sum)
		default:
			r.Bytes += uint64(n)
		}
		if bad != "" && len(r.Details) < 10 {
			r.Details = append(r.Details, name(i)+" "+bad)
		}
		return nil
	})
	return r, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// name spreads files over few directories' worth of names in one directory.
func name(i uint64) string { return fmt.Sprintf("w%010d", i) }

// content is file i's bytes.
func content(i uint64, n int) io.Reader {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], i)
	return io.LimitReader(rand.NewChaCha8(seed), int64(n))
}

// mixed is mostly small files, some of up to 1 MiB.
func mixed(i uint64) int {
	r := rand.New(rand.NewPCG(i, 1))
	if r.IntN(4) == 0 {
		return 4096 + r.IntN(1<<20)
	}
	return 512 + r.IntN(32<<10)
}

func eachAcked(journal string, fn func(i uint64, n int, sum uint32) error) error {
	type entry struct {
		i   uint64
		n   int
		sum uint32
	}
	var list []entry
	gone := map[uint64]bool{}
	if err := lines(journal, func(op byte, i uint64, n int, sum uint32) {
		if op == 'D' {
			gone[i] = true
		} else {
			list = append(list, entry{i, n, sum})
		}
	}); err != nil {
		return err
	}
	for _, e := range list {
		if !gone[e.i] {
			if err := fn(e.i, e.n, e.sum); err != nil {
				return err
			}
		}
	}
	return nil
}

// lines reads a journal. A last line without its end was never acknowledged.
func lines(journal string, fn func(op byte, i uint64, n int, sum uint32)) error {
	f, err := os.Open(journal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var op byte
		var i uint64
		var n int
		var sum uint32
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "%c %d %d %x", &op, &i, &n, &sum); err != nil {
			return fmt.Errorf("journal %s: %q: %w", journal, line, err)
		}
		fn(op, i, n, sum)
	}
}

// Contents gives the bytes of every acknowledged file, by name, for tests that
// read single files back themselves.
func Contents(journal string) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := eachAcked(journal, func(i uint64, n int, _ uint32) error {
		b, err := io.ReadAll(content(i, n))
		out[name(i)] = b
		return err
	})
	return out, err
}
