package qemu_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	qemuProgram = "qemu-system-x86_64"
	mib         = int64(1) << 20
	gib         = int64(1) << 30
)

// The volumes of the tests; the serial number of each is its id without the dash, as EC2 has it.
const (
	oldVolume   = "vol-0123456789abcdef0" // the disk's first
	newVolume   = "vol-0fedcba9876543210" // where it moves to
	spareVolume = "vol-0aaaaaaaaaaaaaaaa"
	laterVolume = "vol-0bbbbbbbbbbbbbbbb" // takes the name that the spare one leaves
)

// scratch is an NVMe disk that is nobody's volume, as an instance store is. The guest keeps there what is
// to outlive its power; nothing of Ebb's may touch it.
const scratch = "scratch"

// TestNVMe moves a disk between emulated NVMe volumes.
func TestNVMe(t *testing.T) {
	if os.Getenv(controlEnv) != "" {
		t.Skip("runs on the host")
	}
	if os.Getenv("EBB_TEST_FULL") == "" {
		t.Skip("part of the heavy matrix: set EBB_TEST_FULL=1")
	}
	for _, name := range append([]string{qemuProgram, "cpio", "ldd", "mkfs.ext4", "e2fsck"}, tools...) {
		if _, err := look(name); err != nil {
			t.Skipf("needs %s: make test-full installs it", name)
		}
	}
	k := newestKernel(t)
	archive := buildArchive(t, k)

	t.Run("move", func(t *testing.T) {
		disks := makeDrives(t)
		m := boot(t, k, archive, "TestGuestMove", disks, scratch, oldVolume, spareVolume)
		require.NoError(t, m.serve(t.Context()))
		untouched(t, disks)
	})
	t.Run("power cut", func(t *testing.T) {
		disks := makeDrives(t)
		m := boot(t, k, archive, "TestGuestCut", disks, scratch, oldVolume, spareVolume)
		require.ErrorIs(t, m.serve(t.Context()), errCut)
		onHost(t, "e2fsck", "-p", disks[0].file) // its journal
		// The guest had four of them, and the new volume, plugged last, was the fourth. Now there are three,
		// so it has another name for certain; in this order the old one has, too.
		m = boot(t, k, archive, "TestGuestResume", disks, newVolume, scratch, oldVolume)
		require.NoError(t, m.serve(t.Context()))
		untouched(t, disks)
	})
}

// makeDrives makes the images of all disks, sparse ones.
func makeDrives(t *testing.T) (all []drive) {
	dir := t.TempDir()
	for _, d := range []struct {
		id    string
		bytes int64
	}{
		{scratch, 64 * mib}, {oldVolume, gib}, {newVolume, gib}, {spareVolume, 64 * mib}, {laterVolume, 64 * mib},
	} {
		file := filepath.Join(dir, d.id+".img")
		require.NoError(t, os.WriteFile(file, nil, 0o644))
		require.NoError(t, os.Truncate(file, d.bytes))
		all = append(all, drive{id: d.id, serial: serialOf(d.id), file: file})
	}
	onHost(t, "mkfs.ext4", "-q", "-F", all[0].file)
	return all
}

// untouched checks the filesystem on the disk that is not a volume.
func untouched(t *testing.T, all []drive) {
	onHost(t, "e2fsck", "-fn", all[0].file)
}

func onHost(t *testing.T, name string, args ...string) {
	path, err := look(name)
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
}

// built tells when a file was made.
func built(t *testing.T, path string) time.Time {
	st, err := os.Stat(path)
	require.NoError(t, err)
	return st.ModTime()
}
