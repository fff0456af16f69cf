package dm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModuleFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("modules.dep", "kernel/md/dm-mod.ko.xz:\nkernel/md/dm-thin-pool.ko.xz: kernel/md/dm-bufio.ko.xz kernel/md/dm-mod.ko.xz\n")
	write("modules.builtin", "kernel/md/dm-mirror.ko\n")

	files, err := moduleFilesIn(dir, "dm_thin_pool")
	require.NoError(t, err)
	require.Equal(t, []string{dir + "/kernel/md/dm-mod.ko.xz", dir + "/kernel/md/dm-bufio.ko.xz", dir + "/kernel/md/dm-thin-pool.ko.xz"}, files)

	files, err = moduleFilesIn(dir, "dm_mirror")
	require.NoError(t, err)
	require.Empty(t, files, "built in")

	_, err = moduleFilesIn(dir, "dm_absent")
	require.ErrorContains(t, err, "no module dm_absent")
	_, err = moduleFilesIn(filepath.Join(dir, "none"), "dm_mod")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestModuleNames(t *testing.T) {
	for target, module := range map[string]string{
		"thin": "dm_thin_pool", "thin-pool": "dm_thin_pool", "mirror": "dm_mirror", "linear": "dm_mod",
		"log-writes": "dm_log_writes", "snapshot-merge": "dm_snapshot",
	} {
		require.Equal(t, module, moduleOf(target))
	}
	require.Equal(t, "dm_mod", moduleName("kernel/drivers/md/dm-mod.ko.zst"))
}

func TestLockdownMode(t *testing.T) {
	require.Equal(t, "integrity", chosen("none [integrity] confidentiality\n"))
	require.Equal(t, "none", chosen("[none] integrity confidentiality\n"))
	require.Equal(t, "unknown", chosen(""))
	require.Equal(t, "unknown", chosen("[open"))
}
