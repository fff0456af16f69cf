// Package lab is the whole of Ebb on one machine, every part real: a Temporal
// server, the control worker and the node agents as the processes they are,
// nodes with kernels of their own, and EC2 as ec2sim speaks it. The demo, the
// end-to-end tests, the crash tests and the benchmark run on it.
//
// Each part can be killed, stopped and started again on its own.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"

	"github.com/ebb-storage/ebb/tests/devserver"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/node"
)

// Options of a Lab. The zero value is one node, no EC2 lag.
type Options struct {
	Dir       string // state, logs and nodes; required
	Nodes     int    // default 1
	MemoryMiB int    // of a node; default 640
	EC2       ec2sim.Options
	UI        bool // serve Temporal's Web UI
	Output    io.Writer
}

// Lab is running parts. Close ends them.
type Lab struct {
	Options
	EC2   *ec2sim.Server
	Fleet *node.Fleet
	Nodes []node.Node

	bin          string
	temporalPort int
	UIPort       int
	temporal     *process
	worker       *process
	agents       map[string]node.Process
	client       client.Client
	mu           sync.Mutex
}

// Zone all nodes are in.
const Zone = "us-east-1a"

// NodeID is the instance id of node i, counted from 0.
func NodeID(i int) string { return fmt.Sprintf("i-%017x", 0xebb00+i) }

// Start builds the programs and starts every part but the agents' nodes'
// workloads. On an error nothing is left running.
func Start(ctx context.Context, o Options) (l *Lab, err error) {
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 640
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	if err := node.OwnKernel(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l = &Lab{Options: o, agents: map[string]node.Process{}, Fleet: &node.Fleet{}, bin: filepath.Join(o.Dir, "bin")}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	for _, dir := range []string{l.bin, l.Shared()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return l, err
		}
	}
	if err := Build(ctx, l.bin); err != nil {
		return l, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return l, err
	}
	l.temporalPort, l.UIPort = ports[0], ports[1]
	if err := l.StartTemporal(ctx); err != nil {
		return l, err
	}
	sim := o.EC2
	sim.StateDir = filepath.Join(o.Dir, "ec2")
	sim.Plug = l.Fleet
	for i := range o.Nodes {
		sim.Instances = append(sim.Instances, ec2sim.Instance{ID: NodeID(i), Type: "m5.xlarge", Zone: Zone})
	}
	if l.EC2, err = ec2sim.New(sim); err != nil {
		return l, err
	}
	if _, err := l.Ebb(ctx, "setup"); err != nil {
		return l, err
	}
	if err := l.StartWorker(); err != nil {
		return l, err
	}
	for i := range o.Nodes {
		n, err := node.New(node.Options{Kind: node.KindUML, ID: NodeID(i), Dir: filepath.Join(o.Dir, NodeID(i)), MemoryMiB: o.MemoryMiB, Share: []string{l.bin, l.Shared()}})
		if err != nil {
			return l, err
		}
		l.Nodes = append(l.Nodes, n)
		l.Fleet.Add(n)
		if err := n.Boot(ctx); err != nil {
			return l, err
		}
		if err := l.StartAgent(ctx, i); err != nil {
			return l, err
		}
	}
	return l, nil
}

// Build compiles Ebb's programs and the writer into dir.
func Build(ctx context.Context, dir string) error {
	root, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	for name, pkg := range map[string]string{"ebb": "./starter", "ebb-worker": "./worker", "ebb-agent": "./nodeagent", "ackwriter": "./tests/acked/cmd/ackwriter"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, name), pkg)
		cmd.Dir = filepath.Dir(strings.TrimSpace(string(root)))
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// Bin is the path of a program, the same on the host and in the nodes.
func (l *Lab) Bin(name string) string { return filepath.Join(l.bin, name) }

// Shared is a directory that the host and every node see under this path.
func (l *Lab) Shared() string { return filepath.Join(l.Dir, "shared") }

// process is a program on the host with its log.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func (l *Lab) run(name string, env []string, path string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(l.Dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		_ = log.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the process
		_ = cmd.Wait()
		_ = log.Close()
		close(p.done)
	}()
	return p, nil
}

// kill ends a process as a crash does and waits for it.
func (p *process) kill() {
	if p != nil {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Temporal is the server's address on the host.
func (l *Lab) Temporal() string { return "127.0.0.1:" + strconv.Itoa(l.temporalPort) }

// StartTemporal starts the server on its port, with the state it had.
func (l *Lab) StartTemporal(ctx context.Context) error {
	path, err := devserver.Path()
	if err != nil {
		return err
	}
	args := []string{"server", "start-dev", "--ip", "127.0.0.1", "--port", strconv.Itoa(l.temporalPort), "--db-filename", filepath.Join(l.Dir, "temporal.db"), "--log-level", "warn"}
	if l.UI {
		args = append(args, "--ui-port", strconv.Itoa(l.UIPort))
	} else {
		args = append(args, "--headless")
	}
	if l.temporal, err = l.run("temporal", nil, path, args...); err != nil {
		return err
	}
	return l.until(ctx, time.Minute, "Temporal answers", func(ctx context.Context) error {
		c, err := l.Client(ctx)
		if err != nil {
			return err
		}
		_, err = c.CheckHealth(ctx, &client.CheckHealthRequest{})
		return err
	})
}

// StopTemporal kills the server.
func (l *Lab) StopTemporal() { l.temporal.kill() }

// Client is a connection to Temporal.
func (l *Lab) Client(ctx context.Context) (client.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		c, err := client.NewLazyClient(client.Options{HostPort: l.Temporal(), Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
		if err != nil {
			return nil, err
		}
		l.client = c
	}
	return l.client, nil
}

// StartWorker starts the control worker.
func (l *Lab) StartWorker() (err error) {
	l.worker, err = l.run("worker", []string{
		"TEMPORAL_ADDRESS=" + l.Temporal(), "TEMPORAL_CONFIG_FILE=/nonexistent", "AWS_ENDPOINT_URL_EC2=" + l.EC2.URL(), "AWS_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=lab", "AWS_SECRET_ACCESS_KEY=lab", "AWS_EC2_METADATA_DISABLED=true",
	}, l.Bin("ebb-worker"), "--listen", "127.0.0.1:0", "--poll", "100ms", "--settle", "3s")
	return err
}

// KillWorker kills the control worker.
func (l *Lab) KillWorker() { l.worker.kill() }

// StartAgent starts the agent of node i, which must be up.
func (l *Lab) StartAgent(ctx context.Context, i int) error {
	n := l.Nodes[i]
	imds := l.EC2.IMDSURL(NodeID(i))
	log, err := os.OpenFile(filepath.Join(l.Dir, "agent-"+n.ID()+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	p, err := n.Start(context.WithoutCancel(ctx), node.Command{
		Path: l.Bin("ebb-agent"), Args: []string{"--listen", "127.0.0.1:9465", "--log-format", "text"},
		Env: []string{
			"TEMPORAL_ADDRESS=" + net.JoinHostPort(n.HostAddress(), strconv.Itoa(l.temporalPort)), "TEMPORAL_CONFIG_FILE=/nonexistent",
			"AWS_EC2_METADATA_SERVICE_ENDPOINT=" + strings.Replace(imds, "127.0.0.1", n.HostAddress(), 1),
		},
		Stdout: log, Stderr: log,
	})
	if err != nil {
		_ = log.Close()
		return err
	}
	go func() { // ends with the agent
		<-p.Done()
		_ = log.Close()
	}()
	l.mu.Lock()
	l.agents[n.ID()] = p
	l.mu.Unlock()
	return nil
}

// EC2Client is a client of EC2, as the worker's.
func (l *Lab) EC2Client() *ec2.Client {
	return ec2.New(ec2.Options{Region: "us-east-1", BaseEndpoint: aws.String(l.EC2.URL()), Credentials: credentials.NewStaticCredentialsProvider("lab", "lab", "")})
}

// until repeats try every 50 ms until it succeeds.
func (l *Lab) until(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, err)
		case <-tick.C:
		}
	}
}

// Until waits for a condition, for tests and the demo.
func (l *Lab) Until(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	return l.until(ctx, limit, what, try)
}

// Close ends every part, nodes first.
func (l *Lab) Close() error {
	var errs []error
	for _, n := range l.Nodes {
		errs = append(errs, n.PowerCut())
	}
	l.worker.kill()
	if l.EC2 != nil {
		errs = append(errs, l.EC2.Close())
	}
	if l.client != nil {
		l.client.Close()
	}
	l.temporal.kill()
	return errors.Join(errs...)
}

// freePorts finds ports nobody listens on.
func freePorts(n int) ([]int, error) {
	var out []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out, nil
}
