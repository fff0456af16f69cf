package app_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/app"
	"github.com/ebb-storage/ebb/internal/contract"
)

func TestMainExitCodes(t *testing.T) {
	for _, tt := range []struct {
		args []string
		err  error
		code int
		says string
	}{
		{code: app.ExitOK},
		{err: errors.New("broken"), code: app.ExitFailed, says: "prog: broken\n"},
		{err: contract.Refuse(contract.NodeUnsupported, "no"), code: app.ExitRefused, says: "NodeUnsupported"},
		{err: app.Usagef("-o %q: want table", "x"), code: app.ExitUsage, says: "see: prog --help"},
		{args: []string{"nonsense"}, code: app.ExitUsage, says: "nonsense"},
		{args: []string{"--bogus"}, code: app.ExitUsage, says: "bogus"},
	} {
		var errs bytes.Buffer
		cmd := &cobra.Command{Use: "prog", Args: app.NoArgs, RunE: func(*cobra.Command, []string) error { return tt.err }}
		require.Equal(t, tt.code, app.Main(cmd, append([]string{}, tt.args...), &errs))
		require.Contains(t, errs.String(), tt.says)
	}
}

func TestLog(t *testing.T) {
	for _, ok := range []app.Log{{"debug", "json"}, {"warn", "text"}, {"error", "auto"}} {
		log, err := ok.New()
		require.NoError(t, err)
		require.NotNil(t, log)
	}
	for _, bad := range []app.Log{{"loud", "json"}, {"info", "xml"}, {}} {
		_, err := bad.New()
		var usage app.UsageError
		require.ErrorAs(t, err, &usage)
	}
}

// program is an Application over Hooks.
type program struct {
	err         error
	start, stop func(context.Context) error
	done        chan os.Signal
}

func (p *program) Err() error                      { return p.err }
func (p *program) Start(ctx context.Context) error { return p.start(ctx) }
func (p *program) Stop(ctx context.Context) error  { return p.stop(ctx) }
func (p *program) Done() <-chan os.Signal          { return p.done }

func newProgram(run func(context.Context) error, closing func() error) (*program, app.Outcome) {
	p, result := &program{done: make(chan os.Signal, 1)}, app.NewOutcome()
	p.start, p.stop = app.Hooks(run, func() { p.done <- os.Interrupt }, closing, result, "late")
	return p, result
}

func TestRun(t *testing.T) {
	broken := errors.New("broken")
	p, result := newProgram(func(context.Context) error { return broken }, nil)
	require.ErrorIs(t, app.Run(t.Context(), p, result), broken, "it ended by itself")

	ctx, cancel := context.WithCancel(t.Context())
	closed := false
	p, result = newProgram(func(ctx context.Context) error { cancel(); <-ctx.Done(); return nil }, func() error { closed = true; return nil })
	require.NoError(t, app.Run(ctx, p, result), "stopped as asked")
	require.True(t, closed)

	p, result = newProgram(nil, nil)
	p.err = broken
	require.ErrorIs(t, app.Run(t.Context(), p, result), broken, "not wired")
}

func TestStopInTime(t *testing.T) {
	block := make(chan struct{})
	p, result := newProgram(func(context.Context) error { <-block; return nil }, nil)
	require.NoError(t, p.Start(t.Context()))
	stopping, cancel := context.WithCancel(t.Context())
	cancel()
	require.EqualError(t, p.Stop(stopping), "late")
	close(block)
	require.NoError(t, <-result)
}

func TestEnvOr(t *testing.T) {
	t.Setenv("EBB_TEST", "")
	require.Equal(t, "x", app.EnvOr("EBB_TEST", "x"))
	t.Setenv("EBB_TEST", "y")
	require.Equal(t, "y", app.EnvOr("EBB_TEST", "x"))
}
