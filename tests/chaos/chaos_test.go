package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/lab"
	"github.com/ebb-storage/ebb/tests/node"
)

// TestChaos plays the scenarios, in several lanes at the same time.
func TestChaos(t *testing.T) {
	if err := node.OwnKernel(); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("boots nodes")
	}
	seed := uint64(number(t, "EBB_CHAOS_SEED", 1))
	scenarios, lanes := short(), 1
	if os.Getenv("EBB_TEST_FULL") != "" {
		scenarios, lanes = full(seed), fullLanes
	}
	for i := range scenarios {
		scenarios[i].number = i
	}
	if v := os.Getenv("EBB_CHAOS_RUN"); v != "" {
		re, err := regexp.Compile(v)
		require.NoError(t, err, "EBB_CHAOS_RUN")
		scenarios = slices.DeleteFunc(scenarios, func(sc scenario) bool { return !re.MatchString(sc.String()) })
	}
	lanes = min(number(t, "EBB_CHAOS_LANES", lanes), len(scenarios))
	dir := os.Getenv("EBB_CHAOS_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	t.Logf("%d scenarios in %d lanes, EBB_CHAOS_SEED=%d", len(scenarios), lanes, seed)
	began := time.Now()
	var done report
	defer func() { t.Logf("ran in %s:\n%s", time.Since(began).Round(time.Second), done.table()) }()
	next := make(chan scenario, len(scenarios))
	for _, sc := range scenarios {
		next <- sc
	}
	close(next)
	var wg sync.WaitGroup
	for i := range lanes {
		w := &world{dir: filepath.Join(dir, fmt.Sprintf("lane%d", i)), seed: int64(seed), report: &done}
		wg.Go(func() {
			for sc := range next {
				t.Run(sc.String(), func(t *testing.T) { w.run(t, sc) })
			}
		})
		defer func() { // the deferred calls run in reverse order: the table comes last
			if err := w.close(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
}

// fullLanes is how many scenarios of the whole matrix run at the same time: on
// two cores. A scenario waits about as long as it computes.
const fullLanes = 3

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	require.NoError(t, err, name)
	return n
}

// whole gives the lane a lab of which every part runs: two nodes, and an EC2
// whose changes take a moment.
func (w *world) whole(ctx context.Context) error {
	if w.lab != nil {
		return w.lab.Ensure(ctx)
	}
	lag := ec2sim.Range{Min: 50 * time.Millisecond, Max: 300 * time.Millisecond}
	w.labs++
	l, err := lab.Start(ctx, lab.Options{Dir: fmt.Sprintf("%s-%d", w.dir, w.labs), Nodes: 2, MemoryMiB: 512, EC2: ec2sim.Options{
		Seed: w.seed, MaxVolumeGiB: 16,
		Lag: ec2sim.Lag{Create: lag, Delete: lag, Attach: lag, Detach: lag, Modify: lag, Snapshot: lag, Optimize: ec2sim.Fixed(time.Second)},
	}})
	if err == nil {
		w.lab = l
	}
	return err
}

// close ends the lane's lab; its directory stays.
func (w *world) close() error {
	if w.lab == nil {
		return nil
	}
	l := w.lab
	w.lab = nil
	return l.Close()
}

// report collects the rows of all lanes.
type report struct {
	mu   sync.Mutex
	rows []row
}

func (r *report) add(one row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, one)
}

// table of what was run.
func (r *report) table() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%-72s %-10s %8s %9s %8s %8s %8s %7s\n", "SCENARIO", "OUTCOME", "PREPARE", "OPERATION", "CHECK", "REMOVE", "STALL", "WRITES")
	for _, r := range r.rows {
		outcome := string(r.outcome)
		if r.failed {
			outcome = "FAILED"
		}
		round := func(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
		fmt.Fprintf(&b, "%-72s %-10s %8s %9s %8s %8s %8s %7d\n", r.scenario, outcome, round(r.prepare), round(r.took), round(r.check), round(r.remove), r.stall, r.acked)
	}
	return b.String()
}
