package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// TestRun says which tests to run inside a node and how.
type TestRun struct {
	// Run is the regular expression of -test.run; "" is every test.
	Run string
	// Dir is the working directory, normally the package's; "" is "/".
	Dir string
	// Args are further flags, such as "-test.timeout=5m".
	Args []string
	// Env is added to the environment, in which InsideEnv is set.
	Env []string
	// Stdout and Stderr get the tests' output.
	Stdout, Stderr io.Writer
}

// BuildTestBinary compiles the tests of a package into a static program, as go test -c does.
func BuildTestBinary(ctx context.Context, pkg, output string) error {
	return goTool(ctx, "test", "-c", "-o", output, pkg)
}

// RunTestBinary runs a compiled test binary of the host inside a node and returns its exit code: 0 when
// all tests passed. The binary is copied to where the node sees it.
func RunTestBinary(ctx context.Context, n Node, binary string, r TestRun) (exitCode int, err error) {
	inside := filepath.Join(n.Dir(), filepath.Base(binary))
	if inside != binary {
		if err := copyFile(inside, binary); err != nil {
			return -1, fmt.Errorf("run tests in %s: %w", n.ID(), err)
		}
		defer func() { _ = os.Remove(inside) }()
	}
	args := append([]string{"-test.v", "-test.run=" + r.Run, "-test.paniconexit0"}, r.Args...)
	return n.Exec(ctx, Command{
		Path: inside, Args: args, Dir: r.Dir, Env: append([]string{InsideEnv + "=1"}, r.Env...),
		Stdout: r.Stdout, Stderr: r.Stderr,
	})
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
