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
	"github.com/ebb-storage/ebb/tests/devserver"
	"github.com/ebb-storage/ebb/tests/node"
)

const (
	agentProbes = "127.0.0.1:9465"
	manyDisks   = 30
	quickDisks  = 10
	readyTime   = 3 * time.Minute
)

// agent measures the real agent while nothing is asked of it, with one disk and
// with many.
func (b *bench) agent(ctx context.Context) error {
	temporal, err := devserver.Path()
	if err != nil {
		return err
	}
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
	server := net.JoinHostPort(b.node.HostAddress(), port)
	many := manyDisks
	if b.params.Quick {
		many = quickDisks
	}
	idle := func() error { return b.settled(ctx) }
	var alone float64
	for _, n := range []int{1, many} {
		b.params.Disks = n
		if err := b.run(ctx, "disks"); err != nil {
			return err
		}
		with, rss, err := b.footprint(ctx, program, server, n)
		if err != nil {
			return err
		}
		if alone, err = b.busy(idle); err != nil { // after the agent: what making the disks left to do is done
			return err
		}
		memory := wire.Row{Group: "agent", Name: fmt.Sprintf("memory, idle, %d disks", n), Value: rss, Unit: "MiB"}
		cpu := wire.Row{Group: "agent", Name: fmt.Sprintf("CPU, idle, %d disks", n), Value: with - alone, Unit: "%", Note: fmt.Sprintf("of a core: the node's %.2f %% with the agent less %.2f %% without", with, alone)}
		if n == many {
			memory.Key, cpu.Key = "agent_rss_mib", "agent_cpu_pct"
		}
		b.add(memory)
		b.add(cpu)
	}
	spin, err := b.busy(func() error { return b.run(ctx, "spin") })
	if err != nil {
		return err
	}
	b.add(wire.Row{Group: "agent", Name: "CPU of a loop of 10 ms each second, counted likewise", Value: spin - alone, Unit: "%", Note: "1 % and what it costs the node to be woken and to start it"})
	return nil
}

// settled waits for as long as an idle node is watched.
func (b *bench) settled(ctx context.Context) error {
	if b.params.Quick {
		return pause(ctx, 20*time.Second)
	}
	return pause(ctx, time.Minute)
}

// footprint measures the agent with so many disks: the time until it is ready,
// and, idle, how busy the node is in percent of a core, and its memory in MiB.
func (b *bench) footprint(ctx context.Context, program, server string, disks int) (busy, rss float64, err error) {
	begin := time.Now()
	log := &tail{}
	p, err := b.node.Start(ctx, node.Command{
		Path: program, Args: []string{"--listen", agentProbes}, Stdout: log, Stderr: log,
		Env: []string{"TEMPORAL_ADDRESS=" + server, "TEMPORAL_CONFIG_FILE=/nonexistent", "EBB_NODE=" + b.node.ID()},
	})
	if err != nil {
		return 0, 0, err
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
		return 0, 0, err
	}
	ready := fmt.Sprintf(`while true; do exec 3<>/dev/tcp/%s/%s && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && grep -q '^ready' <&3 && exit 0; sleep 0.2; done`, host, port)
	patience, cancel := context.WithTimeout(ctx, readyTime)
	_, err = b.script(patience, "exec 2>/dev/null; "+ready)
	cancel()
	if err != nil {
		return 0, 0, fmt.Errorf("not ready: %w", err)
	}
	b.add(wire.Row{Group: "agent", Name: fmt.Sprintf("start until ready, %d disks", disks), Value: time.Since(begin).Seconds(), Unit: "s"})
	if err := pause(ctx, 20*time.Second); err != nil { // start-up is over then
		return 0, 0, err
	}
	busy, err = b.busy(func() error { return b.settled(ctx) })
	if err != nil {
		return 0, 0, err
	}
	out, err := b.script(ctx, fmt.Sprintf("awk '/^VmRSS/ {print $2}' /proc/%d/status", p.Pid()))
	if err != nil {
		return 0, 0, err
	}
	rss, err = strconv.ParseFloat(strings.TrimSpace(out), 64)
	return busy, rss / 1024, err
}

// busy tells the node's share of a core in percent while f runs, as the host
// counts it. A node that is a process counts its own programs' time by its clock
// ticks of 10 ms: a program that wakes ten times a second and does nothing has 2%
// there. All of that node's processes bear its directory in their command line,
// and so does the agent where it runs on the host itself.
func (b *bench) busy(f func() error) (float64, error) {
	look := func() (map[string]float64, error) {
		spent := map[string]float64{}
		files, err := filepath.Glob("/proc/[0-9]*/task/*/schedstat")
		for _, f := range files {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "cmdline")) // it may be gone by now
			if strings.HasPrefix(f, fmt.Sprintf("/proc/%d/", os.Getpid())) || !bytes.Contains(command, []byte(b.node.Dir())) {
				continue
			}
			text, _ := os.ReadFile(f)
			ns, _, _ := strings.Cut(string(text), " ")
			spent[f], _ = strconv.ParseFloat(ns, 64)
		}
		return spent, err
	}
	before, err := look()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := f(); err != nil {
		return 0, err
	}
	took := time.Since(start)
	after, err := look()
	total := 0.0
	for thread, ns := range after {
		total += ns - before[thread]
	}
	return total / float64(took.Nanoseconds()) * 100, err
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
