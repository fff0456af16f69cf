// Package thinmap reads which blocks a dm-thin device has mapped, from the
// pool's metadata (kernel Documentation/admin-guide/device-mapper/
// thin-provisioning.rst and persistent-data.rst describe it; drivers/md/
// dm-thin-metadata.c and persistent-data/dm-btree-internal.h are the format).
//
// It reads the metadata snapshot that the pool message reserve_metadata_snap
// holds still, checks every block's checksum, and refuses what it does not
// understand: a mapping that is missed would be data that is lost. It needs no
// tool on the node.
package thinmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// BlockBytes is the size of a metadata block.
const BlockBytes = 4096

// ErrDamaged says the metadata is not what dm-thin writes.
var ErrDamaged = errors.New("damaged pool metadata")

// ErrNoDevice says the pool has no thin device of that id.
var ErrNoDevice = errors.New("no such thin device")

const (
	superMagic = 27022010
	superXOR   = 160774
	btreeXOR   = 121107
	flagInner  = 1
	flagLeaf   = 2
	headerSize = 32
	maxDepth   = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Run is a run of mapped blocks of the thin device, in pool blocks.
type Run struct{ Start, Length uint64 }

// reader reads metadata blocks.
type reader struct {
	r   io.ReaderAt
	buf []byte
}

// Mapped calls fn for the runs of mapped blocks of thin device id, in order, as
// the metadata snapshot rooted at block held (PoolStatus.HeldRoot) has them.
// r is the metadata device, read without the page cache: buf is the buffer for
// that and must suit r (O_DIRECT: aligned), at least BlockBytes long.
func Mapped(r io.ReaderAt, buf []byte, held uint64, id uint32, fn func(Run) error) error {
	rd := &reader{r: r, buf: buf[:BlockBytes]}
	b, err := rd.block(held, superXOR)
	if err != nil {
		return fmt.Errorf("metadata snapshot: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint64(b[32:]) != superMagic {
		return fmt.Errorf("%w: metadata snapshot at block %d has no superblock", ErrDamaged, held)
	}
	root := le.Uint64(b[320:])

	// Upper tree: device id to the root of that device's own tree.
	tree, found := uint64(0), false
	if err := rd.walk(root, 0, func(key, value uint64) error {
		if key == uint64(id) {
			tree, found = value, true
		}
		return nil
	}); err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: %d", ErrNoDevice, id)
	}
	var run Run
	if err := rd.walk(tree, 0, func(key, _ uint64) error {
		switch {
		case run.Length > 0 && key < run.Start+run.Length:
			return fmt.Errorf("%w: block %d follows block %d", ErrDamaged, key, run.Start+run.Length-1)
		case run.Length > 0 && key == run.Start+run.Length:
			run.Length++
			return nil
		case run.Length > 0:
			if err := fn(run); err != nil {
				return err
			}
		}
		run = Run{key, 1}
		return nil
	}); err != nil {
		return err
	}
	if run.Length > 0 {
		return fn(run)
	}
	return nil
}

// walk visits a B-tree's leaves in key order.
func (rd *reader) walk(block uint64, depth int, fn func(key, value uint64) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: tree deeper than %d", ErrDamaged, maxDepth)
	}
	b, err := rd.block(block, btreeXOR)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	flags, n, limit, size := le.Uint32(b[4:]), le.Uint32(b[16:]), le.Uint32(b[20:]), le.Uint32(b[24:])
	if n > limit || size != 8 || headerSize+uint64(limit)*16 > BlockBytes || flags != flagInner && flags != flagLeaf {
		return fmt.Errorf("%w: block %d: flags %d, %d of %d entries of %d bytes", ErrDamaged, block, flags, n, limit, size)
	}
	entries := make([][2]uint64, n) // rd.buf is used again below
	for i := range entries {
		entries[i][0] = le.Uint64(b[headerSize+8*i:])
		entries[i][1] = le.Uint64(b[headerSize+8*int(limit)+8*i:])
	}
	for _, e := range entries {
		if flags == flagLeaf {
			err = fn(e[0], e[1])
		} else {
			err = rd.walk(e[1], depth+1, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (rd *reader) block(n uint64, xor uint32) ([]byte, error) {
	if n > 1<<40 {
		return nil, fmt.Errorf("%w: block number %d", ErrDamaged, n)
	}
	if _, err := rd.r.ReadAt(rd.buf, int64(n)*BlockBytes); err != nil {
		return nil, fmt.Errorf("read metadata block %d: %w", n, err)
	}
	le := binary.LittleEndian
	want := ^crc32.Checksum(rd.buf[4:], castagnoli) ^ xor // the kernel's crc32c has no final inversion
	if le.Uint32(rd.buf) != want {
		return nil, fmt.Errorf("%w: checksum of block %d", ErrDamaged, n)
	}
	if le.Uint64(rd.buf[8:]) != n && xor == btreeXOR {
		return nil, fmt.Errorf("%w: block %d says it is %d", ErrDamaged, n, le.Uint64(rd.buf[8:]))
	}
	return rd.buf, nil
}
