package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/ledger"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// gather asks node by node, for several disks of a node in one question. A node's
// first question goes alone: one that is not answered takes ten seconds, and says
// enough of the node's other disks.
type gather struct {
	src    Lister
	sel    Selection
	since  time.Time
	atOnce int // disks in a question
	all    int
	step   func(done, all int) // nil: nobody wants to know

	slots chan struct{} // of the questions that are being asked

	mu   sync.Mutex
	out  []ledger.Disk
	done int
}

func newGather(src Lister, sel Selection, since, now time.Time, all int, step func(done, all int)) *gather {
	return &gather{
		src: src, sel: sel, since: since, atOnce: contract.InspectedAtOnce(now, since), all: all, step: step, slots: make(chan struct{}, asks),
	}
}

func (g *gather) disks(ctx context.Context, all []contract.DiskReport) ([]ledger.Disk, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group sync.WaitGroup
	begin := func(do func() error) {
		group.Go(func() {
			if err := do(); err != nil {
				stop(err)
			}
		})
	}
	byNode := map[string][]contract.DiskReport{}
	for _, r := range all {
		n := r.Facts.Node()
		byNode[n] = append(byNode[n], r)
	}
	for node, of := range byNode {
		if node == "" {
			for _, r := range of {
				begin(func() error { return g.ask(ctx, func() error { return g.one(ctx, r) }) })
			}
			continue
		}
		begin(func() error {
			parts := slices.Collect(slices.Chunk(of, g.atOnce))
			silent := ""
			err := g.ask(ctx, func() (err error) {
				silent, err = g.some(ctx, node, parts[0])
				return err
			})
			for _, part := range parts[1:] {
				switch {
				case err != nil:
				case silent != "":
					g.unknown(part, silent)
				default:
					begin(func() error {
						return g.ask(ctx, func() error {
							_, err := g.some(ctx, node, part)
							return err
						})
					})
				}
			}
			return err
		})
	}
	group.Wait()
	return g.out, context.Cause(ctx)
}

// ask has do ask a question, when it is its turn.
func (g *gather) ask(ctx context.Context, do func() error) error {
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
		return do()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// some asks a node for some of its disks. What went elsewhere meanwhile, and what
// does not fit one answer after all, is asked for one by one. silent is why the node
// answers nothing.
func (g *gather) some(ctx context.Context, node string, of []contract.DiskReport) (silent string, err error) {
	in := contract.InspectInput{Node: node, History: true, Since: g.since}
	for _, r := range of {
		in.Disks = append(in.Disks, r.Facts.Disk)
	}
	full, err := g.src.Inspect(ctx, in)
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil && exit.CodeOf(err) == exit.Unreachable:
		return "", err
	case err != nil && !tooLarge(err):
		g.unknown(of, err.Error())
		return "", nil
	}
	for _, r := range of {
		i := slices.IndexFunc(full, func(f contract.DiskReport) bool { return f.Facts.Disk == r.Facts.Disk })
		if i < 0 {
			if err := g.one(ctx, r); err != nil {
				return "", err
			}
			continue
		}
		g.known(full[i], true)
		if silentNode(full[i]) {
			silent = full[i].Unmeasured
		}
	}
	return silent, nil
}

// one asks about one disk.
func (g *gather) one(ctx context.Context, r contract.DiskReport) error {
	full, err := g.src.Inspect(ctx, contract.InspectInput{Disk: r.Facts.Disk, History: r.Facts.Node() != "", Since: g.since})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case exit.CodeOf(err) == exit.NotFound, err == nil && len(full) == 0:
		g.known(r, false) // deleted meanwhile
	case err != nil && exit.CodeOf(err) == exit.Unreachable:
		return err
	case err != nil:
		g.unknown([]contract.DiskReport{r}, err.Error())
	default:
		g.known(full[0], true)
	}
	return nil
}

// silentNode tells that a disk's node does not answer at all.
func silentNode(r contract.DiskReport) bool {
	return r.Measurement == nil && strings.Contains(r.Unmeasured, "no agent answers")
}

// unknown notes disks of which nothing was told, and why.
func (g *gather) unknown(of []contract.DiskReport, why string) {
	for _, r := range of {
		r.Unmeasured = why
		g.known(r, true)
	}
}

// known makes a disk of a report, unless it is gone.
func (g *gather) known(r contract.DiskReport, there bool) {
	d := ledger.Disk{Facts: plan.FactsOf(r)}
	if g.sel.ClassTag != "" {
		d.Class = d.Facts.Tags[g.sel.ClassTag]
	}
	switch {
	case len(r.Facts.Active()) == 0:
		d.Unknown = "EC2 has no active volume of it"
	case r.Measurement == nil:
		d.Unknown = r.Unmeasured
		if d.Unknown == "" {
			d.Unknown = "its node did not answer"
		}
	case r.Hours != nil:
		hours, err := r.Hours.Hours()
		if err != nil {
			d.Unknown = "its past cannot be read: " + err.Error()
		}
		d.Hours = hours
	case r.History == nil:
		d.Unknown = "its past cannot be read: " + r.Unread
		if r.Unread == "" {
			d.Unknown = "its past cannot be read: the control worker's version is older"
		}
	default:
		d.Hours = r.History.Hours
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if there && (g.sel.Namespace == "" || d.Facts.Namespace == g.sel.Namespace) {
		g.out = append(g.out, d)
	}
	g.done++
	if g.step != nil {
		g.step(g.done, g.all)
	}
}
