package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// Lister is what a Reader asks; control.Client is one.
type Lister interface {
	Inspect(ctx context.Context, in contract.InspectInput) ([]contract.DiskReport, error)
	// Nodes are those that had disks when Rightsize last looked.
	Nodes(ctx context.Context) ([]string, error)
}

const (
	// nodesAtOnce is how many nodes are asked about at once.
	nodesAtOnce = 8
	// measuredAtOnce is how many measured disks fit one answer of Temporal's (2 MiB;
	// 2,500 did, 3,800 did not).
	measuredAtOnce = 2000
)

// Reader reads the reports of a fleet of any size, again and again. Make one with
// its Source. It is for one goroutine.
type Reader struct {
	Source Lister
	known  bool // how large the fleet is, from the last time
	large  bool
}

// Large says that the last fleet was read node by node.
func (r *Reader) Large() bool { return r.large }

// Measured reads the disks with what their nodes measure: all (or a node's, when it
// is given) in one answer, or where that is too large node by node.
func (r *Reader) Measured(ctx context.Context, node string) ([]contract.DiskReport, error) {
	in := contract.InspectInput{Node: node}
	if node != "" || r.known && !r.large {
		return r.note(r.Source.Inspect(ctx, in))
	}
	// An answer that is too large costs as much as one that is not: look first.
	facts, nodes, err := list(ctx, r.Source, contract.InspectInput{FactsOnly: true})
	switch {
	case err != nil:
		return nil, err
	case nodes == nil && len(facts) <= measuredAtOnce:
		r.known, r.large = true, false
		return r.note(r.Source.Inspect(ctx, in))
	}
	r.known, r.large = true, true
	var detached []contract.DiskReport
	nodes = nil
	for _, f := range facts {
		if n := f.Facts.Node(); n != "" {
			nodes = append(nodes, n)
		} else {
			f.Unmeasured = "not attached to a node"
			detached = append(detached, f)
		}
	}
	slices.Sort(nodes)
	all, err := byNode(ctx, r.Source, in, slices.Compact(nodes))
	return sorted(append(all, detached...)), err
}

// note remembers how large the fleet is.
func (r *Reader) note(all []contract.DiskReport, err error) ([]contract.DiskReport, error) {
	if err != nil || len(all) > measuredAtOnce {
		r.known = false
	}
	return all, err
}

// list is Inspect for what EC2 knows of a fleet of any size. Tens of thousands of
// volumes do not fit one answer: then it asks for the disks of each of the nodes it
// returns, which Rightsize saw. Detached disks are not among them.
func list(ctx context.Context, src Lister, in contract.InspectInput) (all []contract.DiskReport, nodes []string, err error) {
	all, err = src.Inspect(ctx, in)
	if err == nil || in.Node != "" || !tooLarge(err) {
		return all, nil, err
	}
	nodes, nerr := src.Nodes(ctx)
	if nerr != nil || len(nodes) == 0 {
		return nil, nil, exit.New(exit.CodeOf(err), "there are too many disks to ask about at once, and no run of Rightsize tells their nodes").Because(err).
			WithNext("ask about one node: --node i-...; or have Rightsize look once: ebb schedule run rightsize")
	}
	all, err = byNode(ctx, src, in, nodes)
	return sorted(all), nodes, err
}

// byNode asks for the disks of nodes, several at once, and stops at the first error.
func byNode(ctx context.Context, src Lister, in contract.InspectInput, nodes []string) (all []contract.DiskReport, err error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var (
		mu    sync.Mutex
		group sync.WaitGroup
	)
	next := make(chan string)
	for range nodesAtOnce {
		group.Go(func() {
			for node := range next {
				of := in
				of.Node = node
				found, err := src.Inspect(ctx, of)
				if err != nil {
					stop(err)
					return
				}
				mu.Lock()
				all = append(all, found...)
				mu.Unlock()
			}
		})
	}
feed:
	for _, n := range nodes {
		select {
		case next <- n:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	group.Wait()
	return all, context.Cause(ctx)
}

func sorted(all []contract.DiskReport) []contract.DiskReport {
	slices.SortFunc(all, func(a, b contract.DiskReport) int { return strings.Compare(string(a.Facts.Disk), string(b.Facts.Disk)) })
	return all
}

// tooLarge tells that an answer did not fit Temporal's limit of 2 MiB. Who made it
// fails with these words; there is no type for it.
func tooLarge(err error) bool {
	return err != nil && strings.Contains(err.Error(), "exceeds size limit")
}
