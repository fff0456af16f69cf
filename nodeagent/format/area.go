package format

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Guard is the first sector of every Ebb volume: an MBR with one partition of
// type 0xDA (raw data) over the whole volume. It exists so that tools which
// format a device "without a filesystem" (the stock EBS CSI driver asks blkid)
// see a partition table and refuse.
func Guard(volumeBytes uint64) []byte {
	b := make([]byte, SectorBytes)
	sectors := min(volumeBytes/SectorBytes-1, 1<<32-1)
	p := b[446:]
	p[4] = 0xDA
	copy(p[1:4], []byte{0xFE, 0xFF, 0xFF})
	copy(p[5:8], []byte{0xFE, 0xFF, 0xFF})
	binary.LittleEndian.PutUint32(p[8:], 1)
	binary.LittleEndian.PutUint32(p[12:], uint32(sectors))
	b[510], b[511] = 0x55, 0xAA
	return b
}

// ErrNoSpace says a volume is too small, or a header has no place for another
// segment.
var ErrNoSpace = errors.New("no space")

const align = 1 << 20

// metaNeed is the pool metadata needed for data bytes: dm-thin's B-tree takes
// 16 bytes a mapped block, 48 at its worst fill, plus reference counts; 64 is
// taken, and 4 MiB for a small pool.
func metaNeed(dataBytes, blockBytes uint64) uint64 {
	need := 4<<20 + dataBytes/blockBytes*64
	return min((need+align-1)/align*align, 15<<30) // dm-thin uses at most 16 GiB
}

// Extend makes segments of the part of member i between what its segments use
// now and newBytes: first metadata (enough for twice the data, so that few
// growths need any), then data. It changes the header only when it succeeds.
// Extending to a size the member already has does nothing.
func (h *Header) Extend(i int, newBytes uint64) error {
	c := h.Clone()
	if i >= len(c.Members) || newBytes < c.Members[i].Bytes {
		return fmt.Errorf("member %d cannot go to %d bytes", i, newBytes)
	}
	c.Members[i].Bytes = newBytes
	start := uint64(DataStart)
	for _, s := range c.Segments {
		if s.Member == uint32(i) {
			start = max(start, s.Start+s.Length)
		}
	}
	end := newBytes / align * align
	if end <= start {
		if c.Bytes(Data) == 0 {
			return fmt.Errorf("%w: a volume of %d bytes leaves no room for data", ErrNoSpace, newBytes)
		}
		h.Members = c.Members
		return nil
	}
	if have := c.Bytes(Meta); have < metaNeed(c.Bytes(Data)+end-start, c.BlockBytes) {
		want := metaNeed(2*(c.Bytes(Data)+end-start), c.BlockBytes) - have
		if want >= (end-start)/2 { // a small step: what it needs itself
			want = metaNeed(c.Bytes(Data)+end-start, c.BlockBytes) - have
		}
		if want >= end-start {
			return fmt.Errorf("%w: %d bytes are too few for pool metadata", ErrNoSpace, end-start)
		}
		c.add(Segment{Meta, uint32(i), start, want})
		start += want
	}
	// The pool's data device is a whole number of blocks; a remainder is used
	// by the next growth, which continues this segment.
	c.add(Segment{Data, uint32(i), start, end - start})
	if len(c.Segments) > MaxSegments {
		return fmt.Errorf("%w: %d segments; a move folds them into few", ErrNoSpace, len(c.Segments))
	}
	h.Members, h.Segments = c.Members, c.Segments
	return nil
}

// add appends s, merged into the last segment of its kind when that ends where
// s begins.
func (h *Header) add(s Segment) {
	for i := len(h.Segments) - 1; i >= 0; i-- {
		l := &h.Segments[i]
		if l.Kind != s.Kind {
			continue
		}
		if l.Member == s.Member && l.Start+l.Length == s.Start {
			l.Length += s.Length
			return
		}
		break
	}
	h.Segments = append(h.Segments, s)
}

// RegionSizes lists the region sizes that a move of a disk may use, largest
// first: from 4 MiB to 512 KiB (smaller ones are slow and hurt the writer, see
// docs/design.md), but large enough for a bitmap of at most 64 KiB, since each
// log flush rewrites it whole.
func RegionSizes(diskBytes uint64) []uint64 {
	least := uint64(512 << 10)
	for diskBytes/least > 64<<10*8 {
		least *= 2
	}
	sizes := []uint64{max(4<<20, least)}
	for sizes[len(sizes)-1] > least {
		sizes = append(sizes, sizes[len(sizes)-1]/2)
	}
	return sizes
}

// LogHeader encodes a dm-mirror "disk" log (kernel drivers/md/dm-log.c): magic,
// version 2, number of regions, then from byte 1024 one bit a region, set =
// in sync. The result is a multiple of 4096 bytes.
func LogHeader(regions uint64, inSync Bitmap) []byte {
	n := (1024 + int(regions+7)/8 + 4095) / 4096 * 4096
	b := make([]byte, n)
	binary.LittleEndian.PutUint32(b, 0x4D695272)
	binary.LittleEndian.PutUint32(b[4:], 2)
	binary.LittleEndian.PutUint64(b[8:], regions)
	copy(b[1024:], inSync[:(regions+7)/8])
	return b
}

// ParseLog reads a log back. It refuses one for another number of regions.
func ParseLog(b []byte, regions uint64) (Bitmap, error) {
	if uint64(len(b)) < 1024+(regions+7)/8 {
		return nil, fmt.Errorf("%w: log of %d bytes for %d regions", ErrDamaged, len(b), regions)
	}
	le := binary.LittleEndian
	if le.Uint32(b) != 0x4D695272 || le.Uint32(b[4:]) != 2 || le.Uint64(b[8:]) != regions {
		return nil, fmt.Errorf("%w: not a dirty log of %d regions", ErrDamaged, regions)
	}
	out := NewBitmap(regions)
	copy(out, b[1024:1024+(regions+7)/8])
	return out, nil
}

// Bitmap has one bit a region, least significant bit first.
type Bitmap []byte

// NewBitmap has n zero bits.
func NewBitmap(n uint64) Bitmap { return make(Bitmap, (n+7)/8) }

// Get reads a bit.
func (b Bitmap) Get(i uint64) bool { return b[i/8]&(1<<(i%8)) != 0 }

// Set sets a bit.
func (b Bitmap) Set(i uint64) { b[i/8] |= 1 << (i % 8) }

// Clear clears a bit.
func (b Bitmap) Clear(i uint64) { b[i/8] &^= 1 << (i % 8) }

// Usage is one hour of a disk's life.
type Usage struct {
	Hour         int64 // Unix time / 3600
	UsedMin      uint64
	UsedMax      uint64 // bytes in the pool
	Written      uint64 // bytes
	PeakIOPS     uint32 // over a measuring interval
	PeakMiBs     uint32
	BackingBytes uint64
	FSUsedMax    uint64 // bytes, as the filesystem counts
}

const usageSize = 64

// HistorySlots is how many hours the ring holds: 170 days.
const HistorySlots = HistoryBytes / usageSize

// UsageOffset is where an hour's record lies, from the volume's start.
func UsageOffset(hour int64) int64 {
	return HistoryOffset + hour%HistorySlots*usageSize
}

// Encode gives a record's 64 bytes.
func (u Usage) Encode() []byte {
	b := make([]byte, usageSize)
	le := binary.LittleEndian
	le.PutUint64(b, uint64(u.Hour))
	le.PutUint64(b[8:], u.UsedMin)
	le.PutUint64(b[16:], u.UsedMax)
	le.PutUint64(b[24:], u.Written)
	le.PutUint32(b[32:], u.PeakIOPS)
	le.PutUint32(b[36:], u.PeakMiBs)
	le.PutUint64(b[40:], u.BackingBytes)
	le.PutUint64(b[48:], u.FSUsedMax)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

// ParseHistory reads a ring. Slots that are blank, torn or out of place are
// left out; the rest is in the ring's order, oldest first.
func ParseHistory(b []byte) []Usage {
	le := binary.LittleEndian
	var out []Usage
	first := 0
	for i := 0; (i+1)*usageSize <= len(b) && i < HistorySlots; i++ {
		r := b[i*usageSize : (i+1)*usageSize]
		u := Usage{
			Hour: int64(le.Uint64(r)), UsedMin: le.Uint64(r[8:]), UsedMax: le.Uint64(r[16:]), Written: le.Uint64(r[24:]),
			PeakIOPS: le.Uint32(r[32:]), PeakMiBs: le.Uint32(r[36:]), BackingBytes: le.Uint64(r[40:]), FSUsedMax: le.Uint64(r[48:]),
		}
		if u.Hour <= 0 || u.Hour%HistorySlots != int64(i) || crc32.Checksum(r[:60], castagnoli) != le.Uint32(r[60:]) {
			continue
		}
		if len(out) > 0 && u.Hour < out[len(out)-1].Hour {
			first = len(out)
		}
		out = append(out, u)
	}
	return append(append([]Usage(nil), out[first:]...), out[:first]...)
}
