package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// operateOptions are common to the commands that start an operation.
type operateOptions struct {
	detach bool
	dryRun bool
}

func (o *operateOptions) bind(c *cobra.Command) {
	c.Flags().BoolVar(&o.detach, "detach", false, "start and return; follow with ebb watch")
	o.bindDryRun(c)
}

func (o *operateOptions) bindDryRun(c *cobra.Command) {
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "check and show the steps; change nothing")
}

// started is what --detach prints.
type started struct {
	Disk       contract.DiskID `json:"disk"`
	Name       string          `json:"name,omitempty"`
	Operation  string          `json:"operation"`
	WorkflowID string          `json:"workflowId"`
	RunID      string          `json:"runId"`
}

// operate starts an operation and follows it to its end.
func (a *app) operate(ctx context.Context, c *control.Client, op control.Operation, o operateOptions) error {
	run, err := c.Start(ctx, op)
	if err != nil {
		return err
	}
	if o.detach {
		return a.printStarted(run)
	}
	return a.follow(ctx, c, run, a.streams.Err, nil)
}

func (a *app) printStarted(run *control.Run) error {
	s := started{run.Disk.ID, run.Disk.Name, run.Operation, run.WorkflowID(), run.RunID()}
	err := a.output.Print(a.streams.Out, s, func(w io.Writer) error {
		return ui.Fields(w, ui.Field{Name: "disk", Value: run.Disk.String()}, ui.Field{Name: "operation", Value: control.Verb(s.Operation)},
			ui.Field{Name: "workflow", Value: s.WorkflowID}, ui.Field{Name: "run", Value: s.RunID})
	})
	a.streams.Say("watch it with: ebb watch %s", run.Disk.Ref())
	return err
}

// follow shows an operation on progress until it ends, prints its result as
// data, and turns Ctrl-C into a detachment.
func (a *app) follow(ctx context.Context, c *control.Client, run *control.Run, progress io.Writer, until func(contract.Progress) bool) error {
	w := ui.NewWatcher(progress)
	result, err := c.Follow(ctx, run, a.refresh, func(s control.Snapshot) { w.Show(state(run, s)) }, until)
	w.Close()
	return a.finish(run, result, err)
}

// finish prints the result of a followed operation.
func (a *app) finish(run *control.Run, result *contract.Result, err error) error {
	if errors.Is(err, context.Canceled) {
		return detached(run)
	}
	if result != nil && (err == nil || a.output != ui.TableFormat) {
		if perr := a.output.Print(a.streams.Out, result, func(w io.Writer) error { return resultTable(w, run, *result) }); perr != nil {
			return perr
		}
	}
	return err
}

func detached(run *control.Run) error {
	return exit.New(exit.Detached, "Detached. The %s of disk %s goes on.\n  watch it:  ebb watch %s\n  cancel it: ebb cancel %s",
		control.Verb(run.Operation), run.Disk, run.Disk.Ref(), run.Disk.Ref())
}

// state is a snapshot for the screen.
func state(run *control.Run, s control.Snapshot) ui.State {
	out := ui.State{
		Title: control.Verb(run.Operation) + " " + run.Disk.Ref(), Phase: string(s.Phase),
		Step: s.Step, Steps: s.Steps, Paused: s.Paused, Note: s.Waiting,
	}
	if s.ToGiB > 0 && s.FromGiB > 0 && s.FromGiB != s.ToGiB {
		out.Title += fmt.Sprintf(" %d -> %d GiB", s.FromGiB, s.ToGiB)
	}
	if s.Trouble != "" {
		out.Note = s.Trouble
	}
	// A heartbeat of an earlier phase says nothing about this one.
	if s.Copy != nil && (s.Copy.Phase == "" || s.Copy.Phase == s.Phase) {
		out.Done, out.Total, out.MiBs = s.Copy.DoneBytes, s.Copy.TotalBytes, s.Copy.RateMiBs
		out.ETA = time.Duration(s.Copy.ETASeconds * float64(time.Second))
	}
	return out
}

// resultTable is a result for people.
func resultTable(w io.Writer, run *control.Run, r contract.Result) error {
	backing := ""
	switch {
	case r.BeforeGiB != 0 && r.AfterGiB != 0 && r.BeforeGiB != r.AfterGiB:
		backing = fmt.Sprintf("%d GiB -> %d GiB", r.BeforeGiB, r.AfterGiB)
	case r.AfterGiB != 0:
		backing = fmt.Sprintf("%d GiB", r.AfterGiB)
	}
	pauses := make([]string, len(r.SwapPausesMS))
	for i, p := range r.SwapPausesMS {
		pauses[i] = fmt.Sprintf("%.1f ms", p)
	}
	fields := []ui.Field{
		{Name: "disk", Value: run.Disk.String()},
		{Name: "operation", Value: control.Verb(r.Operation)},
		{Name: "outcome", Value: string(r.Outcome)},
		{Name: "backing", Value: backing},
		{Name: "used", Value: bytesOrNone(r.UsedBytes)},
		{Name: "copied", Value: bytesOrNone(r.CopiedBytes)},
		{Name: "verified", Value: bytesOrNone(r.VerifiedBytes)},
		{Name: "writes paused", Value: strings.Join(pauses, ", ")},
		{Name: "node", Value: r.Node},
		{Name: "volumes", Value: strings.Join(r.Volumes, ", ")},
		{Name: "retired", Value: strings.Join(r.Retired, ", ")},
		{Name: "snapshot", Value: r.Snapshot},
	}
	for i, s := range r.Steps {
		fields = append(fields, ui.Field{Name: fmt.Sprintf("step %d", i+1), Value: s})
	}
	if r.Outcome == contract.Done && r.Refusal != nil { // the disk is as wanted, something beside it is not
		fields = append(fields, ui.Field{Name: "left", Value: r.Refusal.Error()})
	}
	return ui.Fields(w, fields...)
}

func bytesOrNone(b int64) string {
	if b == 0 {
		return ""
	}
	return size.Bytes(b)
}

// invalid makes a usage error of an input that does not validate.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	return exit.New(exit.Usage, "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
}

// diskArg is the argument rule of commands on one disk.
func diskArg(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return exit.New(exit.Usage, "want one DISK, got %d arguments", len(args)).WithNext("%s --help", c.CommandPath())
	}
	return nil
}

// completeDisk offers the names (or ids) of disks to the shell. It is quiet when
// Temporal is slow or away.
func (a *app) completeDisk(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), 3*time.Second)
	defer cancel()
	var out []cobra.Completion
	_ = a.withClient(ctx, func(cl *control.Client) error {
		fleet, err := cl.Fleet(ctx)
		for _, f := range fleet.Disks {
			d := control.Disk{ID: f.Disk, Name: f.Name}
			out = append(out, cobra.CompletionWithDesc(d.Ref(), string(d.ID)))
		}
		return err
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}
