package qemu_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// TestGuestMove: a disk moves to a volume that is plugged in while it is used, and the old volume is
// plugged out. What is no volume is not seen, and a name that another volume took deceives nobody.
func TestGuestMove(t *testing.T) {
	g := enter(t)
	require.Equal(t, []string{oldVolume, spareVolume}, g.ids(), "the scratch disk is not a volume")
	list, err := volume.NVMe().List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list, "QEMU's controllers are not Amazon's")

	g.create(64 * mib)
	stop := g.write()
	g.staleName()
	g.ask("plug " + newVolume)
	g.finish(g.prepare(0))
	stop()
	g.unplug(oldVolume)
	g.check()
}

// staleName lets another volume take the name of one that was there.
func (g *guest) staleName() {
	name := g.names()[spareVolume]
	held, err := g.locator.Open(g.t.Context(), spareVolume)
	require.NoError(g.t, err)
	require.NoError(g.t, held.Verify())
	g.unplug(spareVolume)
	require.ErrorIs(g.t, held.Verify(), volume.ErrNotAttached)
	_, err = held.WriteAt(volume.AlignedBuffer(volume.Alignment), 0)
	require.Error(g.t, err)
	require.NoError(g.t, held.Close())

	// The kernel gives the lowest free number.
	g.ask("plug " + laterVolume)
	require.Eventually(g.t, func() bool { return g.names()[laterVolume] != "" }, askTimeout, 50*time.Millisecond)
	require.Equal(g.t, name, g.names()[laterVolume])
	_, err = g.locator.Open(g.t.Context(), spareVolume)
	require.ErrorIs(g.t, err, volume.ErrNotAttached)

	// A move to the volume that is gone writes nothing to the one that has its name.
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Second)
	defer cancel()
	_, err = g.PrepareMove(ctx, contract.PrepareMoveInput{Disk: diskID, Move: "m-0", Generation: 2, Volumes: []string{spareVolume}})
	require.Error(g.t, err)
	later, err := g.locator.Open(g.t.Context(), laterVolume)
	require.NoError(g.t, err)
	defer later.Close()
	require.Equal(g.t, name, later.Path())
	p := volume.AlignedBuffer(int(4 * mib))
	_, err = later.ReadAt(p, 0)
	require.NoError(g.t, err)
	require.Equal(g.t, make([]byte, len(p)), p, "%s was written to", laterVolume)
}

const namesFile = scratchDir + "/names"

// TestGuestCut moves a disk under a writer until its power is cut, in the midst of the copy.
func TestGuestCut(t *testing.T) {
	g := enter(t)
	g.create(160 * mib)
	g.ask("plug " + newVolume)
	in := g.prepare(20)
	b, err := json.Marshal(g.names())
	require.NoError(t, err)
	f, err := os.Create(namesFile)
	require.NoError(t, err)
	_, err = f.Write(b)
	require.NoError(t, err)
	require.NoError(t, f.Sync())

	// The mirror begins slowly, whatever this machine can do.
	require.NoError(t, os.WriteFile("/sys/module/dm_mirror/parameters/raid1_resync_throttle", []byte("5"), 0o644))
	g.write()
	_, err = g.Evacuate(t.Context(), in, func(p contract.CopyProgress) {
		if p.DoneBytes > p.TotalBytes/5 && p.DoneBytes < p.TotalBytes {
			g.ask("cut")
		}
	})
	t.Fatalf("the copy was over before it had been seen half done: %v", err)
}

// TestGuestResume finishes that move after the power is back, with all names changed.
func TestGuestResume(t *testing.T) {
	g := enter(t)
	require.ElementsMatch(t, []string{oldVolume, newVolume}, g.ids())
	var before map[string]string
	b, err := os.ReadFile(namesFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &before))
	now := g.names()
	t.Logf("names before the power cut: %v, now: %v", before, now)
	require.NotEqual(t, before[newVolume], now[newVolume])

	up, err := g.Reconcile(t.Context())
	require.NoError(t, err)
	require.Equal(t, []contract.DiskID{diskID}, up)
	g.read()
	m, err := g.Measure(t.Context(), diskID)
	require.NoError(t, err)
	require.NotNil(t, m.Move, "the move did not survive")
	stop := g.write()
	ev := g.finish(contract.MoveInput{Disk: diskID, Move: "m-1"})
	stop()
	require.Positive(t, ev.ResumedFraction)
	require.Less(t, ev.ResumedFraction, 1.0)
	g.unplug(oldVolume)
	g.check()
}
