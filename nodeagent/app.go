package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.uber.org/fx"

	"github.com/ebb-storage/ebb/internal/app"
	"github.com/ebb-storage/ebb/nodeagent/agent"
)

// dropped are the names of AWS credential variables that were removed from the
// environment at start.
type dropped []string

// module wires the agent. It is all there is to wire: nothing else uses fx.
func module(cfg config, log *slog.Logger, creds dropped, result app.Outcome) fx.Option {
	return fx.Options(
		fx.NopLogger,
		fx.StopTimeout(app.StopTimeout),
		fx.Supply(cfg, creds, result),
		fx.Provide(
			func() *slog.Logger { return log },
			newKernel,
			newIdentity,
			newProber,
			agent.NewUsage,
			func(u *agent.Usage) *agent.Metrics { return agent.NewMetrics(u, version) },
			newOptions,
			agent.New,
		),
		fx.Invoke(start),
	)
}

func newIdentity(cfg config) agent.Identity {
	if cfg.node != "" {
		return agent.FixedIdentity(cfg.node)
	}
	return agent.IMDSIdentity()
}

func newProber(k *kernel, id agent.Identity, creds dropped) *agent.Prober {
	return &agent.Prober{
		Root:               os.DirFS("/"),
		OpenControl:        k.open,
		Targets:            k,
		LookPath:           exec.LookPath,
		Getenv:             os.Getenv,
		Identity:           id,
		DroppedCredentials: creds,
	}
}

func newOptions(cfg config, log *slog.Logger, k *kernel, id agent.Identity, p *agent.Prober, u *agent.Usage, m *agent.Metrics) agent.Options {
	return agent.Options{
		Logger: log, Usage: u, Metrics: m, Identity: id, Prober: p,
		OpenDisks: k.disks,
		Dial:      func(node string) (client.Client, error) { return agent.Dial(node, log) },
		Listen:    cfg.listen,
	}
}

// start runs the agent from the application's start to its stop. When the
// agent ends by itself, so does the application.
func start(lc fx.Lifecycle, sd fx.Shutdowner, a *agent.Agent, k *kernel, result app.Outcome) {
	lc.Append(fx.StartStopHook(app.Hooks(a.Run, func() { _ = sd.Shutdown() }, k.Close, result, "the agent did not stop in time; its disks stay up")))
}

// runAgent runs until ctx is done or the agent cannot go on.
func runAgent(ctx context.Context, cfg config) error {
	log, err := cfg.log.New()
	if err != nil {
		return err
	}
	creds := dropped(agent.DropCredentials(log))
	// The SDK would read the whole binary to make a checksum of it.
	worker.SetBinaryChecksum(version)
	result := app.NewOutcome()
	log.Info("ebb-agent starts", "version", version, "pid", os.Getpid())
	return app.Run(ctx, fx.New(module(cfg, log, creds, result)), result)
}
