package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// signalOptions are common to the commands that steer a running operation.
type signalOptions struct{ dryRun bool }

func (o *signalOptions) bind(c *cobra.Command) {
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show which operation would be told; tell it nothing")
}

// signalled is what a steering command prints.
type signalled struct {
	Disk      contract.DiskID `json:"disk"`
	Name      string          `json:"name,omitempty"`
	Operation string          `json:"operation"`
	Phase     contract.Phase  `json:"phase,omitempty"`
	RunID     string          `json:"runId"`
	Signal    string          `json:"signal"`
	Payload   any             `json:"payload,omitempty"`
	DryRun    bool            `json:"dryRun,omitempty"`
}

// signal tells the operation that runs on a disk something; then, when it is
// not nil, does what comes after.
func (a *app) signal(ctx context.Context, ref, name string, payload any, o signalOptions, then func(*control.Client, *control.Run) error) error {
	return a.withClient(ctx, func(c *control.Client) error {
		d, err := c.ResolveRunning(ctx, ref)
		if err != nil {
			return err
		}
		run, running, err := c.Attach(ctx, d)
		if err != nil {
			return err
		}
		if !o.dryRun {
			if err := c.Signal(ctx, running, name, payload); err != nil {
				return err
			}
		}
		if then != nil && !o.dryRun {
			return then(c, run)
		}
		s := signalled{d.ID, running.Disk.Name, running.Operation, running.Phase, running.RunID, name, payload, o.dryRun}
		return a.output.Print(a.streams.Out, s, func(w io.Writer) error {
			told := "was told to "
			if o.dryRun {
				told = "would be told to "
			}
			_, err := fmt.Fprintf(w, "%s of disk %s %s%s\n", ui.Clean(control.Verb(s.Operation)), ui.Clean(running.Disk.String()), told, what(name, payload))
			return err
		})
	})
}

func what(signal string, payload any) string {
	if t, ok := payload.(contract.Throttle); ok {
		if t.MiBs == 0 {
			return "copy without limit"
		}
		return fmt.Sprintf("copy at no more than %d MiB/s", t.MiBs)
	}
	return signal
}
