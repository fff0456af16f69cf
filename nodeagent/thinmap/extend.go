package thinmap

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	indexXOR  = 160478
	bitmapXOR = 240779
	// One bitmap block holds two bits for each block it counts.
	bitmapHeader    = 16
	entriesPerBlock = (BlockBytes - bitmapHeader) * 4
	indexHeader     = 16
	indexEntry      = 16
	maxIndex        = 255 // entries of a metadata index block
)

// ReadWriter is a metadata device.
type ReadWriter interface {
	io.ReaderAt
	io.WriterAt
}

// MakeExtendable lets a pool whose metadata thin_restore has written use all of
// the space that it is given later. The kernel counts a bitmap's free blocks as
// if the bitmap were always whole; thin_restore counts those that exist. When
// such a pool is extended the kernel believes the last bitmap to be full and
// queues writes (or fails the metadata) with free blocks in plenty, so both last
// counts are raised to what the kernel would have written. It is safe to repeat.
// The pool must not be running. buf is as in Mapped.
func MakeExtendable(dev ReadWriter, buf []byte) error {
	rd := &reader{r: dev, buf: buf[:BlockBytes]}
	b, err := rd.block(0, superXOR)
	if err != nil {
		return fmt.Errorf("superblock: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint64(b[32:]) != superMagic {
		return fmt.Errorf("%w: no superblock", ErrDamaged)
	}
	type root struct{ blocks, index uint64 }
	data := root{le.Uint64(b[64:]), le.Uint64(b[64+16:])}
	meta := root{le.Uint64(b[192:]), le.Uint64(b[192+16:])}
	if err := rd.extendable(dev, meta.blocks, meta.index, indexXOR, func(b []byte, last uint64) (int, error) {
		if last >= maxIndex {
			return 0, fmt.Errorf("%w: metadata space map has %d bitmaps", ErrDamaged, last+1)
		}
		return indexHeader + int(last)*indexEntry, nil
	}); err != nil {
		return fmt.Errorf("metadata space map: %w", err)
	}
	leaf := data.index
	for depth := 0; ; depth++ {
		b, err := rd.block(leaf, btreeXOR)
		if err != nil {
			return fmt.Errorf("data space map: %w", err)
		}
		flags, n, limit := le.Uint32(b[4:]), le.Uint32(b[16:]), le.Uint32(b[20:])
		if n == 0 || n > limit || headerSize+uint64(limit)*16 > BlockBytes || depth > maxDepth {
			return fmt.Errorf("%w: data space map: block %d has %d of %d entries", ErrDamaged, leaf, n, limit)
		}
		if flags == flagLeaf {
			break
		}
		leaf = le.Uint64(b[headerSize+8*int(limit)+8*int(n-1):])
	}
	if err := rd.extendable(dev, data.blocks, leaf, btreeXOR, func(b []byte, last uint64) (int, error) {
		n, limit, size := le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])
		if size != indexEntry || headerSize+uint64(limit)*(8+indexEntry) > BlockBytes || le.Uint64(b[headerSize+8*int(n-1):]) != last {
			return 0, fmt.Errorf("%w: block %d does not end with bitmap %d", ErrDamaged, leaf, last)
		}
		return headerSize + 8*int(limit) + indexEntry*int(n-1), nil
	}); err != nil {
		return fmt.Errorf("data space map: %w", err)
	}
	return nil
}

// extendable corrects the entry of a space map's last bitmap, which entry finds
// in block at.
func (rd *reader) extendable(dev io.WriterAt, blocks, at uint64, xor uint32, entry func(b []byte, last uint64) (int, error)) error {
	part := blocks % entriesPerBlock
	if blocks == 0 || part == 0 {
		return nil
	}
	b, err := rd.block(at, xor)
	if err != nil {
		return err
	}
	off, err := entry(b, blocks/entriesPerBlock)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	bitmap, count, firstFree := le.Uint64(b[off:]), le.Uint32(b[off+8:]), le.Uint32(b[off+12:])
	if b, err = rd.block(bitmap, bitmapXOR); err != nil {
		return err
	}
	var free uint32
	for i := range part {
		if b[bitmapHeader+i/4]>>(i%4*2)&3 == 0 {
			free++
		}
	}
	whole := free + uint32(entriesPerBlock-part)
	if count == whole && uint64(firstFree) <= part {
		return nil
	}
	if d := int64(count) - int64(free); count != whole && (d < -1 || d > 1) { // thin_restore 0.9 is one off in the metadata's own map
		return fmt.Errorf("%w: bitmap %d has %d free blocks, its index says %d", ErrDamaged, bitmap, free, count)
	}
	if b, err = rd.block(at, xor); err != nil {
		return err
	}
	le.PutUint32(b[off+8:], whole)
	le.PutUint32(b[off+12:], min(firstFree, uint32(part))) // some versions say "beyond the bitmap" of one that is full
	le.PutUint32(b, ^crc32.Checksum(b[4:], castagnoli)^xor)
	if _, err := dev.WriteAt(b, int64(at)*BlockBytes); err != nil {
		return fmt.Errorf("write metadata block %d: %w", at, err)
	}
	return nil
}
