package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/node"
)

const (
	agentProbes = "127.0.0.1:9465"
	manyDisks   = 30
	quickDisks  = 10
	readyTime   = 3 * time.Minute
)

// temporalCommand is where make setup puts the server.
func temporalCommand() string {
	if p := os.Getenv("EBB_TEMPORAL"); p != "" {
		return p
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "temporal"
	}
	return filepath.Join(cache, "ebb", "bin", "temporal")
}

// agent measures the real agent while nothing is asked of it, with one disk and
// with many.
func (b *bench) agent(ctx context.Context, temporal string) error {
	program, err := build(ctx, b.node, "/nodeagent", "ebb-agent")
	if err != nil {
		return err
	}
	srv, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		ExistingPath: temporal, LogLevel: "error", Stdout: io.Discard, Stderr: io.Discard,
		ClientOptions: &client.Options{Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))},
	})
	if err != nil {
		return fmt.Errorf("start Temporal (%s): %w", temporal, err)
	}
	defer func() { _ = srv.Stop() }()
	_, port, err := net.SplitHostPort(srv.FrontendHostPort())
	if err != nil {
		return err
	}
	many := manyDisks
	if b.params.Quick {
		many = quickDisks
	}
	for _, n := range []int{1, many} {
		b.params.Disks = n
		if err := b.run(ctx, "disks"); err != nil {
			return err
		}
		rss, cpu, ready, err := b.footprint(ctx, program, net.JoinHostPort(b.node.HostAddress(), port))
		if err != nil {
			return err
		}
		rssKey, cpuKey := "", ""
		if n == many {
			rssKey, cpuKey = "agent_rss_mib", "agent_cpu_pct"
		}
		b.add(wire.Row{Group: "agent", Name: fmt.Sprintf("start until ready, %d disks", n), Value: ready, Unit: "s"})
		b.add(wire.Row{Group: "agent", Key: rssKey, Name: fmt.Sprintf("memory, idle, %d disks", n), Value: rss, Unit: "MiB"})
		b.add(wire.Row{Group: "agent", Key: cpuKey, Name: fmt.Sprintf("CPU, idle, %d disks", n), Value: cpu, Unit: "%", Note: "of the node's one core, as its kernel counts run time"})
	}
	return nil
}

// footprint starts the agent, lets it settle, and tells its resident memory in
// MiB, its share of a core in percent, and how many seconds its start took.
func (b *bench) footprint(ctx context.Context, program, server string) (rss, cpu, readied float64, err error) {
	begin := time.Now()
	log := &tail{}
	p, err := b.node.Start(ctx, node.Command{
		Path: program, Args: []string{"--listen", agentProbes}, Stdout: log, Stderr: log,
		Env: []string{"TEMPORAL_ADDRESS=" + server, "TEMPORAL_CONFIG_FILE=/nonexistent", "EBB_NODE=" + b.node.ID()},
	})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() {
		err = errors.Join(err, p.Signal(syscall.SIGTERM))
		if _, e := p.Wait(); e != nil {
			err = errors.Join(err, e)
		}
		if err != nil {
			err = fmt.Errorf("agent: %w\n%s", err, log)
		}
	}()
	host, port, err := net.SplitHostPort(agentProbes)
	if err != nil {
		return 0, 0, 0, err
	}
	ready := fmt.Sprintf(`while true; do exec 3<>/dev/tcp/%s/%s && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && grep -q '^ready' <&3 && exit 0; sleep 0.2; done`, host, port)
	patience, cancel := context.WithTimeout(ctx, readyTime)
	_, err = b.script(patience, "exec 2>/dev/null; "+ready)
	cancel()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("not ready: %w", err)
	}
	readied = time.Since(begin).Seconds()
	idle := 40 * time.Second
	if b.params.Quick {
		idle = 20 * time.Second
	}
	look := func() (seconds float64, err error) {
		out, err := b.script(ctx, fmt.Sprintf("cat /proc/%d/task/*/schedstat; awk '/^VmRSS/ {print \"rss\", $2}' /proc/%[1]d/status", p.Pid()))
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			if len(f) < 2 {
				continue
			}
			if f[0] == "rss" {
				f[0], f[1] = f[1], ""
				rss, err = strconv.ParseFloat(f[0], 64)
				rss /= 1024
			} else if ns, e := strconv.ParseFloat(f[0], 64); e == nil {
				seconds += ns / 1e9
			}
		}
		return seconds, err
	}
	if err := pause(ctx, idle/3); err != nil { // start-up is over then
		return 0, 0, 0, err
	}
	before, err := look()
	if err != nil {
		return 0, 0, 0, err
	}
	start := time.Now()
	if err := pause(ctx, idle); err != nil {
		return 0, 0, 0, err
	}
	after, err := look()
	return rss, (after - before) / time.Since(start).Seconds() * 100, readied, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// script runs a shell script in the node.
func (b *bench) script(ctx context.Context, text string) (string, error) {
	var out bytes.Buffer
	code, err := b.node.Exec(ctx, node.Command{Path: "bash", Args: []string{"-c", text}, Stdout: &out, Stderr: &out})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, &out)
	}
	return out.String(), err
}
