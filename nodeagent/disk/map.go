package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/thinmap"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// usedRegions maps which regions a backing's pool holds data for, at the moment
// of the call: the pool commits and holds its metadata still while it is read.
func (m *Manager) usedRegions(b *backing, regionBytes, count uint64) (format.Bitmap, error) {
	used := format.NewBitmap(count)
	err := m.mapped(b, func(start, length uint64) error {
		for r := start / regionBytes; r <= (start+length-1)/regionBytes && r < count; r++ {
			used.Set(r)
		}
		return nil
	})
	return used, err
}

// mapped calls fn for the runs of bytes that a backing's thin device holds.
func (m *Manager) mapped(b *backing, fn func(start, length uint64) error) (err error) {
	pool := stackName(b.head) + partPool
	if _, err := m.DM.Message(pool, 0, "reserve_metadata_snap"); err != nil {
		// A dead agent's snapshot: it shows the past, so it is thrown away.
		if _, e := m.DM.Message(pool, 0, "release_metadata_snap"); e != nil {
			return errors.Join(err, e)
		}
		if _, err := m.DM.Message(pool, 0, "reserve_metadata_snap"); err != nil {
			return err
		}
	}
	defer func() {
		if _, e := m.DM.Message(pool, 0, "release_metadata_snap"); e != nil {
			err = errors.Join(err, e)
		}
	}()
	st, err := m.poolState(b)
	if err != nil {
		return err
	}
	if !st.HasHeldRoot {
		return fmt.Errorf("pool %s holds no metadata snapshot", pool)
	}
	meta, err := m.DM.Info(stackName(b.head) + partMeta)
	if err != nil {
		return err
	}
	f, err := openDevice(meta, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd) // it may have grown since the header was read
	if err != nil {
		return fmt.Errorf("size of %s: %w", f.Name(), err)
	}
	held := &chunked{r: f, size: size, chunks: map[int64][]byte{}}
	return thinmap.Mapped(held, volume.AlignedBuffer(thinmap.BlockBytes), st.HeldRoot, b.head.ThinID, func(r thinmap.Run) error {
		return fn(r.Start*b.head.BlockBytes, r.Length*b.head.BlockBytes)
	})
}

// chunked reads a device in large pieces and keeps the last few: the metadata
// snapshot lies still while it is read, block by block, and its blocks lie
// mostly beside each other. A whole disk of 1 TiB has 66,000 of them.
type chunked struct {
	r      io.ReaderAt
	size   int64
	chunks map[int64][]byte
	order  []int64 // oldest first
}

const (
	chunkBytes = 256 << 10
	chunksKept = 16
)

// ReadAt reads within one chunk.
func (c *chunked) ReadAt(p []byte, off int64) (int, error) {
	at := off / chunkBytes * chunkBytes
	b, ok := c.chunks[at]
	if !ok {
		if len(c.order) < chunksKept {
			b = volume.AlignedBuffer(chunkBytes)
		} else {
			b = c.chunks[c.order[0]]
			delete(c.chunks, c.order[0])
			c.order = c.order[1:]
		}
		n := min(chunkBytes, c.size-at)
		if n <= 0 {
			return 0, fmt.Errorf("read at %d of a device of %d bytes", off, c.size)
		}
		if _, err := c.r.ReadAt(b[:n], at); err != nil {
			return 0, err
		}
		b = b[:n]
		c.chunks[at] = b
		c.order = append(c.order, at)
	}
	n := copy(p, b[min(off-at, int64(len(b))):])
	if n < len(p) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}
