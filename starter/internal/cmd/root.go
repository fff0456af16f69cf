// Package cmd is the ebb command: one file per subcommand, each with newX
// (flags and help), xOptions (what the flags say) and runX (what it does).
package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// app is what all commands share.
type app struct {
	streams  ui.Streams
	version  string
	settings control.Settings
	output   ui.Format
	noColor  bool
	debug    bool
	refresh  time.Duration // how often a watched operation is asked how far it is
	running  bool          // the command line was understood
}

// Main runs the command line and returns the process's exit code. Cancelling
// ctx (Ctrl-C) detaches from a running operation and leaves it running.
func Main(ctx context.Context, version string, args []string, streams ui.Streams) exit.Code {
	a := &app{streams: streams, version: version, output: ui.TableFormat}
	root := a.newRoot()
	root.SetArgs(args)
	a.markRunning(root)
	ran, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exit.Done
	}
	var coded *exit.Error
	if !a.running && !errors.As(err, &coded) {
		err = exit.New(exit.Usage, "").Because(err).WithNext("%s --help", ran.CommandPath())
	}
	if errors.Is(err, context.Canceled) && exit.CodeOf(err) != exit.Detached {
		err = exit.New(exit.Detached, "interrupted")
	}
	a.printError(err, args)
	return exit.CodeOf(err)
}

func (a *app) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "ebb",
		Short: "Grow and shrink live disks on EBS",
		Long: `ebb makes cloud block storage follow the data: the EBS volumes behind a mounted
filesystem grow when it fills and shrink when files are deleted, while the
application keeps running.

Every operation is a durable Temporal workflow. ebb starts it and shows how far
it is; it goes on when ebb is gone. ebb itself needs no AWS credentials: it
speaks to Temporal alone.

DISK is a disk's id, its name, or the beginning of its id if no other begins so.
Sizes are written 64GiB (or 64Gi), rates 200MiB/s.

Connection: --address, --namespace and --profile, else the TEMPORAL_* environment
and Temporal's configuration file, as for the temporal command.

Data goes to standard output (-o table, json or yaml), everything else to
standard error; with -o json or yaml errors are in that format too. Colors and
bars appear on a terminal only; NO_COLOR is honored.

` + exitHelp(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		Version:       a.versionInfo().Version,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(a.streams.Out)
	root.SetErr(a.streams.Err)
	root.SetIn(a.streams.In)
	pf := root.PersistentFlags()
	pf.VarP(&a.output, "output", "o", "table, json or yaml")
	pf.StringVar(&a.settings.Address, "address", "", "Temporal's host:port (default TEMPORAL_ADDRESS, profile, localhost:7233)")
	pf.StringVar(&a.settings.Namespace, "namespace", "", "Temporal namespace (default TEMPORAL_NAMESPACE, profile, default)")
	pf.StringVar(&a.settings.Profile, "profile", "", "profile in Temporal's configuration file (default TEMPORAL_PROFILE, default)")
	pf.BoolVar(&a.noColor, "no-color", false, "no colors, even on a terminal")
	pf.DurationVar(&a.refresh, "refresh", time.Second, "how often to ask a watched operation how far it is")
	_ = pf.MarkHidden("refresh")
	pf.BoolVar(&a.debug, "debug", false, "log the calls to Temporal on standard error")
	root.PersistentPreRun = func(*cobra.Command, []string) {
		a.refresh = max(a.refresh, 10*time.Millisecond)
		a.streams.Plain = a.streams.Plain || a.noColor
	}
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(
		a.newSetup(), a.newDisk(), a.newGrow(), a.newShrink(), a.newRetype(), a.newExpand(), a.newWatch(),
		a.newPause(), a.newResume(), a.newCancel(), a.newThrottle(), a.newPreflight(), a.newPolicy(), a.newPrice(), a.newSimulate(),
		a.newSchedule(), a.newMode(), a.newPlan(), a.newProposals(), a.newApprove(), a.newReject(), a.newHeadroom(), a.newReap(),
		a.newReport(), a.newTop(),
		a.newVersion(), a.newDocs(),
	)
	return root
}

// markRunning notes, for every command, when its own work begins: all errors
// before that are about the command line.
func (a *app) markRunning(c *cobra.Command) {
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			a.running = true
			return run(c, args)
		}
	}
	for _, sub := range c.Commands() {
		a.markRunning(sub)
	}
}

func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for _, c := range exit.Codes() {
		fmt.Fprintf(&b, "  %3d  %s\n", c.Code, c.Meaning)
	}
	return strings.TrimRight(b.String(), "\n")
}

// connect reaches Temporal. The caller closes the client.
func (a *app) connect(ctx context.Context) (*control.Client, error) {
	level := slog.LevelError + 100 // nothing: errors are reported once, by us
	if a.debug {
		level = slog.LevelDebug
	}
	a.settings.Logger = slog.New(slog.NewTextHandler(a.streams.Err, &slog.HandlerOptions{Level: level}))
	return control.Connect(ctx, a.settings)
}

// withClient is for commands that need Temporal.
func (a *app) withClient(ctx context.Context, run func(*control.Client) error) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return run(c)
}

// withDisk is withClient for a command on the disk that ref names.
func (a *app) withDisk(ctx context.Context, ref string, run func(*control.Client, control.Disk) error) error {
	return a.withClient(ctx, func(c *control.Client) error {
		d, err := c.Resolve(ctx, ref)
		if err != nil {
			return err
		}
		return run(c, d)
	})
}

// errorBody is an error under -o json.
type errorBody struct {
	Error errorDetail `json:"error"`
}

type errorDetail struct {
	Kind    string          `json:"kind"`
	Exit    exit.Code       `json:"exitCode"`
	Message string          `json:"message"`
	Next    string          `json:"next,omitempty"`
	Refusal json.RawMessage `json:"refusal,omitempty"`
}

func (a *app) printError(err error, args []string) {
	code := exit.CodeOf(err)
	var e *exit.Error
	errors.As(err, &e)
	if format := a.errorFormat(args); format != ui.TableFormat {
		d := errorDetail{Kind: code.Kind(), Exit: code, Message: err.Error()}
		if e != nil {
			d.Next = e.Next
			if e.Refusal != nil {
				d.Refusal, _ = json.Marshal(e.Refusal)
			}
		}
		_ = format.Print(a.streams.Err, errorBody{d}, nil)
		return
	}
	if code == exit.Detached {
		a.streams.Say("%s", ui.CleanLines(err.Error()))
	} else {
		a.streams.Say("%s %s", a.streams.Paint(a.streams.Err, ui.Bad, "ebb:"), ui.CleanLines(err.Error()))
	}
	if e != nil && e.Next != "" {
		a.streams.Say("next: %s", ui.CleanLines(e.Next))
	}
}

// errorFormat is -o, even when the command line could not be parsed up to it.
func (a *app) errorFormat(args []string) ui.Format {
	if a.running || a.output != ui.TableFormat {
		return a.output
	}
	for _, f := range []ui.Format{ui.JSONFormat, ui.YAMLFormat} {
		if i := slices.IndexFunc(args, func(s string) bool { return s == "-o" || s == "--output" }); i >= 0 && i+1 < len(args) && args[i+1] == string(f) {
			return f
		}
		if slices.ContainsFunc(args, func(s string) bool { return s == "-o"+string(f) || s == "-o="+string(f) || s == "--output="+string(f) }) {
			return f
		}
	}
	return ui.TableFormat
}
