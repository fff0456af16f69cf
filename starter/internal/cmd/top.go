package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/fleet"
	"github.com/ebb-storage/ebb/starter/internal/size"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

type topOptions struct {
	every size.DurationFlag
	once  bool
	rows  int
	sort  string
	node  string
}

// Bounds of what a live view asks.
const (
	// manyDisks are measured no more often than manyEvery: each measurement is an
	// activity on a node.
	manyDisks = 500
	manyEvery = time.Minute
	// largeEvery is for fleets that are asked node by node.
	largeEvery = 5 * time.Minute
	leastTop   = time.Second
)

func (a *app) newTop() *cobra.Command {
	o := topOptions{every: size.DurationFlag(5 * time.Second), rows: 20, sort: "used"}
	sorts := []string{"used", "free", "fill", "saving"}
	c := &cobra.Command{
		Use:   "top",
		Short: "Watch the fleet: totals, disks in trouble, running operations",
		Long: `Watch the fleet live: what is used of the backings, what they save, the operations
that run with their progress, and the disks, those in trouble first: full (writes
wait), full within an hour at the present rate, at their ceiling and nearly full, not
measured. q or Ctrl-C ends it.

With --once, with -o json or yaml, or where no terminal is, it prints one page and
ends. Fleets of more than 500 disks are measured once a minute at most, those of
more than 2,000 every five minutes, node by node; the page says how old its figures are. Operations are looked at every time.`,
		Example: "  ebb top\n  ebb top --once --sort fill -n 5\n  ebb top -o json | jq .totals",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case o.rows < 1:
				return exit.New(exit.Usage, "-n %d: want 1 or more", o.rows)
			case time.Duration(o.every) < leastTop:
				return exit.New(exit.Usage, "--every %s: want 1s or more", &o.every)
			case o.sort != "used" && o.sort != "free" && o.sort != "fill" && o.sort != "saving":
				return exit.New(exit.Usage, "--sort %q: want used, free, fill or saving", o.sort)
			}
			if err := invalid((contract.InspectInput{Node: o.node}).Validate()); err != nil {
				return err
			}
			return a.withClient(c.Context(), func(cl *control.Client) error { return a.runTop(c.Context(), cl, o) })
		},
	}
	f := c.Flags()
	f.Var(&o.every, "every", "how often to look")
	f.BoolVar(&o.once, "once", false, "print one page and end")
	f.IntVarP(&o.rows, "rows", "n", o.rows, "how many disks to show")
	f.StringVar(&o.sort, "sort", o.sort, "order of disks that are not in trouble: used, free, fill or saving")
	f.StringVar(&o.node, "node", "", "only the disks on this EC2 instance")
	_ = c.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(sorts, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) runTop(ctx context.Context, src topSource, o topOptions) error {
	out, ok := a.streams.Out.(*os.File)
	if o.once || a.output != ui.TableFormat || !ok || !ui.IsTerminal(out) {
		return a.topOnce(ctx, src, o)
	}
	in, _ := a.streams.In.(*os.File)
	s, err := openScreen(in, out)
	if err != nil {
		return exit.New(exit.Failed, "the terminal cannot be drawn on").Because(err).WithNext("ebb top --once")
	}
	defer s.close()
	return a.topLive(ctx, src, o, s)
}

// topOnce prints one page.
func (a *app) topOnce(ctx context.Context, src topSource, o topOptions) error {
	reports, err := (&fleet.Reader{Source: src}).Measured(ctx, o.node)
	if err != nil {
		return err
	}
	d := measured(time.Now(), reports, o.sort)
	if d.Operations, err = underWay(ctx, src, o.rows); err != nil {
		return err
	}
	return a.output.Print(a.streams.Out, d, func(w io.Writer) error {
		for _, l := range d.page(time.Now(), 0, 0, o.rows) {
			text := l.text
			if l.style != "" {
				text = a.streams.Paint(w, l.style, text)
			}
			if _, err := fmt.Fprintln(w, text); err != nil {
				return err
			}
		}
		return nil
	})
}

// topUpdate is news for the screen.
type topUpdate struct {
	about      int
	disks      *topData // without its operations
	operations []topOperation
	err        error
}

// What an update is about.
const (
	aboutDisks = iota
	aboutOperations
)

// topLive draws until somebody has seen enough. The first failure ends it; later
// ones are shown, and the figures stay.
func (a *app) topLive(ctx context.Context, src topSource, o topOptions, s *screen) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	news := make(chan topUpdate)
	tell := func(u topUpdate) {
		select {
		case news <- u:
		case <-ctx.Done():
		}
	}
	go a.askDisks(ctx, src, o, tell)    // ends with ctx
	go askOperations(ctx, src, o, tell) // ends with ctx
	keys := s.keys(ctx)
	look := time.NewTicker(250 * time.Millisecond) // the clock, and another size
	defer look.Stop()

	var data topData
	var problems [2]string // the last call's, by what it was about
	known, dirty, drawn := false, true, time.Time{}
	for {
		if width, height, changed := s.size(); dirty || changed || time.Since(drawn) >= time.Second {
			lines := []topLine{{text: "asking the fleet; q ends it"}}
			if known {
				lines = data.page(time.Now(), width, height, o.rows)
			}
			if err := s.draw(lines, a.streams.Plain); err != nil {
				return err
			}
			dirty, drawn = false, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil // Ctrl-C is how one leaves
		case <-keys:
			return nil
		case <-look.C:
		case u := <-news:
			dirty = true
			switch {
			case u.err != nil && !known:
				return u.err
			case u.err != nil:
				problems[u.about] = u.err.Error()
			case u.about == aboutDisks:
				u.disks.Operations = data.Operations
				data, known, problems[u.about] = *u.disks, true, ""
			default:
				data.Operations, problems[u.about] = u.operations, ""
			}
			data.Problem = cmp.Or(problems[:]...)
		}
	}
}

// askDisks measures the fleet, again and again; one measurement at a time.
func (a *app) askDisks(ctx context.Context, src topSource, o topOptions, tell func(topUpdate)) {
	reader := fleet.Reader{Source: src}
	for {
		began := time.Now()
		reports, err := reader.Measured(ctx, o.node)
		if ctx.Err() != nil {
			return
		}
		every := time.Duration(o.every)
		switch {
		case reader.Large():
			every = max(every, largeEvery)
		case len(reports) > manyDisks:
			every = max(every, manyEvery)
		}
		if err != nil {
			tell(topUpdate{about: aboutDisks, err: err})
		} else {
			d := measured(time.Now(), reports, o.sort)
			tell(topUpdate{about: aboutDisks, disks: &d})
		}
		if !pause(ctx, every-time.Since(began)) {
			return
		}
	}
}

// askOperations looks at what runs, again and again.
func askOperations(ctx context.Context, src topSource, o topOptions, tell func(topUpdate)) {
	for {
		began := time.Now()
		ops, err := underWay(ctx, src, o.rows)
		if ctx.Err() != nil {
			return
		}
		tell(topUpdate{about: aboutOperations, operations: ops, err: err})
		if !pause(ctx, time.Duration(o.every)-time.Since(began)) {
			return
		}
	}
}

// pause waits, at least a moment; false when ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, leastTop/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// errNoTerminal is for a screen without one.
var errNoTerminal = errors.New("no terminal")
