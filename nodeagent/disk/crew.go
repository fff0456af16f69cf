package disk

import (
	"context"
	"os"
	"sync"

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
