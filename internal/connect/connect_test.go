package connect_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/connect"
)

func TestTemporal(t *testing.T) {
	o := connect.Options{Identity: "me", RetryMax: time.Second, Log: slog.New(slog.DiscardHandler)}
	file := filepath.Join(t.TempDir(), "temporal.toml")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	t.Setenv("TEMPORAL_CONFIG_FILE", file)
	t.Setenv("TEMPORAL_NAMESPACE", "")
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1") // nobody is there, and nobody is asked
	c, namespace, err := connect.Temporal(o)
	require.NoError(t, err)
	c.Close()
	require.Equal(t, "default", namespace)

	t.Setenv("TEMPORAL_NAMESPACE", "other")
	c, namespace, err = connect.Temporal(o)
	require.NoError(t, err)
	c.Close()
	require.Equal(t, "other", namespace)

	require.NoError(t, os.WriteFile(file, []byte("not [toml"), 0o600))
	_, _, err = connect.Temporal(o)
	require.ErrorContains(t, err, "temporal settings")
}
