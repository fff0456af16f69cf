// Package nodetest lets the tests of any package boot nodes, and run themselves inside one:
//
//	func TestInNode(t *testing.T) { // on the host
//		n := nodetest.Boot(t, node.Options{})
//		nodetest.AttachVolume(t, n, "vol-1", 2<<30)
//		nodetest.Run(t, n, "^TestNode")
//	}
//
//	func TestNodeFormat(t *testing.T) { // in the node
//		host := nodetest.Host(t)                  // skips on the host
//		dev := node.VolumePath("vol-1")
//		host.Resize("vol-1", 4<<30)               // what EC2 would do
//		host.SetFault("vol-1", node.Fault{Kind: node.FaultErrorWrites})
//	}
package nodetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
)

// Inside tells whether the calling test runs inside a node.
func Inside() bool { return os.Getenv(node.InsideEnv) == "1" }

// New makes a node that ends with the test, without booting it. It skips the test when this machine
// cannot run nodes, and inside a node. An empty Kind, ID or Dir is filled in: the Kind by node.SoloKind,
// for tests that have one node at a time.
func New(t testing.TB, o node.Options) node.Node {
	t.Helper()
	if Inside() {
		t.Skip("boots a node, so it does not run inside one")
	}
	if o.Kind == "" {
		o.Kind = node.SoloKind()
	}
	if o.ID == "" {
		o.ID = "i-test"
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Share = append(o.Share, checkout(t))
	n, err := node.New(o)
	if errors.Is(err, node.ErrUnavailable) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, n.PowerCut())
		if t.Failed() {
			if b, err := os.ReadFile(n.Console()); err == nil {
				t.Logf("console of %s:\n%s", n.ID(), b[max(0, len(b)-8000):])
			}
		}
	})
	return n
}

// checkout is the module's root directory: tests run in their package's, which a
// node does not see by itself when it lies below /tmp.
func checkout(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for up := dir; up != filepath.Dir(up); up = filepath.Dir(up) {
		if _, err := os.Stat(filepath.Join(up, "go.mod")); err == nil {
			return up
		}
	}
	return dir
}

// Boot makes and boots a node that ends with the test; see New.
func Boot(t testing.TB, o node.Options) node.Node {
	t.Helper()
	n := New(t, o)
	require.NoError(t, n.Boot(t.Context()))
	return n
}

// VolumeFile is the host's file behind a volume that AttachVolume made.
func VolumeFile(n node.Node, volumeID string) string { return filepath.Join(n.Dir(), volumeID+".img") }

// AttachVolume attaches a volume whose file lies in the node's directory: an empty one, or what an earlier
// attachment left there.
func AttachVolume(t testing.TB, n node.Node, volumeID string, sizeBytes int64) {
	t.Helper()
	require.NoError(t, n.Attach(t.Context(), volumeID, "", VolumeFile(n, volumeID), sizeBytes))
}

// Shell runs a shell script in a node, which must succeed, and returns its trimmed output.
func Shell(t testing.TB, n node.Node, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	code, err := n.Exec(ctx, node.Command{Path: "sh", Args: []string{"-ec", script}, Stdout: &out, Stderr: &out})
	require.NoError(t, err, "%s: %s", script, &out)
	require.Zero(t, code, "%s: %s", script, &out)
	return strings.TrimSpace(out.String())
}

// Run runs those tests of the calling package that match a regular expression inside a node, and reports
// each of them as a subtest when all have ended; until then their output grows in tests.log of the node's
// directory. It fails when none matches. env is added to their environment.
func Run(t *testing.T, n node.Node, run string, env ...string) {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	binary, err := os.Executable()
	require.NoError(t, err)
	if raceEnabled { // the race detector does not run on the node's kernel
		binary = filepath.Join(t.TempDir(), "static.test")
		require.NoError(t, node.BuildTestBinary(t.Context(), ".", binary))
	}
	control, stop := serveControl(t, n)
	defer stop()
	r := node.TestRun{Run: run, Dir: dir, Env: append([]string{controlEnv + "=" + control}, env...)}
	if testing.Short() {
		r.Args = append(r.Args, "-test.short")
	}
	if deadline, ok := t.Deadline(); ok { // a little less, to see its stacks
		r.Args = append(r.Args, fmt.Sprintf("-test.timeout=%s", time.Until(deadline)*9/10))
	}
	var out bytes.Buffer
	live, err := os.Create(filepath.Join(n.Dir(), "tests.log")) // to be watched meanwhile
	require.NoError(t, err)
	defer func() { _ = live.Close() }()
	both := io.MultiWriter(&out, live)
	r.Stdout, r.Stderr = both, both
	code, err := node.RunTestBinary(t.Context(), n, binary, r)
	ran := report(t, out.String())
	require.NoError(t, err, "%s", &out)
	if code != 0 && !t.Failed() {
		t.Errorf("tests inside %s ended with exit code %d:\n%s", n.ID(), code, &out)
	}
	require.NotZero(t, ran, "no test matches %q:\n%s", run, &out)
}

// report turns the output of go test -v into subtests and returns how many tests there were.
func report(t *testing.T, out string) int {
	t.Helper()
	text := map[string]*strings.Builder{}
	var names []string
	current := ""
	for line := range strings.Lines(out) {
		for _, mark := range []string{"=== RUN   ", "=== CONT  ", "=== NAME  ", "--- FAIL: ", "--- PASS: ", "--- SKIP: "} {
			rest, ok := strings.CutPrefix(line, mark)
			if !ok {
				continue
			}
			name, _, _ := strings.Cut(strings.Fields(rest + " -")[0], "/")
			if text[name] == nil {
				text[name] = &strings.Builder{}
				names = append(names, name)
			}
			current = name
		}
		if b := text[current]; b != nil {
			b.WriteString(line)
		}
	}
	for _, name := range names {
		body := text[name].String()
		t.Run(name, func(t *testing.T) {
			switch {
			case strings.Contains(body, "--- PASS: "+name+" ("):
				if testing.Verbose() {
					t.Log("in the node:\n" + body)
				}
			case strings.Contains(body, "--- SKIP: "+name+" ("):
				t.Skip("in the node:\n" + body)
			default:
				t.Error("in the node:\n" + body)
			}
		})
	}
	return len(names)
}
