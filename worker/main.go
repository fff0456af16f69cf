// Ebb-worker is Ebb's control worker: it serves the queue ebb-control, runs the
// workflows and makes every EC2 call. It keeps no state; several may run.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "devel"

// Exit codes, as the help says.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

// settings is what the flags and the environment say.
type settings struct {
	listen    string
	cluster   string
	logLevel  string
	logFormat string
	pollMin   time.Duration
	settle    time.Duration
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := newCommand()
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "ebb-worker:", err)
		fmt.Fprintln(os.Stderr, "see: ebb-worker --help")
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "ebb-worker:", err)
	return exitFailed
}

// usageError is a mistake on the command line.
type usageError struct{ error }

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
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown argument %q", args[0])}
			}
			return nil
		},
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return runWorker(cmd.Context(), cfg) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := cmd.Flags()
	f.StringVar(&cfg.listen, "listen", envOr("EBB_LISTEN", "127.0.0.1:9464"), "where /metrics, /healthz and /readyz are served; port 0 picks one and logs it")
	f.StringVar(&cfg.cluster, "cluster", os.Getenv("EBB_CLUSTER"), "tag everything created with this cluster, and list only its disks")
	f.StringVar(&cfg.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&cfg.logFormat, "log-format", "auto", "json, text, or auto: text on a terminal")
	f.DurationVar(&cfg.pollMin, "poll", 500*time.Millisecond, "the shortest time between two looks at an EC2 change under way")
	f.DurationVar(&cfg.settle, "settle", 20*time.Second, "how long EC2's describes may lag behind")
	return cmd
}

func envOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
