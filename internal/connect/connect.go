// Package connect makes the Temporal client of a program that runs for long.
package connect

import (
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	sdklog "go.temporal.io/sdk/log"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

const (
	firstRetry  = 200 * time.Millisecond
	connectTime = 5 * time.Second
)

// Options of a connection.
type Options struct {
	// Identity is what Temporal shows of the program; empty: the SDK's default.
	Identity string
	// RetryMax is the longest pause between two attempts to connect. The SDK's
	// own, 10 s, is long for a pool that is filling.
	RetryMax time.Duration
	Log      *slog.Logger
}

// Temporal makes a client and says which namespace it works in. The connection
// is made at first use, so it succeeds while Temporal is away; only bad settings
// fail. They come from the environment (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE,
// TEMPORAL_API_KEY, TEMPORAL_TLS*, TEMPORAL_PROFILE, ...) or Temporal's
// configuration file.
func Temporal(o Options) (c client.Client, namespace string, err error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, "", fmt.Errorf("temporal settings: %w", err)
	}
	if o.Identity != "" {
		options.Identity = o.Identity
	}
	options.Logger = sdklog.NewStructuredLogger(o.Log.With("component", "temporal"))
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay, reconnect.MaxDelay = firstRetry, o.RetryMax
	options.ConnectionOptions.DialOptions = append(options.ConnectionOptions.DialOptions,
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTime}))
	if c, err = client.NewLazyClient(options); err != nil {
		return nil, "", fmt.Errorf("temporal client: %w", err)
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	return c, options.Namespace, nil
}
