// Ebb-agent is Ebb's node agent: it brings the disks of an EC2 instance up,
// carries out what the control plane asks for on the queue of its node, asks
// for growth before a disk is full, and moves disks while they are in use.
//
// It needs root and device-mapper. It holds no AWS credentials.
package main

import (
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/app"
)

// version is set by the linker.
var version = "devel"

// config is what the flags and the environment say.
type config struct {
	node   string
	listen string
	log    app.Log
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	limitMemory()
	return app.Main(newCommand(), args, os.Stderr)
}

// limitMemory keeps an idle agent small: its live heap is a few MiB, so to
// collect twice as often costs nothing and halves what lies around. The limit
// is far above what a move needs; it keeps a burst from being kept. The
// environment's own settings win.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(96 << 20)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

func newCommand() *cobra.Command {
	var cfg config
	cmd := &cobra.Command{
		Use:   "ebb-agent",
		Short: "Ebb's node agent",
		Long: `Ebb's node agent. Without a command it runs until SIGTERM or SIGINT: it checks
the node, brings its disks up, serves the Temporal task queue ebb-node/<instance
id>, and asks for growth before a disk is full. Stopping it leaves every disk up.

Temporal is reached as TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY,
TEMPORAL_TLS* or a Temporal configuration file say. The node's name comes from
the instance metadata service (AWS_EC2_METADATA_SERVICE_ENDPOINT moves it)
unless --node or EBB_NODE gives it. AWS credentials are never used.

Exit codes: 0 stopped as asked; 1 failed; 2 wrong usage; 3 this node is refused.`,
		Args:    app.NoArgs,
		Version: version,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runAgent(cmd.Context(), cfg) },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&cfg.node, "node", os.Getenv("EBB_NODE"), "EC2 instance id of this node (default: ask the instance metadata service)")
	cfg.log.Flags(cmd)
	cmd.Flags().StringVar(&cfg.listen, "listen", app.EnvOr("EBB_LISTEN", "127.0.0.1:9465"), "where /metrics, /healthz and /readyz are served; port 0 picks one and logs it")
	cmd.AddCommand(newPreflight(&cfg))
	return cmd
}
