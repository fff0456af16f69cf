package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.uber.org/fx"

	"github.com/ebb-storage/ebb/nodeagent/agent"
)

// stopTimeout is how long a stop may take: short activities are let end.
const stopTimeout = 30 * time.Second

// dropped are the names of AWS credential variables that were removed from the
// environment at start.
type dropped []string

// outcome carries what the agent's run ended with.
type outcome chan error

// module wires the agent. It is all there is to wire: nothing else uses fx.
func module(cfg config, log *slog.Logger, creds dropped, result outcome) fx.Option {
	return fx.Options(
		fx.NopLogger,
		fx.StopTimeout(stopTimeout),
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
func start(lc fx.Lifecycle, sd fx.Shutdowner, a *agent.Agent, k *kernel, result outcome) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			go func() {
				defer close(done)
				result <- a.Run(ctx)
				_ = sd.Shutdown()
			}()
			return nil
		},
		OnStop: func(stopping context.Context) error {
			cancel()
			select {
			case <-done:
				return k.Close()
			case <-stopping.Done():
				return errors.New("the agent did not stop in time; its disks stay up")
			}
		},
	})
}

// runAgent runs until ctx is done or the agent cannot go on.
func runAgent(ctx context.Context, cfg config) error {
	log, err := newLogger(cfg)
	if err != nil {
		return err
	}
	creds := dropped(agent.DropCredentials(log))
	// The SDK would read the whole binary to make a checksum of it.
	worker.SetBinaryChecksum(version)
	result := make(outcome, 1)
	app := fx.New(module(cfg, log, creds, result))
	if err := app.Err(); err != nil {
		return err
	}
	log.Info("ebb-agent starts", "version", version, "pid", os.Getpid())
	if err := app.Start(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-app.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err = app.Stop(stopping)
	select {
	case ran := <-result:
		return errors.Join(ran, err)
	default:
		return err
	}
}
