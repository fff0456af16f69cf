package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/probe"
)

// identityPatience is how long the start waits for the metadata service, which
// may come up after the agent on a booting node.
const identityPatience = 2 * time.Minute

// Options are what an Agent is made of. All but MeasureEvery are needed.
type Options struct {
	Logger   *slog.Logger
	Usage    *Usage
	Metrics  *Metrics
	Identity Identity
	Prober   *Prober
	// OpenDisks makes the node's Disks; called once, after the preflight.
	OpenDisks func(node string) (Disks, error)
	// Dial makes the Temporal client without waiting for Temporal.
	Dial func(node string) (client.Client, error)
	// Listen is where probes and metrics are served; port 0 picks one.
	Listen string
	// MeasureEvery is the distance of two measurements; 0: MeasureEvery.
	MeasureEvery time.Duration
}

// Agent is the node agent.
type Agent struct {
	options Options
	metrics *Metrics
	state   *state

	mu      sync.Mutex
	address string
}

// New makes an agent; nothing happens before Run.
func New(o Options) *Agent {
	if o.MeasureEvery <= 0 {
		o.MeasureEvery = MeasureEvery
	}
	return &Agent{options: o, metrics: o.Metrics, state: newState(o.Metrics.ready)}
}

// Address is where probes and metrics are served, empty before Run is.
func (a *Agent) Address() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.address
}

// Run brings the node's disks up, serves the node's queue and guards its disks
// until ctx is done, then stops and leaves every device running. An error says
// why the agent cannot run here; a *contract.Refusal in it comes from the
// preflight.
//
// The order matters: disks come up before Temporal is asked for anything,
// because a node must boot while Temporal is away.
func (a *Agent) Run(ctx context.Context) error {
	err := a.run(ctx)
	if ctx.Err() != nil {
		// Told to stop while it started: no failure of the node.
		if err != nil {
			a.options.Logger.Info("stopped before it was ready", "error", err)
		}
		return nil
	}
	return err
}

func (a *Agent) run(ctx context.Context) error {
	log := a.options.Logger
	address, stop, err := probe.Listen(ctx, a.options.Listen, probe.Handler(a.metrics.Registry, a.state.describe), log)
	if err != nil {
		return err
	}
	defer stop()
	a.mu.Lock()
	a.address = address
	a.mu.Unlock()

	node, err := a.identify(ctx)
	if err != nil {
		return err
	}
	if err := a.preflight(ctx, node); err != nil {
		return err
	}
	disks, err := a.options.OpenDisks(node)
	if err != nil {
		return fmt.Errorf("open the node's disks: %w", err)
	}
	if err := a.reconcile(ctx, disks); err != nil {
		return err
	}
	c, err := a.options.Dial(node)
	if err != nil {
		return err
	}
	defer c.Close()

	prober := *a.options.Prober
	prober.Identity = FixedIdentity(node)
	prober.Temporal = nil // that the activity runs proves it
	acts := NewActivities(disks, a.options.Usage, a.metrics, func(ctx context.Context) contract.PreflightResult {
		return prober.Probe(ctx).PreflightResult
	}, log)
	sentinel := NewSentinel(disks, a.options.Usage, c, a.metrics, node, log.With("component", "sentinel"))
	measure := &measurer{disks: disks, usage: a.options.Usage, every: a.options.MeasureEvery, notify: sentinel.Notify, measured: sentinel.tend, log: log}

	// The sentinel does not wait for the worker: it also drops the failed leg
	// of a move, which Temporal has no part in.
	var wg sync.WaitGroup
	wg.Go(func() { a.serve(ctx, c, node, acts) })
	wg.Go(func() { sentinel.Run(ctx) })
	wg.Go(func() { measure.run(ctx) })
	<-ctx.Done()
	a.state.set("stop", "the agent is stopping")
	log.Info("stopping; disks stay up")
	wg.Wait()
	log.Info("stopped")
	return nil
}

// identify finds the node's name, waiting for a metadata service that is not
// up yet.
func (a *Agent) identify(ctx context.Context) (string, error) {
	wait := 250 * time.Millisecond
	deadline := time.Now().Add(identityPatience)
	for {
		node, err := a.options.Identity(ctx)
		if err == nil {
			return node, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return "", contract.Refuse(contract.NodeUnsupported, "the node's instance id is not known: %v", err).
				WithNext("allow the instance metadata service (IMDSv2; hop limit 2 in containers), or name the instance by --node or EBB_NODE")
		}
		a.state.set("identity", err.Error())
		a.options.Logger.Warn("the node's instance id is not known yet", "error", err, "wait", wait)
		sleep(ctx, wait)
		wait = min(2*wait, 10*time.Second)
	}
}

func (a *Agent) preflight(ctx context.Context, node string) error {
	log := a.options.Logger
	a.state.set("identity", "")
	prober := *a.options.Prober
	prober.Identity = FixedIdentity(node)
	prober.Temporal = nil // waited for later
	report := prober.Probe(ctx)
	for _, c := range report.Checks {
		if !c.OK {
			log.Warn("preflight", "check", c.Name, "detail", c.Detail, "next", c.Next)
		}
	}
	if ref := report.Refusal(); ref != nil {
		a.state.set("preflight", ref.Error())
		return ref
	}
	a.state.set("preflight", "")
	log.Info("preflight passed", "node", node, "kernel", report.Kernel, "checks", len(report.Checks))
	return nil
}

// reconcile brings up what the volumes say. A disk that cannot be brought up
// must not keep the others from being served, so its error is only told.
func (a *Agent) reconcile(ctx context.Context, disks Disks) error {
	log := a.options.Logger
	start := time.Now()
	ids, err := disks.Reconcile(ctx)
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	if err != nil {
		log.Error("not every disk could be brought up", "error", err)
		a.state.note("reconcile: " + err.Error())
	}
	log.Info("reconciled", "disks", len(ids), "duration", time.Since(start).Round(time.Millisecond))
	a.state.set("reconcile", "")
	return nil
}
