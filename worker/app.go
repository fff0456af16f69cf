package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/worker"
	"go.uber.org/fx"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/activities/fleet"
	"github.com/ebb-storage/ebb/internal/app"
	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/worker/control"
	"github.com/ebb-storage/ebb/workflows"
)

// module wires the worker. It is all there is to wire: nothing else uses fx.
func module(cfg settings, log *slog.Logger, result app.Outcome) fx.Option {
	return fx.Options(
		fx.NopLogger,
		fx.StopTimeout(app.StopTimeout),
		fx.Supply(cfg, result),
		fx.Provide(
			func() *slog.Logger { return log },
			newEC2,
			newActivities,
			newFleet,
			prometheus.NewRegistry,
			control.Dial,
			newControl,
		),
		fx.Invoke(start),
	)
}

// answerTimeout bounds one HTTP exchange with EC2, which answers within seconds.
const answerTimeout = time.Minute

// newEC2 uses the SDK's default chain. No call is made yet.
func newEC2() (*awsec2.Client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), app.StopTimeout)
	defer cancel()
	// A connection that hangs is given up: what waits for the answer may be a growth.
	c, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(answerTimeout)))
	if err != nil {
		return nil, fmt.Errorf("aws settings: %w", err)
	}
	return awsec2.NewFromConfig(c), nil
}

func newActivities(cfg settings, api *awsec2.Client, log *slog.Logger) *ec2.Activities {
	return ec2.New(api, ec2.Options{Cluster: cfg.cluster, PollMin: cfg.pollMin, Settle: cfg.settle, Log: log})
}

func newFleet(cfg settings, api *awsec2.Client, a *ec2.Activities, metrics *prometheus.Registry, log *slog.Logger) (*fleet.Activities, error) {
	book := price.BuiltIn()
	if cfg.prices != "" {
		data, err := os.ReadFile(cfg.prices)
		if err != nil {
			return nil, fmt.Errorf("price list: %w", err)
		}
		if book, err = price.Load(data); err != nil {
			return nil, fmt.Errorf("%s: %w", cfg.prices, err)
		}
	}
	prices, known := book.In(api.Options().Region)
	if !known {
		log.Warn("the price list does not have the region; another one's prices are used", "region", api.Options().Region, "used", prices.Region)
	}
	return fleet.New(fleet.Options{World: fleet.EC2{API: a}, Prices: prices, Cluster: cfg.cluster, Metrics: metrics, Log: log}), nil
}

func newControl(cfg settings, c control.Connection, a *ec2.Activities, f *fleet.Activities, metrics *prometheus.Registry, log *slog.Logger) *control.Worker {
	return control.New(c, control.Options{
		Listen: cfg.listen, Version: version, Log: log, Metrics: metrics,
		Register: func(w worker.Registry) {
			workflows.Register(w)
			a.Register(w)
			f.Register(w)
		},
	})
}

// start runs the worker from the application's start to its stop. When it ends
// by itself, so does the application.
func start(lc fx.Lifecycle, sd fx.Shutdowner, w *control.Worker, result app.Outcome) {
	lc.Append(fx.StartStopHook(app.Hooks(w.Run, func() { _ = sd.Shutdown() }, nil, result, "the worker did not stop in time; what it did is taken up by the next one")))
}

// runWorker runs until ctx is done or the worker cannot go on.
func runWorker(ctx context.Context, cfg settings) error {
	log, err := cfg.log.New()
	if err != nil {
		return err
	}
	// The SDK would read the whole binary to make a checksum of it.
	worker.SetBinaryChecksum(version)
	result := app.NewOutcome()
	log.Info("ebb-worker starts", "version", version, "pid", os.Getpid())
	return app.Run(ctx, fx.New(module(cfg, log, result)), result)
}
