package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/cmd"
	"github.com/ebb-storage/ebb/starter/internal/ui"
	"github.com/ebb-storage/ebb/workflows"
)

// TestReportOfManyDisks reports a fleet with 30 days of hours for each disk, through
// a real Temporal server: 50 disks, with EBB_TEST_FULL 1,000.
func TestReportOfManyDisks(t *testing.T) {
	disks, limit := 50, 30*time.Second
	if os.Getenv("EBB_TEST_FULL") != "" {
		disks, limit = 1000, 4*time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	server, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		ExistingPath: temporalBinary(t), LogLevel: "error", ClientOptions: &client.Options{Logger: quiet{}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })

	w := newWorld()
	for i := range disks {
		id := contract.DiskID(fmt.Sprintf("d-%017x", i))
		w.sizes[id] = 64 * contract.GiB
		w.disks[id] = contract.DiskFacts{Disk: id, Name: fmt.Sprintf("team-%d/claim-%d", i%10, i), Volumes: []contract.VolumeFacts{{
			ID: fmt.Sprintf("vol-%08x", i), State: "in-use", SizeGiB: 4, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125, Zone: "us-east-1a",
			Role: contract.RoleActive, Generation: 1, Node: nodeA, AttachState: "attached",
		}}}
	}
	control := worker.New(server.Client(), contract.ControlQueue, worker.Options{})
	workflows.RegisterInspect(control)
	w.register(control)
	require.NoError(t, control.Start())
	t.Cleanup(control.Stop)
	node := worker.New(server.Client(), contract.NodeQueue(nodeA), worker.Options{})
	w.registerNode(node)
	require.NoError(t, node.Start())
	t.Cleanup(node.Stop)

	began := time.Now()
	var out, talk bytes.Buffer
	code := cmd.Main(ctx, "test", []string{"report", "--address", server.FrontendHostPort(), "-o", "json", "--since", "30d"}, ui.Streams{Out: &out, Err: &talk})
	require.Zero(t, code, talk.String())
	took := time.Since(began)
	t.Logf("%d disks: %s, %d bytes of JSON", disks, took.Round(time.Millisecond), out.Len())
	require.Less(t, took, limit)
	var report struct {
		Totals struct{ Known, Unknown int }
		Series []any
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &report))
	require.Equal(t, disks, report.Totals.Known)
	require.Zero(t, report.Totals.Unknown)
	require.LessOrEqual(t, len(report.Series), 400)
	page := filepath.Join(t.TempDir(), "report.html")
	require.Zero(t, cmd.Main(ctx, "test", []string{"report", "--address", server.FrontendHostPort(), "-o", "html", "--since", "30d", "--out", page}, ui.Streams{Out: &out, Err: &talk}))
	info, err := os.Stat(page)
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(2<<20))
}
