package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"go.temporal.io/sdk/worker"
	"go.uber.org/fx"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/worker/control"
	"github.com/ebb-storage/ebb/workflows"
)

// stopTimeout is how long a stop may take: activities are let end or told to.
const stopTimeout = 30 * time.Second

// outcome carries what the worker's run ended with.
type outcome chan error

// module wires the worker. It is all there is to wire: nothing else uses fx.
func module(cfg settings, log *slog.Logger, result outcome) fx.Option {
	return fx.Options(
		fx.NopLogger,
		fx.StopTimeout(stopTimeout),
		fx.Supply(cfg, result),
		fx.Provide(
			func() *slog.Logger { return log },
			newEC2,
			newActivities,
			control.Dial,
			newControl,
		),
		fx.Invoke(start),
	)
}

// newEC2 uses the SDK's default chain. No call is made yet.
func newEC2() (*awsec2.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	c, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("aws settings: %w", err)
	}
	return awsec2.NewFromConfig(c), nil
}

func newActivities(cfg settings, api *awsec2.Client, log *slog.Logger) *ec2.Activities {
	return ec2.New(api, ec2.Options{Cluster: cfg.cluster, PollMin: cfg.pollMin, Settle: cfg.settle, Log: log})
}

func newControl(cfg settings, c control.Connection, a *ec2.Activities, log *slog.Logger) *control.Worker {
	return control.New(c, control.Options{
		Listen: cfg.listen, Version: version, Log: log,
		Register: func(w worker.Registry) {
			workflows.Register(w)
			a.Register(w)
		},
	})
}

// start runs the worker from the application's start to its stop. When it ends
// by itself, so does the application.
func start(lc fx.Lifecycle, sd fx.Shutdowner, w *control.Worker, result outcome) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	lc.Append(fx.Hook{
		OnStart: func(context.Context) error {
			go func() {
				defer close(done)
				result <- w.Run(ctx)
				_ = sd.Shutdown()
			}()
			return nil
		},
		OnStop: func(stopping context.Context) error {
			cancel()
			select {
			case <-done:
				return nil
			case <-stopping.Done():
				return errors.New("the worker did not stop in time; what it did is taken up by the next one")
			}
		},
	})
}

// runWorker runs until ctx is done or the worker cannot go on.
func runWorker(ctx context.Context, cfg settings) error {
	log, err := newLogger(cfg)
	if err != nil {
		return err
	}
	// The SDK would read the whole binary to make a checksum of it.
	worker.SetBinaryChecksum(version)
	result := make(outcome, 1)
	app := fx.New(module(cfg, log, result))
	if err := app.Err(); err != nil {
		return err
	}
	log.Info("ebb-worker starts", "version", version, "pid", os.Getpid())
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
