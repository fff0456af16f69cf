package disk_test

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/node"
)

// raw reads or writes a volume past the page cache, as nobody but a test does.
func raw(t *testing.T, vol string, off int64, n int, change func([]byte)) []byte {
	t.Helper()
	f, err := os.OpenFile(node.VolumePath(vol), os.O_RDWR|unix.O_DIRECT, 0)
	require.NoError(t, err)
	defer f.Close()
	buf := volume.AlignedBuffer(n)
	_, err = f.ReadAt(buf, off)
	require.NoError(t, err)
	if change != nil {
		change(buf)
		_, err = f.WriteAt(buf, off)
		require.NoError(t, err)
		require.NoError(t, f.Sync())
	}
	return buf
}

// TestNodeRefusals: what is not surely ours and whole is refused, with a next
// step, and nothing of it changes.
func TestNodeRefusals(t *testing.T) {
	b := newBench(t)
	m := b.create(contract.XFS, 8*gib, gib)
	ctx := t.Context()
	first := b.vols[0]
	prepare := func(vol string, gen uint64) error {
		_, err := b.PrepareMove(ctx, contract.PrepareMoveInput{Disk: b.disk, Move: "m-x", Generation: gen, Volumes: []string{vol}})
		return err
	}

	t.Run("foreign volume", func(t *testing.T) {
		vol := b.volume(gib)
		run(t, "mkfs.ext4", "-q", node.VolumePath(vol))
		before := raw(t, vol, 0, 1<<20, nil)
		refusal(t, prepare(vol, m.Generation+1), contract.VolumeForeign)
		_, err := b.Append(ctx, contract.AppendVolumeInput{Disk: b.disk, Volume: vol})
		refusal(t, err, contract.VolumeForeign)
		other := contract.DiskID("d-0000000000000ffff")
		_, err = b.Format(ctx, contract.FormatDiskInput{Disk: other, SizeBytes: gib, Volumes: []string{vol}, Filesystem: contract.XFS})
		refusal(t, err, contract.VolumeForeign)
		require.Equal(t, before, raw(t, vol, 0, 1<<20, nil))
		b.drop(vol)
	})
	t.Run("another disk's volume", func(t *testing.T) {
		_, err := b.Format(ctx, contract.FormatDiskInput{Disk: "d-0000000000000fffe", SizeBytes: gib, Volumes: []string{first}, Filesystem: contract.XFS})
		r := refusal(t, err, contract.VolumeForeign)
		require.Equal(t, first, r.Volume)
	})
	t.Run("too small", func(t *testing.T) {
		b.fill(80 * mib)
		vol := b.volume(64 * mib)
		refusal(t, prepare(vol, m.Generation+1), contract.BelowUsed)
		b.drop(vol)
	})
	t.Run("wrong generation", func(t *testing.T) {
		vol := b.volume(gib)
		_, ok := contract.AsRefusal(prepare(vol, m.Generation+2))
		require.True(t, ok)
		b.drop(vol)
	})
	t.Run("the wrong volume is attached", func(t *testing.T) {
		other := contract.DiskID("d-0000000000000bbbb")
		blank := b.volume(gib)
		_, err := b.Assemble(ctx, contract.AssembleDiskInput{Disk: other, Volumes: []string{blank}})
		require.Equal(t, blank, refusal(t, err, contract.VolumeUnformatted).Volume)
		run(t, "mkfs.ext4", "-q", node.VolumePath(blank))
		_, err = b.Assemble(ctx, contract.AssembleDiskInput{Disk: other, Volumes: []string{blank}})
		require.Equal(t, blank, refusal(t, err, contract.VolumeForeign).Volume)
		_, err = b.Assemble(ctx, contract.AssembleDiskInput{Disk: other, Volumes: []string{first}})
		require.Equal(t, first, refusal(t, err, contract.VolumeForeign).Volume)
	})
	t.Run("unknown disk", func(t *testing.T) {
		_, err := b.Measure(ctx, "d-0000000000000aaaa")
		refusal(t, err, contract.DiskUnknown)
	})
	t.Run("in use", func(t *testing.T) {
		f, err := os.Open(b.mount)
		require.NoError(t, err)
		refusal(t, b.Disassemble(ctx, b.disk), contract.DiskBusy)
		require.NoError(t, f.Close())
	})
	t.Run("other tools keep off", func(t *testing.T) {
		out := run(t, "blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", node.VolumePath(first))
		require.Contains(t, out, "PTTYPE=dos")
		require.NotContains(t, out, "\nTYPE=")
	})

	// From here the disk is down, and its headers are spoilt and mended.
	require.NoError(t, b.Disassemble(ctx, b.disk))
	assemble := func() error {
		_, err := b.Assemble(ctx, contract.AssembleDiskInput{Disk: b.disk})
		return err
	}
	slots := []int64{format.HeaderOffset0, format.HeaderOffset1}
	spoil := func(change func([]byte)) (mend func()) {
		var old [][]byte
		for _, at := range slots {
			raw(t, first, at, format.HeaderBytes, func(h []byte) {
				old = append(old, append([]byte(nil), h...))
				if h[0] != 0 {
					change(h)
				}
			})
		}
		return func() {
			for i, at := range slots {
				raw(t, first, at, format.HeaderBytes, func(h []byte) { copy(h, old[i]) })
			}
		}
	}
	t.Run("damaged header", func(t *testing.T) {
		mend := spoil(func(h []byte) { h[600] ^= 1 })
		refusal(t, assemble(), contract.VolumeDamaged)
		mend()
	})
	t.Run("newer format", func(t *testing.T) {
		mend := spoil(func(h []byte) {
			binary.LittleEndian.PutUint32(h[8:], format.Version+1)
			binary.LittleEndian.PutUint32(h[len(h)-4:], crc32.Checksum(h[:len(h)-4], crc32.MakeTable(crc32.Castagnoli)))
		})
		refusal(t, assemble(), contract.FormatNewer)
		mend()
	})
	t.Run("one torn copy is harmless", func(t *testing.T) {
		require.NoError(t, assemble())
		_, err := b.GrowBacking(ctx, contract.GrowBackingInput{Disk: b.disk, Volume: first, Bytes: gib}) // writes the header once more
		require.NoError(t, err)
		require.NoError(t, b.Disassemble(ctx, b.disk))
		var newest, seq int64
		for _, at := range slots {
			if s := int64(binary.LittleEndian.Uint64(raw(t, first, at, format.HeaderBytes, nil)[16:])); s > seq {
				newest, seq = at, s
			}
		}
		raw(t, first, newest, format.HeaderBytes, func(h []byte) { clear(h[512:]) })
		require.NoError(t, assemble())
		require.NoError(t, b.Disassemble(ctx, b.disk))
	})
	t.Run("damaged metadata", func(t *testing.T) {
		// The pool's superblock is the first block of its metadata.
		old := append([]byte(nil), raw(t, first, format.DataStart, 4096, nil)...)
		raw(t, first, format.DataStart, 4096, func(s []byte) { s[400] ^= 0xff })
		r := refusal(t, assemble(), contract.VolumeDamaged)
		require.Contains(t, r.Message, "thin_check")
		raw(t, first, format.DataStart, 4096, func(s []byte) { copy(s, old) })
		require.NoError(t, b.takenDown())
		require.NoError(t, assemble())
		require.NoError(t, b.Disassemble(ctx, b.disk))
	})
	t.Run("a copy from a snapshot", func(t *testing.T) {
		vol := b.volume(gib)
		run(t, "dd", "if="+node.VolumePath(first), "of="+node.VolumePath(vol), "bs=1M", "count=64", "conv=fsync", "status=none")
		r := refusal(t, assemble(), contract.DuplicateGeneration)
		require.Equal(t, vol, r.Volume, "the copy is named, not the original")
		require.NoError(t, b.host.Detach(first))
		refusal(t, assemble(), contract.VolumeClone)
		b.host.Attach(first, gib)
		require.NoError(t, b.host.Detach(vol))
		require.NoError(t, assemble())
		// Somebody attaches it to get a file back: the disk still grows.
		b.host.Attach(vol, gib)
		_, err := b.Measure(ctx, b.disk)
		require.NoError(t, err)
		_, err = b.GrowBacking(ctx, contract.GrowBackingInput{Disk: b.disk, Volume: first, Bytes: gib})
		require.NoError(t, err)
		b.drop(vol)
	})
	b.check(contract.XFS)
}

// takenDown removes what a refused assembly left.
func (b *bench) takenDown() error { return b.Disassemble(context.Background(), b.disk) }

// TestNodeGrow: a member enlarged, a member appended, the disk expanded, all
// online under a writer; then a disk of two volumes needs both, and a move folds
// them into one.
func TestNodeGrow(t *testing.T) {
	for _, fs := range []contract.Filesystem{contract.XFS, contract.Ext4} {
		t.Run(string(fs), func(t *testing.T) {
			b := newBench(t)
			ctx := t.Context()
			b.create(fs, 4*gib, 512*mib)
			stop := b.writer(time.Millisecond)
			b.host.Resize(b.vols[0], gib)
			for range 2 { // twice is once
				m, err := b.GrowBacking(ctx, contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: gib})
				require.NoError(t, err)
				require.Equal(t, gib, m.BackingBytes)
				require.Greater(t, m.PoolBytes, 980*mib)
			}
			second := b.volume(512 * mib)
			died := true
			b.step = func(s string) error {
				if s == "append-claimed" && died {
					died = false
					return errDead
				}
				return nil
			}
			_, err := b.Append(ctx, contract.AppendVolumeInput{Disk: b.disk, Volume: second})
			require.ErrorIs(t, err, errDead)
			for range 2 {
				m, err := b.Append(ctx, contract.AppendVolumeInput{Disk: b.disk, Volume: second})
				require.NoError(t, err)
				require.Equal(t, gib+512*mib, m.BackingBytes)
				require.Len(t, m.Members, 2)
			}
			for range 2 {
				m, err := b.Expand(ctx, contract.ExpandDiskInput{Disk: b.disk, SizeBytes: 6 * gib})
				require.NoError(t, err)
				require.Equal(t, 6*gib, m.SizeBytes)
				require.Greater(t, m.FilesystemBytes, 5*gib)
			}
			_, err = b.Expand(ctx, contract.ExpandDiskInput{Disk: b.disk, SizeBytes: 5 * gib})
			refusal(t, err, contract.BadInput)
			stop()
			b.fill(1100 * mib) // into the second volume
			b.check(fs)

			require.NoError(t, b.Disassemble(ctx, b.disk))
			require.NoError(t, b.host.Detach(second))
			_, err = b.Assemble(ctx, contract.AssembleDiskInput{Disk: b.disk})
			r := refusal(t, err, contract.DiskIncomplete)
			require.Equal(t, second, r.Volume, "the missing volume is named")
			b.host.Attach(second, 512*mib)
			_, err = b.Assemble(ctx, contract.AssembleDiskInput{Disk: b.disk})
			require.NoError(t, err)

			in := b.prepare("m-fold", 2*gib)
			b.finish(in, b.vols[2])
			m, err := b.Measure(ctx, b.disk)
			require.NoError(t, err)
			require.Len(t, m.Members, 1)
			b.drop(b.vols[0])
			b.drop(b.vols[0])
			b.check(fs)
		})
	}
}

// TestNodeCommitWithoutPeer: power fails between the commit's two headers and
// only the old volume comes back. Nobody can know whether it is the truth, so it
// is refused until the other one is there (I5).
func TestNodeCommitWithoutPeer(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 10*mib)
	for _, step := range []string{"committing", "committed"} {
		b.step = func(s string) error {
			if s == step {
				return errDead
			}
			return nil
		}
		_, err := b.CommitMove(t.Context(), in)
		require.ErrorIs(t, err, errDead)
		b.step = nil
		require.NoError(t, b.Disassemble(t.Context(), b.disk))
		require.NoError(t, b.host.Detach(b.vols[1]))
		b.restart()
		_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk})
		r := refusal(t, err, contract.DiskIncomplete)
		require.Equal(t, b.vols[1], r.Volume)
		b.host.Attach(b.vols[1], gib)
		m, err := b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk})
		require.NoError(t, err)
		if step == "committing" {
			require.EqualValues(t, 1, m.Generation)
		} else {
			require.EqualValues(t, 2, m.Generation)
		}
		_, err = b.Evacuate(t.Context(), in, silent)
		require.NoError(t, err)
	}
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodeHistory: a disk's past is on it, and moves with it.
func TestNodeHistory(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, gib)
	b.fill(20 * mib)
	_, err := b.Measure(t.Context(), b.disk)
	require.NoError(t, err)
	in := b.prepare("m-1", gib)
	b.finish(in, b.vols[1])
	b.drop(b.vols[0])
	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	b.restart()
	h, err := b.History(t.Context(), b.disk)
	require.NoError(t, err)
	require.NotEmpty(t, h)
	last := h[len(h)-1]
	require.Greater(t, last.UsedMax, uint64(20*mib))
	require.Equal(t, uint64(gib), last.BackingBytes)
}
