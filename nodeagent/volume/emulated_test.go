package volume_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// emulatedEnv names the volumes that this machine has as QEMU's NVMe devices, separated by commas. Those
// whose id ends with "-" are to be unplugged from outside once the test has said "unplug" and the id.
const emulatedEnv = "EBB_NVME_VOLUMES"

// TestEmulatedNVMe proves identities on real NVMe controllers, in a virtual machine that was made for it.
func TestEmulatedNVMe(t *testing.T) {
	if os.Getenv(emulatedEnv) == "" {
		t.Skip("needs emulated NVMe devices: see " + emulatedEnv)
	}
	l := volume.Auto(nil)
	seen := map[string]bool{}
	list, err := l.List(t.Context())
	require.NoError(t, err)
	for _, c := range list {
		seen[c.ID] = true
	}
	ids := strings.Split(os.Getenv(emulatedEnv), ",")
	require.Len(t, seen, len(ids))
	for _, word := range ids {
		id, unplug := strings.CutSuffix(word, "-")
		require.True(t, seen[id], id)
		d, err := l.Open(t.Context(), id)
		require.NoError(t, err)
		t.Log(id, d.Path(), d.Dev())
		require.NoError(t, d.Verify())
		p := volume.AlignedBuffer(4096)
		copy(p, id)
		_, err = d.WriteAt(p, 4096)
		require.NoError(t, err)
		require.NoError(t, d.Sync())
		if unplug {
			println("unplug", id)
			require.Eventually(t, func() bool { return d.Verify() != nil }, 30*time.Second, 50*time.Millisecond)
			require.ErrorIs(t, d.Verify(), volume.ErrNotAttached)
			_, err = l.Open(t.Context(), id)
			require.ErrorIs(t, err, volume.ErrNotAttached)
		}
		require.NoError(t, d.Close())
	}
	_, err = volume.NVMe().Open(t.Context(), strings.TrimSuffix(ids[0], "-"))
	require.ErrorIs(t, err, volume.ErrNotAttached, "QEMU's controller is not Amazon's")
}
