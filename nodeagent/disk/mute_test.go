package disk_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// hang makes a volume neither answer nor fail, until the end of the test or again.
func (b *bench) hang(id string) (again func()) {
	all, err := volume.Auto(b.dm).List(b.t.Context())
	require.NoError(b.t, err)
	i := slices.IndexFunc(all, func(c volume.Candidate) bool { return c.ID == id })
	require.GreaterOrEqual(b.t, i, 0)
	of := func(what string, more ...string) {
		run(b.t, "dmsetup", append([]string{what, "--noudevsync", "-j", fmt.Sprint(all[i].Dev.Major), "-m", fmt.Sprint(all[i].Dev.Minor)}, more...)...)
	}
	of("suspend", "--noflush", "--nolockfs")
	hangs := true
	again = func() {
		if hangs {
			of("resume")
		}
		hangs = false
	}
	b.t.Cleanup(again)
	return again
}

// TestNodeMuteVolume: a volume that neither answers nor fails stops no other disk, and
// no agent from starting. What depends on it is tried again, and its disk comes up when
// it answers.
func TestNodeMuteVolume(t *testing.T) {
	a, b := newBench(t), newBench(t)
	a.create(contract.XFS, 2*gib, 512*mib)
	_, err := a.Append(t.Context(), contract.AppendVolumeInput{Disk: a.disk, Volume: a.volume(512 * mib)})
	require.NoError(t, err)
	b.create(contract.XFS, 2*gib, 512*mib)
	a.fill(20 * mib)
	size := 512 * mib
	grow := func(limit time.Duration) {
		size += 64 * mib
		b.host.Resize(b.vols[0], size)
		within(t, limit, "a growth", func() {
			_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: b.disk, Volume: b.vols[0], Bytes: size})
			require.NoError(t, err)
		})
	}
	grow(time.Second) // now it knows whose volumes there are
	again := a.hang(a.vols[0])
	grow(disk.HeaderPatience + 2*time.Second)
	grow(time.Second) // it is known not to answer
	within(t, 2*time.Second, "a look at the disk itself", func() {
		_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: a.disk, Volume: a.vols[0], Bytes: 512 * mib})
		require.ErrorContains(t, err, "does not answer")
		require.ErrorContains(t, err, string(a.disk))
		_, refused := contract.AsRefusal(err)
		require.False(t, refused, "it may answer yet: %v", err)
	})
	again()
	require.Eventually(t, func() bool {
		_, err := b.GrowBacking(t.Context(), contract.GrowBackingInput{Disk: a.disk, Volume: a.vols[0], Bytes: 512 * mib})
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)

	require.NoError(t, a.Disassemble(t.Context(), a.disk))
	again = a.hang(a.vols[0])
	b.restart()
	within(t, disk.HeaderPatience+5*time.Second, "the agent's start", func() {
		up, err := b.Reconcile(t.Context())
		require.NoError(t, err)
		require.Equal(t, []contract.DiskID{b.disk}, up)
	})
	grow(2 * time.Second)
	_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: a.disk, MountPath: a.mount})
	require.ErrorContains(t, err, "does not answer")
	again()
	require.Eventually(t, func() bool {
		m, err := b.Measure(t.Context(), a.disk)
		return err == nil && m.MountPath == a.mount
	}, 30*time.Second, 10*time.Millisecond)
	a.restart()
	_, err = a.Assemble(t.Context(), contract.AssembleDiskInput{Disk: a.disk, MountPath: a.mount})
	require.NoError(t, err)
	a.check(contract.XFS)
	b.check(contract.XFS)
}

// TestNodeMuteVolumeOfADeadAgent: what a dead agent left of a disk is brought into order
// before any operation touches it, also when that has to wait for a volume.
func TestNodeMuteVolumeOfADeadAgent(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(20 * mib)
	in := b.prepare("m-1", 512*mib)
	b.die("proven", func() error {
		_, err := b.Evacuate(t.Context(), in, silent)
		return err
	})
	require.NotEmpty(t, b.counts())
	again := b.hang(b.vols[0])
	b.restart()
	up, err := b.Reconcile(t.Context())
	require.NoError(t, err)
	require.NotContains(t, up, b.disk)
	within(t, 2*time.Second, "a move", func() {
		_, err = b.Evacuate(t.Context(), in, silent)
		require.ErrorContains(t, err, "not in order yet")
		_, refused := contract.AsRefusal(err)
		require.False(t, refused, "%v", err)
	})
	again()
	require.Eventually(t, func() bool {
		_, err := b.Evacuate(t.Context(), in, silent)
		if err != nil {
			require.ErrorContains(t, err, "does not answer")
		}
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	b.commit(in)
	b.check(contract.XFS)
}

// TestNodeReconcileComesTooLate: what an operation has brought up or taken down is not
// brought into order after it.
func TestNodeReconcileComesTooLate(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 2*gib, 512*mib)
	b.fill(20 * mib)
	in := b.prepare("m-1", 512*mib)
	late := func() { require.NoError(t, b.ReconcileLate(t.Context(), b.disk)) }
	before := b.devices()
	late()
	require.Equal(t, before, b.devices(), "a backing that a move has prepared is no remains")
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	before = b.devices()
	late()
	require.Equal(t, before, b.devices())
	b.commit(in)
	require.NoError(t, b.Disassemble(t.Context(), b.disk))
	late()
	require.Empty(t, b.devices(), "it is on its way to another node")
	_, err = b.Assemble(t.Context(), contract.AssembleDiskInput{Disk: b.disk, MountPath: b.mount})
	require.NoError(t, err)
	b.check(contract.XFS)
}

// TestNodeBothPoolsPress: during a move both pools run low at the same time, and both
// are reported.
func TestNodeBothPoolsPress(t *testing.T) {
	b := newBench(t)
	b.create(contract.XFS, 4*gib, 512*mib)
	b.fill(200 * mib)
	in := b.prepare("m-1", 512*mib)
	_, err := b.Evacuate(t.Context(), in, silent)
	require.NoError(t, err)
	b.fill(90 * mib)
	events, stop := b.watch()
	defer stop()
	require.Eventually(t, func() bool {
		of := map[uint64]bool{}
		for _, e := range events() {
			of[e.Pressure.Generation] = of[e.Pressure.Generation] || e.Kind == disk.EventPressure
		}
		return of[1] && of[2]
	}, 30*time.Second, 10*time.Millisecond)
	stop()
	b.commit(in)
	b.check(contract.XFS)
}
