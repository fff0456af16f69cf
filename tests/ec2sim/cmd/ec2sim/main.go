// Command ec2sim runs the EC2 simulator alone, without nodes: volumes attach
// in its books only. It prints the endpoint on standard output and serves
// until it is interrupted; the state directory keeps everything for the next run.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ec2sim:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string) error {
	var opt ec2sim.Options
	var lag time.Duration
	var debug bool
	fs := flag.NewFlagSet("ec2sim", flag.ContinueOnError)
	fs.StringVar(&opt.StateDir, "state", "", "directory of volumes and state (required)")
	fs.StringVar(&opt.Addr, "listen", "127.0.0.1:4599", "address to serve on")
	fs.StringVar(&opt.Region, "region", "us-east-1", "region to be")
	fs.Int64Var(&opt.Seed, "seed", 1, "seed of ids and lags")
	fs.DurationVar(&lag, "lag", 0, "greatest lag of every transition")
	fs.DurationVar(&opt.StaleDescribe, "stale", 0, "how far describe calls run behind")
	fs.BoolVar(&debug, "debug", false, "log every call")
	fs.Func("instance", "i-...,type,zone of an instance that exists (repeatable)", func(s string) error {
		f := strings.Split(s, ",")
		i := ec2sim.Instance{ID: f[0]}
		if len(f) > 1 {
			i.Type = f[1]
		}
		if len(f) > 2 {
			i.Zone = f[2]
		}
		if len(f) > 3 {
			return fmt.Errorf("want id,type,zone; got %q", s)
		}
		opt.Instances = append(opt.Instances, i)
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("arguments: %w", err)
	}
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	opt.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	r := ec2sim.Range{Max: lag}
	opt.Lag = ec2sim.Lag{Create: r, Delete: r, Attach: r, Detach: r, Modify: r, Optimize: r, Snapshot: r}
	s, err := ec2sim.New(opt)
	if err != nil {
		return err
	}
	fmt.Println(s.URL())
	<-ctx.Done()
	return s.Close()
}
