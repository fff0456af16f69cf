package disk_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/node"
)

// TestNodeLegsAreTheVolumes: a move runs over devices that are not the volumes that
// are found (one was detached in use, and came back as another device). What is on
// them and what the volumes' headers say need not belong together: the move is not
// resumed, and no table is changed.
func TestNodeLegsAreTheVolumes(t *testing.T) {
	b := newBench(t)
	in := b.copied(contract.XFS, 50*mib)
	other := b.volume(gib)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(node.VolumePath(other), &st))
	elsewhere := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for i, gen := range []string{"-g1", "-g2"} {
		name := "ebb-" + string(b.disk) + gen + "-data"
		_, right, err := b.dm.Table(name)
		require.NoError(t, err)
		set := func(table []dm.Target) {
			_, err := b.dm.Load(name, false, table...)
			require.NoError(t, err)
			_, err = b.dm.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true})
			require.NoError(t, err)
		}
		wrong := append([]dm.Target(nil), right...)
		_, offset, _ := strings.Cut(wrong[0].Params, " ")
		wrong[0].Params = elsewhere + " " + offset
		set(wrong)
		b.restart()
		_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk})
		r := refusal(t, err, contract.VolumeFailing)
		require.Equal(t, b.vols[i], r.Volume)
		require.Contains(t, r.Message, elsewhere)
		_, is, err := b.dm.Table(name)
		require.NoError(t, err)
		require.Equal(t, wrong, is, "it was changed")
		set(right)
	}
	b.nextAgent()
	b.commit(in)
	b.check(contract.XFS)
}

// returned is a locator that finds one volume as another device than before: the old
// one is in use yet, so it is there still, under its name.
type returned struct {
	volume.Locator
	id, now string
}

// Open implements volume.Locator.
func (r returned) Open(ctx context.Context, id string) (*volume.Device, error) {
	if id == r.id {
		id = r.now
	}
	return r.Locator.Open(ctx, id)
}

// List implements volume.Locator.
func (r returned) List(ctx context.Context) ([]volume.Candidate, error) {
	list, err := r.Locator.List(ctx)
	var out []volume.Candidate
	for _, c := range list {
		switch c.ID {
		case r.id:
			continue
		case r.now:
			c.ID = r.id
		}
		out = append(out, c)
	}
	return out, err
}

// comeBack forces a volume off, in use as it is, and attaches it again: the device
// that it was is dead, and it is another one. again undoes that when nothing uses
// either.
func (b *bench) comeBack(id string) (now string, again func()) {
	now = id + "0"
	_, table, err := b.dm.Table("ebsvol-" + id)
	require.NoError(b.t, err)
	_, err = b.dm.Create("ebsvol-"+now, node.UUIDPrefix+now)
	require.NoError(b.t, err)
	_, err = b.dm.Load("ebsvol-"+now, false, table...)
	require.NoError(b.t, err)
	_, err = b.dm.Resume("ebsvol-"+now, dm.ResumeFlags{})
	require.NoError(b.t, err)
	b.host.SetFault(id, node.Fault{Kind: node.FaultError})
	b.locator = returned{volume.Auto(b.dm), id, now}
	b.restart()
	return now, func() {
		require.NoError(b.t, b.dm.Remove("ebsvol-"+now))
		b.host.SetFault(id, node.Fault{})
		b.locator = nil
		b.restart()
	}
}

// tables are the tables of all devices of a disk.
func (b *bench) tables() map[string][]dm.Target {
	out := map[string][]dm.Target{}
	for _, name := range b.devices() {
		_, table, err := b.dm.Table(name)
		require.NoError(b.t, err)
		out[name] = table
	}
	return out
}

// TestNodeVolumeComesBackInUse: the volume of a mounted disk was detached, and is
// there again as another device; it may have been written elsewhere meanwhile.
// Nothing is put over it while the pool and the filesystem of before are in memory,
// whatever is asked for. Taken down and assembled the disk is what the volume says.
func TestNodeVolumeComesBackInUse(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, gib)
	b.fill(20 * mib)
	run(t, "sync", "-f", b.mount)
	id, other := b.vols[0], b.volume(gib)
	before := b.tables()
	now, again := b.comeBack(id)
	header := raw(t, now, 0, int(format.DataStart), nil)
	for what, do := range map[string]func() error{
		"assemble": func() error {
			_, err := b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk, Volumes: []string{id}, MountPath: b.mount})
			return err
		},
		"grow": func() error {
			_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: id, Bytes: gib})
			return err
		},
		"append": func() error {
			_, err := b.Append(t.Context(), contract.AppendVolumeInput{Disk: b.disk, Volume: other})
			return err
		},
		"expand": func() error {
			_, err := b.Expand(t.Context(), contract.ExpandDiskInput{Disk: b.disk, SizeBytes: 9 * gib})
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			b.restart()
			r := refusal(t, do(), contract.VolumeFailing)
			require.Equal(t, id, r.Volume)
			require.Contains(t, r.Message, "detached while it was in use")
			require.Equal(t, before, b.tables(), "a table was changed")
			require.Equal(t, header, raw(t, now, 0, int(format.DataStart), nil), "a header was changed")
		})
	}
	b.restart()
	up, err := b.Reconcile(t.Context())
	require.NoError(t, err)
	require.NotContains(t, up, b.disk)
	require.Equal(t, before, b.tables(), "a table was changed")

	require.NoError(t, b.takenDown())
	// What a crash has left of an assembly is in nobody's memory.
	half := "ebb-" + string(b.disk) + "-g1-meta"
	_, err = b.dm.Create(half, "EBB-"+strings.TrimPrefix(half, "ebb-"))
	require.NoError(t, err)
	_, err = b.dm.Load(half, false, before[half]...)
	require.NoError(t, err)
	_, err = b.dm.Resume(half, dm.ResumeFlags{Internal: true})
	require.NoError(t, err)
	_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk, MountPath: b.mount})
	require.NoError(t, err)
	require.NotEqual(t, before[half], b.tables()[half])
	b.check(contract.XFS)
	require.NoError(t, b.takenDown())
	again()
	b.nextAgent()
	b.check(contract.XFS)
}

// TestNodeMovedElsewhereInUse: the volume of a disk in use was detached, the disk was
// moved on another node, and its new volume comes here. It is not put under the
// filesystem that is in memory.
func TestNodeMovedElsewhereInUse(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 8*gib, gib)
	b.fill(20 * mib)
	old := b.vols[0]
	header := raw(t, old, 0, int(format.DataStart), nil)
	b.finish(b.prepare("m-1", gib), b.vols[1])
	require.NoError(t, b.takenDown())
	// This node has the old volume as it was before the move, in use.
	require.NoError(t, b.host.Detach(b.vols[1]))
	raw(t, old, 0, int(format.DataStart), func(h []byte) { copy(h, header) })
	b.nextAgent()
	require.EqualValues(t, 1, b.generation())
	before := b.tables()
	b.locator = returned{volume.Auto(b.dm), old, ""}
	b.restart()
	b.host.Attach(b.vols[1], gib)
	_, err := b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk})
	r := refusal(t, err, contract.VolumeFailing)
	require.Equal(t, b.vols[1], r.Volume)
	require.Contains(t, r.Message, "moved elsewhere")
	_, err = b.Expand(t.Context(), contract.ExpandDiskInput{Disk: b.disk, SizeBytes: 9 * gib})
	refusal(t, err, contract.VolumeFailing)
	require.Equal(t, before, b.tables(), "a table was changed")

	require.NoError(t, b.takenDown())
	b.nextAgent()
	require.EqualValues(t, 2, b.generation())
	b.locator = nil
	b.nextAgent()
	b.check(contract.XFS)
}
