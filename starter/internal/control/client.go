// Package control is the ebb command's side of Temporal: it connects, starts
// the workflows of internal/contract, signals, queries and follows them. It
// prints nothing, and holds no AWS credentials: what EC2 knows it learns from
// the Inspect workflow.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// dialTimeout bounds the first answer of Temporal: a person waits for it.
const dialTimeout = 4 * time.Second

// callTimeout bounds a single call later on.
const callTimeout = 10 * time.Second

// Settings say where Temporal is. Empty fields come from the TEMPORAL_*
// environment, then from the profile in Temporal's configuration file.
type Settings struct {
	Profile   string
	Address   string
	Namespace string
	Logger    *slog.Logger
}

// Client talks to one namespace.
type Client struct {
	temporal  client.Client
	address   string
	namespace string
	identity  string
	decode    converter.DataConverter
}

// Connect reaches Temporal within a few seconds or says why not. The caller
// closes the client.
func Connect(ctx context.Context, s Settings) (*Client, error) {
	opts, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{
		ConfigFileProfile: s.Profile, IncludeRemoteCodec: true,
	})
	if err != nil {
		return nil, exit.New(exit.Usage, "Temporal's connection settings").Because(err).
			WithNext("check --profile, TEMPORAL_* and %s", envconfig.DefaultConfigFilePath())
	}
	if s.Address != "" {
		opts.HostPort = s.Address
	}
	if s.Namespace != "" {
		opts.Namespace = s.Namespace
	}
	if opts.HostPort == "" {
		opts.HostPort = client.DefaultHostPort
	}
	if opts.Namespace == "" {
		opts.Namespace = client.DefaultNamespace
	}
	opts.Logger = log.NewStructuredLogger(s.Logger)
	opts.Identity = "ebb/" + whoami()

	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	tc, err := client.DialContext(ctx, opts)
	if err != nil {
		return nil, exit.New(exit.Unreachable, "Temporal does not answer at %s", opts.HostPort).Because(err).
			WithNext("check that it runs, and --address, --profile or TEMPORAL_ADDRESS")
	}
	c := &Client{temporal: tc, address: opts.HostPort, namespace: opts.Namespace, identity: opts.Identity, decode: opts.DataConverter}
	if c.decode == nil {
		c.decode = converter.GetDefaultDataConverter()
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() { c.temporal.Close() }

// HasWorker says whether a worker has lately asked the control queue for work.
// It is a hint for messages only.
func (c *Client) HasWorker(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	q, err := c.temporal.DescribeTaskQueue(ctx, contract.ControlQueue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	if err != nil {
		return false, err
	}
	for _, p := range q.GetPollers() {
		// A poll lasts up to a minute; an older one is a worker that is gone.
		if time.Since(p.GetLastAccessTime().AsTime()) < 2*time.Minute {
			return true, nil
		}
	}
	return false, nil
}

// errNoWorker is what a person needs to know when nothing happens.
func errNoWorker() *exit.Error {
	return exit.New(exit.Unreachable, "no worker serves the queue %s", contract.ControlQueue).
		WithNext("start Ebb's control worker, in the same Temporal namespace")
}

// callError gives an error of a call to Temporal its exit code.
func (c *Client) callError(doing string, err error) error {
	var (
		own       *exit.Error
		namespace *serviceerror.NamespaceNotFound
		denied    *serviceerror.PermissionDenied
		unavail   *serviceerror.Unavailable
		deadline  *serviceerror.DeadlineExceeded
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return err
	case errors.As(err, &namespace):
		return exit.New(exit.NotFound, "Temporal at %s has no namespace %q", c.address, c.namespace).
			WithNext("temporal operator namespace create --namespace %s, or choose another with --namespace", c.namespace)
	case errors.As(err, &denied):
		return exit.New(exit.Failed, "Temporal denies it: %s", doing).Because(err)
	case errors.As(err, &unavail), errors.As(err, &deadline), errors.Is(err, context.DeadlineExceeded):
		return exit.New(exit.Unreachable, "Temporal at %s does not answer: %s", c.address, doing).Because(err)
	}
	return exit.New(exit.Failed, "%s", doing).Because(err)
}

func whoami() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return fmt.Sprintf("%s@%s", name, host)
}
