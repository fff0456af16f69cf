package main

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/ebb-storage/ebb/internal/app"
)

func TestWiring(t *testing.T) {
	require.NoError(t, fx.ValidateApp(module(settings{listen: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), app.NewOutcome())))
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"--bogus"}, {"--log-level", "loud"}, {"--log-format", "xml"}, {"--poll", "often"}} {
		require.Equal(t, app.ExitUsage, run(args), "%v", args)
	}
}
