// Ebb-worker is Ebb's control worker: it serves the queue ebb-control, runs the
// workflows and makes every EC2 call. It keeps no state; several may run.
package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/app"
)

// version is set by the linker.
var version = "devel"

// settings is what the flags and the environment say.
type settings struct {
	listen  string
	cluster string
	prices  string
	log     app.Log
	pollMin time.Duration
	settle  time.Duration
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int { return app.Main(newCommand(), args, os.Stderr) }

func newCommand() *cobra.Command {
	var cfg settings
	cmd := &cobra.Command{
		Use:   "ebb-worker",
		Short: "Ebb's control worker",
		Long: `Ebb's control worker. It runs until SIGTERM or SIGINT, serving the Temporal task
queue ebb-control: the workflows, and every call to EC2. It keeps no state; run
two of them so that one may be away.

Temporal is reached as TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TEMPORAL_API_KEY,
TEMPORAL_TLS* or a Temporal configuration file say. AWS credentials and region
come from the AWS SDK's default chain; AWS_ENDPOINT_URL_EC2 moves the endpoint.

It registers Ebb's search attributes when it is allowed to, else it waits until
"ebb setup" has been run.

Exit codes: 0 stopped as asked; 1 failed; 2 wrong usage.`,
		Args:    app.NoArgs,
		Version: version,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runWorker(cmd.Context(), cfg) },
	}
	f := cmd.Flags()
	f.StringVar(&cfg.listen, "listen", app.EnvOr("EBB_LISTEN", "127.0.0.1:9464"), "where /metrics, /healthz and /readyz are served; port 0 picks one and logs it")
	f.StringVar(&cfg.cluster, "cluster", os.Getenv("EBB_CLUSTER"), "tag everything created with this cluster, and list only its disks")
	f.StringVar(&cfg.prices, "prices", os.Getenv("EBB_PRICES"), "price list for planning, as ebb price refresh writes it (default: the built-in list)")
	cfg.log.Flags(cmd)
	f.DurationVar(&cfg.pollMin, "poll", 500*time.Millisecond, "the shortest time between two looks at an EC2 change under way")
	f.DurationVar(&cfg.settle, "settle", 20*time.Second, "how long EC2's describes may lag behind")
	return cmd
}
