package chaos

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/lab"
	"github.com/ebb-storage/ebb/tests/node"
)

// TestChaos plays the scenarios, one after the other.
func TestChaos(t *testing.T) {
	if err := node.Available(node.Kind()); err != nil {
		t.Skip(err)
	}
	if testing.Short() {
		t.Skip("boots nodes")
	}
	seed := uint64(1)
	if v := os.Getenv("EBB_CHAOS_SEED"); v != "" {
		var err error
		seed, err = strconv.ParseUint(v, 10, 64)
		require.NoError(t, err, "EBB_CHAOS_SEED")
	}
	scenarios := short()
	if os.Getenv("EBB_TEST_FULL") != "" {
		scenarios = full(seed)
	}
	if v := os.Getenv("EBB_CHAOS_RUN"); v != "" {
		re, err := regexp.Compile(v)
		require.NoError(t, err, "EBB_CHAOS_RUN")
		var some []scenario
		for _, sc := range scenarios {
			if re.MatchString(sc.String()) {
				some = append(some, sc)
			}
		}
		scenarios = some
	}
	t.Logf("%d scenarios, EBB_CHAOS_SEED=%d", len(scenarios), seed)
	began := time.Now()
	w := start(t, seed)
	defer func() { t.Logf("ran in %s:\n%s", time.Since(began).Round(time.Second), w.table()) }()
	for i, sc := range scenarios {
		t.Run(sc.String(), func(t *testing.T) { w.run(t, i, sc) })
	}
}

// start makes the lab: two nodes, and an EC2 whose changes take a moment.
func start(t *testing.T, seed uint64) *world {
	t.Helper()
	lag := ec2sim.Range{Min: 50 * time.Millisecond, Max: 300 * time.Millisecond}
	dir := os.Getenv("EBB_CHAOS_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	l, err := lab.Start(t.Context(), lab.Options{Dir: dir, Nodes: 2, MemoryMiB: 512, EC2: ec2sim.Options{
		Seed: int64(seed), MaxVolumeGiB: 16,
		Lag: ec2sim.Lag{Create: lag, Delete: lag, Attach: lag, Detach: lag, Modify: lag, Snapshot: lag, Optimize: ec2sim.Fixed(time.Second)},
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return &world{lab: l}
}

// table of what was run.
func (w *world) table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-72s %-10s %9s %9s %9s %7s\n", "SCENARIO", "OUTCOME", "OPERATION", "ALL", "STALL", "WRITES")
	for _, r := range w.runs {
		outcome := string(r.outcome)
		if r.failed {
			outcome = "FAILED"
		}
		fmt.Fprintf(&b, "%-72s %-10s %9s %9s %9s %7d\n", r.scenario, outcome, r.took.Round(100*time.Millisecond), r.all.Round(100*time.Millisecond), r.stall, r.acked)
	}
	return b.String()
}
