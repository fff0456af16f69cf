package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	other "github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/ledger"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/report"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// answers is a fleet of disks by node, some of which are dead.
type answers struct {
	disks map[string]int // by node
	dead  map[string]bool
	past  control.Past
	err   error // of a question about one disk
	large bool  // all at once do not fit an answer
	nodes []string
	fat   bool                     // several pasts do not fit an answer
	moved map[contract.DiskID]bool // to another node, a moment ago

	mu               sync.Mutex
	asked            map[contract.DiskID]int
	parts            []int // disks in the questions about several
	at, most         int
	byNode, nodeMost map[string]int
	gate             chan struct{} // nil: answers come at once
}

func id(node string, i int) contract.DiskID { return contract.DiskID(fmt.Sprintf("d-%s-%d", node, i)) }

func (a *answers) facts(node string, i int) contract.DiskFacts {
	return contract.DiskFacts{Disk: id(node, i), Name: fmt.Sprintf("team-%d/claim-%s", i%2, node), Volumes: []contract.VolumeFacts{{
		ID: "vol-1", SizeGiB: 10, Type: "gp3", Role: contract.RoleActive, Generation: 1, Node: node, Tags: map[string]string{"class": "db"},
	}}}
}

func (a *answers) Nodes(context.Context) ([]string, error) { return a.nodes, nil }

func (a *answers) Inspect(ctx context.Context, in contract.InspectInput) ([]contract.DiskReport, error) {
	if in.FactsOnly {
		if a.large && in.Node == "" {
			return nil, errors.New("inspect: the result exceeds size limit")
		}
		var out []contract.DiskReport
		for node, n := range a.disks {
			for i := range n {
				if in.Node == "" || in.Node == node {
					f := a.facts(node, i)
					f.Volumes[0].Tags = nil // as in a list
					out = append(out, contract.DiskReport{Facts: f})
				}
			}
		}
		return out, nil
	}
	if len(in.Disks) > 0 {
		a.mu.Lock()
		a.parts = append(a.parts, len(in.Disks))
		a.mu.Unlock()
		if len(in.Disks) > 1 && a.fat {
			return nil, errors.New("inspect: the result exceeds size limit")
		}
	}
	var out []contract.DiskReport
	for node, n := range a.disks {
		var of []int
		for i := range n {
			if d := id(node, i); d == in.Disk || in.Node == node && slices.Contains(in.Disks, d) && !a.moved[d] {
				of = append(of, i)
			}
		}
		if len(of) > 0 {
			err := a.asks(ctx, node, func() error {
				for _, i := range of {
					r, err := a.one(node, i)
					if err != nil {
						return err
					}
					out = append(out, r)
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	if in.Disk != "" && len(out) == 0 {
		return nil, exit.New(exit.NotFound, "no such disk")
	}
	return out, nil
}

// asks is one question to a node.
func (a *answers) asks(ctx context.Context, node string, answer func() error) error {
	a.mu.Lock()
	a.at++
	a.byNode[node]++
	a.most, a.nodeMost[node] = max(a.most, a.at), max(a.nodeMost[node], a.byNode[node])
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.at--
		a.byNode[node]--
	}()
	if a.gate != nil {
		select {
		case <-a.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return answer()
}

func (a *answers) one(node string, i int) (contract.DiskReport, error) {
	a.mu.Lock()
	a.asked[id(node, i)]++
	a.mu.Unlock()
	if a.err != nil {
		return contract.DiskReport{}, a.err
	}
	r := contract.DiskReport{Facts: a.facts(node, i)}
	if a.dead[node] {
		r.Unmeasured = "no agent answers on node " + node
		r.Unread = r.Unmeasured
		return r, nil
	}
	r.Measurement = &contract.Measurement{Disk: id(node, i), Node: node, SizeBytes: 100 << 30, BackingBytes: 10 << 30, PoolUsedBytes: 8 << 30}
	r.History = &contract.ReadHistoryResult{Hours: []contract.HistoryHour{{Hour: now.Add(-time.Hour), UsedMaxBytes: 8 << 30, BackingBytes: 10 << 30}}}
	return r, nil
}

func (a *answers) Past(context.Context, time.Time) (*control.Past, error) { return &a.past, nil }

func newAnswers(disks map[string]int, dead ...string) *answers {
	a := &answers{disks: disks, dead: map[string]bool{}, asked: map[contract.DiskID]int{}, byNode: map[string]int{}, nodeMost: map[string]int{}}
	for _, n := range dead {
		a.dead[n] = true
	}
	return a
}

func gatherAll(t *testing.T, a *answers, sel Selection) ledger.Input {
	t.Helper()
	in, err := Gather(t.Context(), a, sel, now.Add(-24*time.Hour), now, nil)
	require.NoError(t, err)
	return in
}

func TestDeadNodeCostsItsOwnDisksOnly(t *testing.T) {
	a := newAnswers(map[string]int{"i-1": 50, "i-2": 50, "i-dead": 200}, "i-dead")
	in := gatherAll(t, a, Selection{ClassTag: "class"})
	require.Len(t, in.Disks, 300)
	unknown, asked := 0, 0
	for _, d := range in.Disks {
		if d.Facts.Node == "i-dead" || d.Unknown != "" {
			unknown++
			require.Contains(t, d.Unknown, "no agent answers on node i-dead")
			asked += a.asked[d.Facts.Disk]
			continue
		}
		require.Equal(t, "db", d.Class)
		require.Len(t, d.Hours, 1)
	}
	require.Equal(t, 200, unknown)
	require.LessOrEqual(t, asked, contract.MostInspected, "each question to a dead node takes ten seconds")
	require.LessOrEqual(t, a.most, asks)
	require.Equal(t, 1, a.nodeMost["i-dead"])
	require.Len(t, a.parts, 3+3+1)
}

// Pasts of a long time share no answer, those of some time few.
func TestPartsFitAnAnswer(t *testing.T) {
	for days, most := range map[int]int{1: 20, 30: 20, 90: 6, 170: 3, 1000: 3} {
		a := newAnswers(map[string]int{"i-1": 25})
		in, err := Gather(t.Context(), a, Selection{}, now.AddDate(0, 0, -days), now, nil)
		require.NoError(t, err)
		require.Len(t, in.Disks, 25)
		require.Equal(t, most, slices.Max(a.parts), "%d days", days)
	}
	a := newAnswers(map[string]int{"i-1": 25})
	a.fat = true
	for _, d := range gatherAll(t, a, Selection{}).Disks {
		require.Len(t, d.Hours, 1, "asked for one by one")
	}
	a = newAnswers(map[string]int{"i-1": 25})
	a.moved = map[contract.DiskID]bool{id("i-1", 3): true}
	in := gatherAll(t, a, Selection{})
	require.Len(t, in.Disks, 25)
	require.False(t, slices.ContainsFunc(in.Disks, func(d ledger.Disk) bool { return d.Unknown != "" }))
}

func TestQuestionsAreBounded(t *testing.T) {
	nodes := map[string]int{}
	for i := range 40 {
		nodes[fmt.Sprintf("i-%d", i)] = 5
	}
	a := newAnswers(nodes)
	a.gate = make(chan struct{})
	done := make(chan ledger.Input, 1)
	go func() {
		in, _ := Gather(t.Context(), a, Selection{}, now.Add(-time.Hour), now, nil)
		done <- in
	}()
	require.Eventually(t, func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.at == asks }, 10*time.Second, time.Millisecond)
	close(a.gate)
	require.Len(t, (<-done).Disks, 200)
	require.Equal(t, asks, a.most)
}

func TestSelection(t *testing.T) {
	a := newAnswers(map[string]int{"i-1": 4, "i-2": 2})
	require.Len(t, gatherAll(t, a, Selection{Namespace: "team-1"}).Disks, 3)
	require.Len(t, gatherAll(t, a, Selection{Node: "i-2"}).Disks, 2)
	require.Empty(t, gatherAll(t, a, Selection{Namespace: "nobody"}).Disks)
}

func TestOperationsOfTheSelection(t *testing.T) {
	ended := func(d contract.DiskID, name, workflow string, status enumspb.WorkflowExecutionStatus, r *contract.Result) control.Ended {
		return control.Ended{Disk: control.Disk{ID: d, Name: name}, Workflow: workflow, Status: status, Began: now, Ended: now, Result: r}
	}
	a := newAnswers(map[string]int{"i-1": 2})
	done, refused := &contract.Result{Outcome: contract.Done}, &contract.Result{Outcome: contract.Refused}
	a.past = control.Past{
		Operations: []control.Ended{
			ended(id("i-1", 0), "", contract.GrowWorkflow, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, done),
			ended(id("i-1", 1), "", contract.ShrinkWorkflow, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, refused),
			ended(id("i-1", 1), "", contract.ShrinkWorkflow, enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, nil),
			ended(id("i-1", 1), "", contract.ShrinkWorkflow, enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED, nil),
			ended(id("i-1", 1), "", contract.ShrinkWorkflow, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil),
			ended("d-gone", "team-1/gone", contract.DeleteDiskWorkflow, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, done),
			ended("d-gone", "team-1/gone", contract.DeleteDiskWorkflow, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, nil),
		},
		Cut: true, Unread: 1,
		Turned: []control.Turned{
			{Proposed: other.Proposed{Decision: plan.Decision{Disk: id("i-1", 1), Wanted: plan.Shrink, FromGiB: 10, GiB: 5, Reason: "less is needed"}, Answer: "rejected", By: "ann", Note: "not now"}},
			{Proposed: other.Proposed{Decision: plan.Decision{Disk: id("i-1", 0), Wanted: plan.Grow}, Answer: "expired"}},
		},
		Looked: &contract.Totals{Held: map[string]int{"budget": 1}},
	}
	in := gatherAll(t, a, Selection{})
	var outcomes []string
	for _, o := range in.Operations {
		outcomes = append(outcomes, o.Outcome+o.Code)
	}
	require.Equal(t, []string{
		report.OutcomeDone, report.OutcomeRefused, report.OutcomeFailed, report.OutcomeCancelled, report.OutcomeRunning, report.OutcomeDone, report.OutcomeUnread,
		report.OutcomeRefused + ledger.ProposalRejected, report.OutcomeRefused + ledger.ProposalExpired,
	}, outcomes)
	require.Equal(t, "less is needed; rejected: not now", in.Operations[7].Reason)
	require.Equal(t, contract.ShrinkWorkflow, in.Operations[7].Workflow)
	require.Equal(t, []int{control.MostPast, 1}, []int{in.Cut, in.Unread})
	require.Equal(t, map[string]int{"budget": 1}, in.Held)
	// Of a part of the fleet: its own operations, and what became of its claims.
	in = gatherAll(t, a, Selection{Namespace: "team-1"})
	require.Len(t, in.Operations, 7)
	require.Equal(t, contract.DiskID("d-gone"), in.Operations[4].Disk)
	require.Nil(t, in.Held, "it is of the whole fleet")
}

func TestFailures(t *testing.T) {
	a := newAnswers(map[string]int{"i-1": 40})
	a.err = exit.New(exit.Unreachable, "nobody serves the queue")
	_, err := Gather(t.Context(), a, Selection{}, now.Add(-time.Hour), now, nil)
	require.ErrorContains(t, err, "nobody serves the queue")
	require.Equal(t, exit.Unreachable, exit.CodeOf(err))

	// One disk's trouble is its own.
	a.err = exit.New(exit.Refused, "refused: a permission is missing")
	for _, d := range gatherAll(t, a, Selection{}).Disks {
		require.Contains(t, d.Unknown, "a permission is missing")
	}

	// Ctrl-C.
	a = newAnswers(map[string]int{"i-1": 40})
	a.gate = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := Gather(ctx, a, Selection{}, now.Add(-time.Hour), now, nil)
		ended <- err
	}()
	require.Eventually(t, func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.at > 0 }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// A fleet that does not fit one answer is asked node by node.
func TestLargeFleet(t *testing.T) {
	a := newAnswers(map[string]int{"i-1": 4, "i-2": 2, "i-3": 1})
	a.large = true
	_, err := Gather(t.Context(), a, Selection{}, now.Add(-time.Hour), now, nil)
	require.ErrorContains(t, err, "no run of Rightsize tells their nodes")
	var coded *exit.Error
	require.ErrorAs(t, err, &coded)
	require.Contains(t, coded.Next, "--node")
	a.nodes = []string{"i-1", "i-2", "i-3", "i-4"} // the last has none any more
	require.Len(t, gatherAll(t, a, Selection{}).Disks, 7)
	all, nodes, err := list(t.Context(), a, contract.InspectInput{FactsOnly: true})
	require.NoError(t, err)
	require.Equal(t, a.nodes, nodes)
	require.True(t, slices.IsSortedFunc(all, func(x, y contract.DiskReport) int { return strings.Compare(string(x.Facts.Disk), string(y.Facts.Disk)) }))
}

// counted is a fleet that counts what it is asked.
type counted struct {
	*answers
	facts, one, all int
}

func (c *counted) Inspect(_ context.Context, in contract.InspectInput) ([]contract.DiskReport, error) {
	switch {
	case in.FactsOnly:
		c.facts++
	case in.Node != "":
		c.mu.Lock()
		c.one++
		c.mu.Unlock()
	default:
		c.all++
	}
	in.FactsOnly = true
	return c.answers.Inspect(context.Background(), in)
}

func TestReader(t *testing.T) {
	// A small fleet: one question each time, after the first.
	c := &counted{answers: newAnswers(map[string]int{"i-1": 20, "i-2": 20})}
	r := Reader{Source: c}
	for range 3 {
		all, err := r.Measured(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, all, 40)
		require.False(t, r.Large())
	}
	require.Equal(t, []int{1, 0, 3}, []int{c.facts, c.one, c.all})
	// It grows: the next time it is asked node by node.
	c.disks["i-3"] = measuredAtOnce
	_, err := r.Measured(t.Context(), "")
	require.NoError(t, err)
	all, err := r.Measured(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, all, measuredAtOnce+40)
	require.True(t, r.Large())
	require.Equal(t, []int{2, 3, 4}, []int{c.facts, c.one, c.all})
	// One node is always one question.
	all, err = r.Measured(t.Context(), "i-1")
	require.NoError(t, err)
	require.Len(t, all, 20)
}
