package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/ebb-storage/ebb/tests/node"
)

// ExitError is a command's exit code and what it printed.
type ExitError struct {
	Args   []string
	Code   int
	Output string
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("ebb %s: exit code %d: %s", strings.Join(e.Args, " "), e.Code, e.Output)
}

// Ebb runs the ebb command and returns what it wrote to stdout. An exit code
// other than 0 is an *ExitError.
func (l *Lab) Ebb(ctx context.Context, args ...string) (string, error) {
	var out, talk bytes.Buffer
	cmd := exec.CommandContext(ctx, l.Bin("ebb"), args...)
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+l.Temporal(), "TEMPORAL_CONFIG_FILE=/nonexistent")
	cmd.Stdout = &out
	cmd.Stderr = io.MultiWriter(&talk, l.Output)
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), &ExitError{args, exit.ExitCode(), out.String() + talk.String()}
	}
	return out.String(), err
}

// EbbJSON runs the command with -o json and decodes what it prints.
func (l *Lab) EbbJSON(ctx context.Context, into any, args ...string) error {
	out, err := l.Ebb(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("ebb %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Sh runs a shell script in node i and returns its output.
func (l *Lab) Sh(ctx context.Context, i int, script string) (string, error) {
	var out bytes.Buffer
	code, err := l.Nodes[i].Exec(ctx, node.Command{Path: "sh", Args: []string{"-ec", script}, Stdout: &out, Stderr: &out})
	if err == nil && code != 0 {
		err = fmt.Errorf("on %s: %s: exit code %d: %s", NodeID(i), script, code, out.String())
	}
	return strings.TrimSpace(out.String()), err
}
