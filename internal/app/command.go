package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Exit codes, as every program's help says.
const (
	ExitOK = iota
	ExitFailed
	ExitUsage
	ExitRefused
)

// UsageError is a mistake on the command line.
type UsageError struct{ error }

// Unwrap gives the mistake itself.
func (e UsageError) Unwrap() error { return e.error }

// Main runs cmd with args until it ends, or until SIGINT or SIGTERM cancels its
// context; a second signal ends the process at once. It says on errs what went
// wrong and returns the exit code.
func Main(cmd *cobra.Command, args []string, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	name := cmd.Name()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return UsageError{err} })
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	var usage UsageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(errs, "%s: %v\nsee: %[1]s --help\n", name, err)
		return ExitUsage
	}
	_, _ = fmt.Fprintf(errs, "%s: %v\n", name, err)
	if _, ok := contract.AsRefusal(err); ok {
		return ExitRefused
	}
	return ExitFailed
}

// NoArgs refuses arguments, and with them commands that do not exist.
func NoArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("unknown command or argument %q", args[0])
	}
	return nil
}

// EnvOr is an environment variable, or otherwise where that is empty.
func EnvOr(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}
