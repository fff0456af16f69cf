// Bench measures Ebb's data plane and node agent against what they compete with:
// dd, rsync, the bare volume, an idle node. It prints a table and writes
// build/bench/summary.json.
//
// It boots one node (tests/node) and runs everything on it, rivals in turns, so
// that the ratios hold whatever the machine is worth; absolute numbers are those
// of the node and stand beside the ratios to show where the node is the limit.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/node"
)

// wholeTime bounds a run.
const wholeTime = 40 * time.Minute

// nodeMiB is the node's memory: two cloud volumes of 2 GiB (guest/cloud.go) live
// in it, and a page cache for what is on one of them.
const nodeMiB = 6144

// experiments in the node, in order; the agent's and the history's follow.
var experiments = []string{"move", "aged", "fsync", "stack", "grow"}

type options struct {
	quick  bool
	only   string
	out    string
	dir    string
	events int
	seed   uint64
	env    string
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "small sizes and few rounds: a few minutes, less exact")
	flag.StringVar(&o.only, "only", "", "comma-separated experiments: "+strings.Join(experiments, ", ")+", agent, history (default: all)")
	flag.StringVar(&o.out, "out", filepath.Join("build", "bench"), "where summary.json goes")
	flag.StringVar(&o.dir, "dir", "", "where the node's volumes go, some GiB (default: <out>/node)")
	flag.IntVar(&o.events, "history-events", 0, "events of a shrink's history, when an end-to-end run has counted them (default: read from the demo, or run a shrink)")
	flag.Uint64Var(&o.seed, "seed", 1, "of the filesystems' past")
	flag.StringVar(&o.env, "env", "", "comma-separated KEY=value for the programs in the node")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: unknown argument", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	err := run(ctx, o, os.Stdout, os.Stderr)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out, talk io.Writer) (err error) {
	begin := time.Now()
	wanted := append(slices.Clone(experiments), "agent", "history")
	if o.only != "" {
		wanted = strings.Split(o.only, ",")
	}
	if o.dir == "" {
		o.dir = filepath.Join(o.out, "node")
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	n, err := node.New(node.Options{ID: "i-0123456789abcdef0", Dir: o.dir, Kind: node.KindUML, MemoryMiB: nodeMiB})
	if err != nil {
		return err
	}
	b := &bench{node: n, talk: talk, params: wire.Params{Quick: o.quick, Seed: o.seed}}
	if o.env != "" {
		b.env = strings.Split(o.env, ",")
	}
	if b.guest, err = build(ctx, n, "/tests/bench/guest", "bench-guest"); err != nil {
		return err
	}
	if err := n.Boot(ctx); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, n.PowerCut())
		left, _ := filepath.Glob(filepath.Join(n.Dir(), "*.img"))
		for _, f := range left {
			_ = os.Remove(f)
		}
	}()
	for _, e := range wanted {
		switch {
		case e == "agent":
			err = b.agent(ctx)
		case e == "history":
			err = b.history(ctx, o)
		case slices.Contains(experiments, e):
			err = b.run(ctx, e)
		default:
			err = fmt.Errorf("unknown experiment %q", e)
		}
		if err != nil {
			return err
		}
	}
	if err := b.table(out); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(talk, "took %s\n", time.Since(begin).Round(time.Second))
	return b.write(o.out, o.only == "")
}
