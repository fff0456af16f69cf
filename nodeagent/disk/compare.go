package disk

import (
	"bytes"
	"context"
	"os"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

const (
	// settle is how long a difference may last: a write that reached one leg and is
	// on its way to the other.
	settle = 10 * time.Second
	// pieceBytes is what must be equal in one pair of reads, where a chunk was not.
	pieceBytes = 4 << 10
	// rereadBytes is how much of neighbouring pieces is read again at once.
	rereadBytes = 64 << 10
)

// legs are the two sides of a move that is verified.
type legs struct {
	in       contract.MoveInput
	v        *view
	old, new *os.File
}

// compare reads a chunk from both legs, and what differed again until it has been
// equal once. again is how much differed at first.
//
// Once is enough, for each byte on its own: with all regions in sync every write
// goes to both legs, so bytes that were equal stay so, but for the moment of a
// write. What the legs differ in for good is never equal. And so a piece that is
// written without end needs one quiet moment of its own, not of the whole chunk.
func (m *Manager) compare(ctx context.Context, l legs, a, b []byte, off int64) (again int, err error) {
	deadline := time.Now().Add(settle)
	if err := l.readOld(a, off); err != nil {
		return 0, err
	}
	if err := l.readNew(b, off); err != nil {
		return 0, err
	}
	open := differing(a, b)
	for _, p := range open {
		again += p.n
	}
	for round := 1; len(open) > 0; round++ {
		if open, err = l.reread(ctx, a, b, off, open); err != nil || len(open) == 0 {
			return again, err
		}
		if round == 1 {
			// A discard that passed a copy under way leaves old bytes in the new leg
			// where the old one has nothing any more: no file owns them. With all in
			// sync no discard passes anything, so one look is enough.
			if open, err = m.stillMapped(ctx, l, a, b, off, open); err != nil || len(open) == 0 {
				return again, err
			}
		}
		if time.Now().After(deadline) {
			return again, contract.Refuse(contract.MoveFailed, "the copy differs from the original at byte %d", l.firstByte(a, b, off, open)).
				WithDisk(l.in.Disk).WithVolume(l.v.incoming.vols[0]).WithNext("cancel the move (the original is untouched) and report this")
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return again, nil
}

// piece is a part of a chunk, at most pieceBytes of it.
type piece struct{ at, n int }

// differing lists the pieces in which two buffers differ.
func differing(a, b []byte) (out []piece) {
	for at := 0; at < len(a); at += pieceBytes {
		if p := (piece{at, min(pieceBytes, len(a)-at)}); !p.same(a, b) {
			out = append(out, p)
		}
	}
	return out
}

func (p piece) same(a, b []byte) bool { return bytes.Equal(a[p.at:p.at+p.n], b[p.at:p.at+p.n]) }

// reread reads pieces again from both legs at the same time, neighbours in one
// request, and gives those that differ still. a and b then hold what was read.
func (l legs) reread(ctx context.Context, a, b []byte, off int64, open []piece) (still []piece, err error) {
	for len(open) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		from, to, k := open[0].at, open[0].at+open[0].n, 1
		for k < len(open) && open[k].at == to && to-from+open[k].n <= rereadBytes {
			to += open[k].n
			k++
		}
		theirs := make(chan error, 1)
		go func() { theirs <- l.readNew(b[from:to], off+int64(from)) }() // is waited for
		err := l.readOld(a[from:to], off+int64(from))
		if e := <-theirs; err == nil {
			err = e
		}
		if err != nil {
			return nil, err
		}
		for _, p := range open[:k] {
			if !p.same(a, b) {
				still = append(still, p)
			}
		}
		open = open[k:]
	}
	return still, nil
}

// stillMapped gives those of the pieces that differ in blocks which the old backing
// still holds.
func (m *Manager) stillMapped(ctx context.Context, l legs, a, b []byte, off int64, open []piece) (still []piece, err error) {
	mapped := make([]bool, len(open))
	err = m.mappedLocked(ctx, l.in.Disk, l.v.active, func(start, length uint64) error {
		for i, p := range open {
			at := uint64(off) + uint64(p.at)
			lo, hi := max(start, at), min(start+length, at+uint64(p.n))
			if lo < hi && !bytes.Equal(a[lo-uint64(off):hi-uint64(off)], b[lo-uint64(off):hi-uint64(off)]) {
				mapped[i] = true
			}
		}
		return nil
	})
	for i, p := range open {
		if mapped[i] {
			still = append(still, p)
		}
	}
	return still, err
}

// firstByte is where the first of the pieces differs.
func (l legs) firstByte(a, b []byte, off int64, open []piece) int64 {
	at := open[0].at
	for a[at] == b[at] {
		at++
	}
	return off + int64(at)
}

func (l legs) readOld(b []byte, off int64) error {
	if _, err := l.old.ReadAt(b, off); err != nil {
		return cannotRead(l.in.Disk, l.v.active.vols[0], oldError{off, len(b), err})
	}
	return nil
}

func (l legs) readNew(b []byte, off int64) error {
	if _, err := l.new.ReadAt(b, off); err != nil {
		return contract.Refuse(contract.MoveFailed, "cannot read %d bytes at %d back: %v", len(b), off, err).WithDisk(l.in.Disk).WithVolume(l.v.incoming.vols[0]).
			WithNext("cancel the move and try again with another volume")
	}
	return nil
}
