package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/ebb-storage/ebb/internal/app"
	"github.com/ebb-storage/ebb/internal/contract"
)

func TestWiring(t *testing.T) {
	require.NoError(t, fx.ValidateApp(module(config{listen: "127.0.0.1:0"}, slog.New(slog.DiscardHandler), nil, app.NewOutcome())))
}

// The agent can use no AWS credentials because the code that could is not in
// its binary.
func TestNoAWSCredentialCode(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for _, dep := range strings.Fields(string(out)) {
		for _, bad := range []string{
			"github.com/aws/aws-sdk-go-v2/config",
			"github.com/aws/aws-sdk-go-v2/credentials",
			"github.com/aws/aws-sdk-go-v2/service/",
			"github.com/ebb-storage/ebb/workflows",
			"github.com/ebb-storage/ebb/activities",
		} {
			require.False(t, strings.HasPrefix(dep, bad), "%s is linked into the node agent", dep)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	t.Setenv("EBB_NODE", "")
	for _, args := range [][]string{{"nonsense"}, {"--bogus"}, {"preflight", "-o", "xml"}, {"preflight", "more"}, {"--log-level", "loud"}, {"--log-format", "xml"}} {
		require.Equal(t, app.ExitUsage, run(args), "%v", args)
	}
}

func TestPreflightOutput(t *testing.T) {
	r := contract.PreflightResult{Node: "i-0123456789abcdef0", Kernel: "6.1.0", Checks: []contract.Check{
		{Name: "target thin", OK: true, Detail: "available 1.22.0"},
		{Name: "temporal", Detail: "connection refused", Next: "check TEMPORAL_ADDRESS"},
	}}
	var b bytes.Buffer
	require.NoError(t, printReport(&b, "table", r))
	require.Contains(t, b.String(), "FAIL  connection refused")
	require.Contains(t, b.String(), "next: check TEMPORAL_ADDRESS")
	b.Reset()
	require.NoError(t, printReport(&b, "json", r))
	var back contract.PreflightResult
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, r, back)
}
