package volume_test

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/node"
	"github.com/ebb-storage/ebb/tests/node/nodetest"
)

const (
	mib  = 1 << 20
	volA = "vol-0123456789abcdef0"
	volB = "vol-49e2a5c8"
	volC = "vol-0fedcba9876543210"
)

// TestInNode runs the TestNode tests of this package inside a node.
func TestInNode(t *testing.T) {
	nodetest.Run(t, nodetest.Boot(t, node.Options{}), "^TestNode")
}

func client(t *testing.T) *dm.Client {
	c, err := dm.Open()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestNodeVolumes(t *testing.T) {
	host := nodetest.Host(t)
	c := client(t)
	for name, l := range map[string]volume.Locator{"UML": volume.UML(c), "UML by sysfs alone": volume.UML(nil), "Auto": volume.Auto(c)} {
		list, err := l.List(t.Context())
		require.NoError(t, err, name)
		require.Empty(t, list, name)
		host.Attach(volA, 64*mib)
		host.Attach(volB, 32*mib)

		list, err = l.List(t.Context())
		require.NoError(t, err, name)
		require.Len(t, list, 2, name)
		sizes := map[string]int64{}
		for _, v := range list {
			sizes[v.ID] = v.Bytes
			require.FileExists(t, v.Path)
		}
		require.Equal(t, map[string]int64{volA: 64 * mib, volB: 32 * mib}, sizes, name)

		_, err = l.Open(t.Context(), volC)
		require.ErrorIs(t, err, volume.ErrNotAttached, name)
		readWrite(t, host, l)
		require.NoError(t, host.Detach(volA), name)
		_, err = l.Open(t.Context(), volA)
		require.ErrorIs(t, err, volume.ErrNotAttached, name)
		require.NoError(t, host.Detach(volB), name)
		host.Delete(volA)
		host.Delete(volB)
	}
}

// readWrite exercises an open volA.
func readWrite(t *testing.T, host *nodetest.Cloud, l volume.Locator) {
	d, err := l.Open(t.Context(), volA)
	require.NoError(t, err)
	require.Equal(t, volA, d.ID())
	require.NoError(t, d.Verify())
	var st unix.Stat_t
	require.NoError(t, unix.Fstat(int(d.Fd()), &st))
	require.Equal(t, dm.Dev{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, d.Dev())
	require.ErrorIs(t, host.Detach(volA), node.ErrBusy, "while it is open, its number stays its own")
	require.NoError(t, d.Verify())

	p := volume.AlignedBuffer(8192)
	copy(p, bytes.Repeat([]byte("ebb!"), 2048))
	n, err := d.WriteAt(p, mib)
	require.NoError(t, err)
	require.Equal(t, 8192, n)
	require.NoError(t, d.Sync())
	got := volume.AlignedBuffer(8192)
	_, err = d.ReadAt(got, mib)
	require.NoError(t, err)
	require.Equal(t, p, got)
	for _, bad := range []struct {
		p   []byte
		off int64
	}{{p, 1}, {p[:100], 0}, {p[1:513], 0}, {p, -4096}} {
		_, err = d.WriteAt(bad.p, bad.off)
		require.ErrorIs(t, err, volume.ErrUnaligned)
		_, err = d.ReadAt(bad.p, bad.off)
		require.ErrorIs(t, err, volume.ErrUnaligned)
	}
	size, err := d.Bytes()
	require.NoError(t, err)
	require.EqualValues(t, 64*mib, size)
	n, err = d.ReadAt(got, size-4096)
	require.Equal(t, 4096, n)
	require.ErrorIs(t, err, io.EOF)
	_, err = d.WriteAt(p, size-4096)
	require.Error(t, err)

	host.Resize(volA, 96*mib)
	size, err = d.Bytes()
	require.NoError(t, err)
	require.EqualValues(t, 96*mib, size, "the open device grows")
	require.NoError(t, d.Close())
	require.Error(t, d.Verify())
	require.Error(t, d.Close())
}

// A volume leaves and another one gets its name and its number.
func TestNodeSwappedVolume(t *testing.T) {
	host := nodetest.Host(t)
	l := volume.UML(client(t))
	host.Attach(volA, 32*mib)
	list, err := l.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, host.Detach(volA))
	host.Attach(volB, 32*mib)
	now, err := l.List(t.Context())
	require.NoError(t, err)
	require.Len(t, now, 1)
	require.Equal(t, list[0].Path, now[0].Path, "the kernel gives the number again")
	require.Equal(t, list[0].Dev, now[0].Dev)

	_, err = l.Open(t.Context(), volA)
	require.ErrorIs(t, err, volume.ErrNotAttached)
	// Nor does a link with the old name deceive.
	link := "/dev/mapper/ebsvol-" + volA
	require.NoError(t, os.Symlink(now[0].Path, link))
	_, err = l.Open(t.Context(), volA)
	require.ErrorIs(t, err, volume.ErrNotAttached)
	require.NoError(t, os.Remove(link))

	d, err := l.Open(t.Context(), volB)
	require.NoError(t, err)
	require.Equal(t, now[0].Path, d.Path())
	require.NoError(t, d.Close())
	require.NoError(t, host.Detach(volB))
}

// Devices over a volume are no volumes, whatever they are called.
func TestNodeForeignDevices(t *testing.T) {
	host := nodetest.Host(t)
	c := client(t)
	host.Attach(volA, 32*mib)
	l := volume.Auto(c)
	list, err := l.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
	_, err = c.Create("ebsvol-"+volB, "EBB-disk")
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Remove("ebsvol-"+volB)) }()
	_, err = c.Load("ebsvol-"+volB, false, dm.Linear(0, 8, list[0].Dev, 0))
	require.NoError(t, err)
	_, err = c.Resume("ebsvol-"+volB, dm.ResumeFlags{Internal: true})
	require.NoError(t, err)
	again, err := l.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, list, again)
	_, err = l.Open(t.Context(), volB)
	require.ErrorIs(t, err, volume.ErrNotAttached)
}
