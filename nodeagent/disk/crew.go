package disk

import (
	"bytes"
	"context"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"github.com/ebb-storage/ebb/nodeagent/volume"
)

const (
	// crewSize is how many chunks are under way at a time, sideDepth how many of
	// them on one device: a volume far away wants more than one request.
	crewSize  = 4
	sideDepth = 2
)

// side is one of a pre-copy's two devices.
type side struct {
	file  *os.File
	turns *semaphore.Weighted
}

func newSide(f *os.File) side { return side{f, semaphore.NewWeighted(sideDepth)} }

// do has a device do one request: beside others, or alone.
func (s side) do(ctx context.Context, alone bool, request func(f *os.File) error) error {
	share := int64(1)
	if alone {
		share = sideDepth
	}
	if err := s.turns.Acquire(ctx, share); err != nil {
		return err
	}
	defer s.turns.Release(share)
	return request(s.file)
}

// buffers are a crew's, two for each chunk.
type buffers chan [2][]byte

func newBuffers() buffers {
	b := make(buffers, crewSize)
	for range crewSize {
		b <- [2][]byte{volume.AlignedBuffer(largeChunk), volume.AlignedBuffer(largeChunk)}
	}
	return b
}

// bout is the work on one area in one pass. It ends when all its chunks are done.
type bout struct {
	x       *area
	compare bool
	mu      sync.Mutex
	open    int
	differs bool
}

func (b *bout) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open++
}

// end takes the bout's end, when it is that, for what has become of the area.
func (b *bout) end(same bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.differs = b.differs || !same
	if b.open--; b.open > 0 {
		return
	}
	b.x.state = areaCopied
	if b.compare && !b.differs {
		b.x.state = areaProven
	}
}

// chunk is a piece of an area.
type chunk struct {
	off      int64
	n        int
	alone    bool // the application uses the disk
	bout     *bout
	resuming bool
}

// bring copies a chunk, or compares it first and copies it where it differs.
func (p *precopy) bring(ctx context.Context, c chunk) error {
	buf, same, err := p.fetch(ctx, c)
	if err != nil {
		return err
	}
	return p.put(ctx, c, buf, same)
}

// fetch reads a chunk from the old side, and compares it with the new one. The buffers
// are put's, but for an error.
func (p *precopy) fetch(ctx context.Context, c chunk) (buf [2][]byte, same bool, err error) {
	buf = <-p.free
	defer func() {
		if err != nil {
			p.free <- buf
		}
	}()
	a, b := buf[0][:c.n], buf[1][:c.n]
	if !c.bout.compare {
		if err := p.read(ctx, p.old, a, c); err != nil {
			return buf, false, oldError{c.off, c.n, err}
		}
		return buf, false, nil
	}
	theirs := make(chan error, 1)
	go func() { theirs <- p.read(ctx, p.new, b, c) }() // is waited for
	err = p.read(ctx, p.old, a, c)
	if e := <-theirs; e != nil {
		return buf, false, newError{e}
	}
	if err != nil {
		return buf, false, oldError{c.off, c.n, err}
	}
	return buf, bytes.Equal(a, b), nil
}

// put writes what fetch has read, where it is not there already.
func (p *precopy) put(ctx context.Context, c chunk, buf [2][]byte, same bool) error {
	defer func() { p.free <- buf }()
	switch {
	case same && c.resuming:
		atomic.AddUint64(&p.identical, uint64(c.n))
	case !same:
		err := p.new.do(ctx, c.alone, func(f *os.File) error {
			_, err := f.WriteAt(buf[0][:c.n], c.off)
			return err
		})
		if err != nil {
			return newError{err}
		}
		atomic.AddUint64(&p.written, uint64(c.n))
	}
	c.bout.end(same)
	return nil
}

func (p *precopy) read(ctx context.Context, s side, b []byte, c chunk) error {
	return s.do(ctx, c.alone, func(f *os.File) error {
		_, err := f.ReadAt(b, c.off)
		return err
	})
}
