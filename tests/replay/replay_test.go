package replay_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/replay"
	"github.com/ebb-storage/ebb/workflows"
)

// TestReplay replays every recorded history. A failure here means that
// workflows running in production would stop: use workflow.GetVersion.
func TestReplay(t *testing.T) {
	n := 0
	err := filepath.WalkDir("history", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".json") {
			return err
		}
		n++
		t.Run(strings.TrimSuffix(filepath.ToSlash(path), ".json"), func(t *testing.T) {
			h, err := replay.Load(path)
			require.NoError(t, err)
			require.NoError(t, replay.Replay(h, workflows.Register))
		})
		return nil
	})
	require.NoError(t, err)
	require.Positive(t, n, "no history is recorded: see the package")
}
