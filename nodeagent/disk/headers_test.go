package disk_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/tests/node"
)

// TestNodeHeaders: what is on a volume is told, whatever it is, and not changed.
func TestNodeHeaders(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, gib)
	header := func(id string) contract.VolumeHeader {
		h, err := b.Header(t.Context(), id)
		require.NoError(t, err)
		return h
	}
	require.Equal(t, contract.VolumeHeader{Volume: "vol-0000000000000ffff"}, header("vol-0000000000000ffff"), "not attached")
	require.Equal(t, contract.VolumeHeader{
		Volume: b.vols[0], Present: true, InUse: true, Disk: b.disk, Generation: 1, Role: contract.RoleActive,
	}, header(b.vols[0]))

	empty := b.volume(gib)
	require.Equal(t, contract.VolumeHeader{Volume: empty, Present: true, Blank: true}, header(empty))
	raw(t, empty, format.GuardOffset, 4096, func(p []byte) { copy(p, format.Guard(uint64(gib))) })
	require.True(t, header(empty).Blank, "a creation that failed early")
	raw(t, empty, 2<<20, 4096, func(p []byte) { p[9] = 1 })
	require.Equal(t, contract.VolumeHeader{Volume: empty, Present: true, Problem: "other data is on it"}, header(empty))

	other := b.volume(gib)
	run(t, "mkfs.ext4", "-q", node.VolumePath(other))
	before := raw(t, other, 0, 4<<20, nil)
	require.Equal(t, contract.VolumeHeader{Volume: other, Present: true, Problem: "other data is on it"}, header(other))
	at := t.TempDir()
	run(t, "mount", "-o", "ro", node.VolumePath(other), at)
	require.True(t, header(other).InUse, "mounted")
	run(t, "umount", at)
	require.False(t, header(other).InUse)
	require.Equal(t, before, raw(t, other, 0, 4<<20, nil))

	in := b.prepare("m-1", gib)
	incoming := b.vols[len(b.vols)-1]
	want := contract.VolumeHeader{Volume: incoming, Present: true, Disk: b.disk, Generation: 2, Role: contract.RoleIncoming, Move: in.Move}
	require.Equal(t, want, header(incoming))
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	want.InUse = true
	require.Equal(t, want, header(incoming))
	b.commit(in)
	got := header(b.vols[0])
	require.Equal(t, contract.RoleRetired, got.Role)
	require.False(t, got.InUse)
	require.Empty(t, got.Problem)
	require.Equal(t, contract.RoleActive, header(incoming).Role)

	for _, off := range []int64{format.HeaderOffset0, format.HeaderOffset1} {
		raw(t, b.vols[0], off, 4096, func(p []byte) { p[100] ^= 1 })
	}
	got = header(b.vols[0])
	require.True(t, got.Present)
	require.False(t, got.Blank)
	require.NotEmpty(t, got.Problem)
	require.Empty(t, got.Disk)
}
