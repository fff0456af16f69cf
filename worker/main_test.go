package main

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"
)

func TestWiring(t *testing.T) {
	require.NoError(t, fx.ValidateApp(module(settings{listen: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), make(outcome, 1))))
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"--bogus"}, {"--log-level", "loud"}, {"--log-format", "xml"}, {"--poll", "often"}} {
		require.Equal(t, exitUsage, run(args), "%v", args)
	}
}
