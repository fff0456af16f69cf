package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/cmd"
	"github.com/ebb-storage/ebb/starter/internal/ui"
	"github.com/ebb-storage/ebb/tests/devserver"
	"github.com/ebb-storage/ebb/workflows"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ebb": main})
}

// startTemporal starts a real server for a test, with more namespaces than "default".
func startTemporal(ctx context.Context, t *testing.T, namespaces ...string) *testsuite.DevServer {
	t.Helper()
	var args []string
	for _, n := range namespaces {
		args = append(args, "--namespace", n)
	}
	server, err := testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		ExistingPath: devserver.Need(t), LogLevel: "error", ExtraArgs: args, ClientOptions: &client.Options{Logger: quiet{}},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop() })
	return server
}

// TestStories runs the command as people do, against a real Temporal server and
// a worker whose operations are stubs. The namespace "default" is set up and
// has a worker; "fresh" is as Temporal made it, "idle" is set up and has no worker; "fleet" and
// "herd" have a fleet each, "edits" nothing.
func TestStories(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	server := startTemporal(ctx, t, "fresh", "idle", "fleet", "herd", "edits")
	address := server.FrontendHostPort()

	var out, talk bytes.Buffer
	code := cmd.Main(ctx, "test", []string{"setup", "--address", address}, ui.Streams{Out: &out, Err: &talk})
	require.Zero(t, code, "setup: %s", talk.String())

	// Fleets in namespaces of their own: one for the story, one for the formats.
	for _, namespace := range []string{"fleet", "herd"} {
		code := cmd.Main(ctx, "test", []string{"setup", "--address", address, "--namespace", namespace}, ui.Streams{Out: &out, Err: &talk})
		require.Zero(t, code, "setup: %s", talk.String())
		smallHerd().serve(t, address, namespace)
	}

	w := newWorld()
	control := worker.New(server.Client(), contract.ControlQueue, worker.Options{MaxHeartbeatThrottleInterval: 20 * time.Millisecond, DefaultHeartbeatThrottleInterval: 20 * time.Millisecond})
	workflows.RegisterInspect(control)
	w.register(control)
	require.NoError(t, control.Start())
	t.Cleanup(control.Stop)
	node := worker.New(server.Client(), contract.NodeQueue(nodeA), worker.Options{})
	w.registerNode(node)
	require.NoError(t, node.Start())
	t.Cleanup(node.Stop)

	t.Run("by hand", func(t *testing.T) { byHand(t, address, filepath.Dir(devserver.Need(t))) })

	t.Run("edits at the same time", func(t *testing.T) { editsAtTheSameTime(t, address) })
	t.Run("nobody works", func(t *testing.T) { nobodyWorks(t, address) })
	t.Run("Temporal goes away", func(t *testing.T) { temporalGoesAway(t, address) })

	// A group, so that the server outlives the parallel scripts.
	t.Run("group", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "testdata",
			Setup: func(env *testscript.Env) error {
				env.Setenv("TEMPORAL_ADDRESS", address)
				env.Setenv("HOME", env.WorkDir)
				env.Setenv("TZ", "UTC")
				env.Setenv("NODE_A", nodeA)
				env.Setenv("TEMPORAL", devserver.Need(t))
				env.Setenv("NODE_DEAD", nodeDead)
				env.Setenv("NODE_ELSEWHERE", nodeElsewhere)
				return nil
			},
			Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "until": until, "data": data, "parses": parses},
			RequireExplicitExec: true,
		})
	})
}

// byHand runs the shell blocks of docs/by-hand.md as they are written, in the
// order of the page. After a block that starts an operation it waits until that
// has ended, and it gives the signals a shrink that does not end by itself.
func byHand(t *testing.T, address, bin string) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "by-hand.md"))
	require.NoError(t, err)
	var script strings.Builder
	script.WriteString("set -eux; PATH=" + bin + ":$PATH\nended() { timeout 30 temporal workflow result --workflow-id disk/$DISK; }\n")
	starts := regexp.MustCompile(`workflow (start|signal-with-start) `)
	for _, b := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		block := regexp.MustCompile(`i-[0-9a-f]{17}`).ReplaceAllString(b[1], nodeA)
		if strings.Contains(block, "search-attribute create") {
			continue // done already, by ebb setup
		}
		if strings.Contains(block, "--name pause") {
			block = "temporal workflow start --type Shrink --task-queue ebb-control --workflow-id disk/$DISK " +
				"--input '{\"disk\":\"'$DISK'\",\"throttleMiBs\":1}'\n" + block + "ended\n"
		}
		script.WriteString(block)
		if starts.MatchString(block) {
			script.WriteString("ended\n")
		}
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", script.String())
	c.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+address, "HOME="+t.TempDir())
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, want := range []string{`"outcome":"planned"`, `"operation":"Rehome","outcome":"done"`, `"outcome":"cancelled"`, `"operation":"DeleteDisk","outcome":"done"`, `"measurement":`, `"preflight":`} {
		require.Contains(t, string(out), want)
	}
	for _, not := range []string{`"outcome":"refused"`, "FAILED"} {
		require.NotContains(t, string(out), not)
	}
}

// exits CODE COMMAND... runs a command that must end with this code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		got = ee.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// until PATTERN COMMAND... runs a command until its output matches.
func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern, err := regexp.Compile(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...)
		if pattern.MatchString(ts.ReadFile("stdout")) || pattern.MatchString(ts.ReadFile("stderr")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no match for %q in 20 s; last output:\n%s%s", pattern, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

// quiet drops the SDK's log.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
