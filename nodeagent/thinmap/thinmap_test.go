package thinmap

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
)

// seal writes the checksum (and, for tree nodes, the block number).
func seal(b []byte, n uint64, xor uint32) {
	binary.LittleEndian.PutUint64(b[8:], n)
	binary.LittleEndian.PutUint32(b, ^crc32.Checksum(b[4:BlockBytes], castagnoli)^xor)
}

func node(img []byte, n uint64, flags uint32, kv ...uint64) {
	b := img[n*BlockBytes : (n+1)*BlockBytes]
	le := binary.LittleEndian
	le.PutUint32(b[4:], flags)
	le.PutUint32(b[16:], uint32(len(kv)/2))
	le.PutUint32(b[20:], 252)
	le.PutUint32(b[24:], 8)
	for i := 0; i < len(kv)/2; i++ {
		le.PutUint64(b[headerSize+8*i:], kv[2*i])
		le.PutUint64(b[headerSize+8*252+8*i:], kv[2*i+1])
	}
	seal(b, n, btreeXOR)
}

func image() []byte {
	img := make([]byte, 8*BlockBytes)
	sb := img[BlockBytes : 2*BlockBytes]
	binary.LittleEndian.PutUint64(sb[32:], superMagic)
	binary.LittleEndian.PutUint64(sb[320:], 2)
	seal(sb, 1, superXOR)
	node(img, 2, flagLeaf, 0, 3, 5, 6) // devices 0 and 5
	node(img, 3, flagInner, 0, 4, 10, 5)
	node(img, 4, flagLeaf, 0, 99<<24, 1, 98<<24, 2, 97<<24, 7, 1<<24)
	node(img, 5, flagLeaf, 8, 50<<24, 10, 51<<24)
	node(img, 6, flagLeaf)
	return img
}

func runs(t *testing.T, img []byte, id uint32) ([]Run, error) {
	t.Helper()
	var out []Run
	err := Mapped(bytes.NewReader(img), make([]byte, BlockBytes), 1, id, func(r Run) error {
		out = append(out, r)
		return nil
	})
	return out, err
}

func TestMapped(t *testing.T) {
	got, err := runs(t, image(), 0)
	require.NoError(t, err)
	require.Equal(t, []Run{{0, 3}, {7, 2}, {10, 1}}, got)
	got, err = runs(t, image(), 5)
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = runs(t, image(), 9)
	require.ErrorIs(t, err, ErrNoDevice)
}

func TestDamageIsNeverMissed(t *testing.T) {
	for n := 1; n <= 5; n++ {
		img := image()
		img[n*BlockBytes+40] ^= 1
		_, err := runs(t, img, 0)
		require.ErrorIs(t, err, ErrDamaged, "block %d", n)
	}
	img := image()
	node(img, 5, flagLeaf, 8, 1<<24, 8, 1<<24) // not ascending
	_, err := runs(t, img, 0)
	require.ErrorIs(t, err, ErrDamaged)
	img = image()
	node(img, 3, flagInner, 0, 3) // a loop
	_, err = runs(t, img, 0)
	require.ErrorIs(t, err, ErrDamaged)
}

func FuzzMapped(f *testing.F) {
	f.Add(image(), uint64(1))
	f.Fuzz(func(t *testing.T, img []byte, at uint64) {
		for n := uint64(0); (n+1)*BlockBytes <= uint64(len(img)); n++ {
			xor := uint32(btreeXOR)
			if n == at {
				xor = superXOR
			}
			seal(img[n*BlockBytes:(n+1)*BlockBytes], n, xor)
		}
		total := 0
		_ = Mapped(bytes.NewReader(img), make([]byte, BlockBytes), at, 0, func(Run) error { total++; return nil })
	})
}
