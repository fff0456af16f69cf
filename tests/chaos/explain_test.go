package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/ebb-storage/ebb/tests/lab"
)

// explain tells what is known about a failure.
func (s *stage) explain(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	t.Logf("disk %s (%s) on %s", s.disk, s.fs, lab.NodeID(s.node))
	if s.run != nil {
		t.Logf("history:\n%s", s.history(ctx))
	}
	for _, v := range s.volumes() {
		t.Logf("volume %s %d GiB %s %v attached %+v", v.ID, v.SizeGiB, v.State, v.Tags, v.Attachment)
	}
	for i, n := range s.w.lab.Nodes {
		if n.Running() {
			t.Logf("%s: %s", n.ID(), s.clock(i))
			out, err := s.w.lab.Sh(ctx, i, "dmsetup info -c --noheadings -o name,suspended,open; dmsetup status; grep /tmp/c /proc/mounts || true")
			t.Logf("%s: %v\n%s", n.ID(), err, out)
		}
	}
	for _, name := range []string{"worker", "agent-" + lab.NodeID(0), "agent-" + lab.NodeID(1)} {
		b, err := os.ReadFile(filepath.Join(s.w.lab.Dir, name+".log"))
		if err != nil {
			continue
		}
		lines := slices.DeleteFunc(strings.Split(string(b), "\n"), func(l string) bool {
			return strings.Contains(l, "level=INFO") && !strings.Contains(l, string(s.disk))
		})
		t.Logf("%s.log:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
}

// clock says whether time passes in a node: a User Mode Linux may lose its timer.
func (s *stage) clock(i int) string {
	ticks := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := s.w.lab.Sh(ctx, i, "sleep 0.1")
		return err
	}
	err := ticks()
	if err == nil {
		return "time passes"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "time does not pass: %v", err)
	dirs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range dirs {
		cmd, _ := os.ReadFile(f)
		if !strings.Contains(string(cmd), "uml_dir="+s.w.lab.Nodes[i].Dir()) {
			continue
		}
		for _, name := range []string{"timers", "status", "wchan", "stat"} {
			v, _ := os.ReadFile(filepath.Join(filepath.Dir(f), name))
			if name == "status" {
				v = []byte(strings.Join(slices.DeleteFunc(strings.Split(string(v), "\n"), func(l string) bool {
					return !strings.HasPrefix(l, "Sig") && !strings.HasPrefix(l, "Shd") && !strings.HasPrefix(l, "State")
				}), "\n"))
			}
			fmt.Fprintf(&b, "\n%s %s: %s", filepath.Dir(f), name, v)
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil && strings.Contains(string(cmd), "linux.uml") {
			_ = syscall.Kill(pid, syscall.SIGALRM)
			fmt.Fprintf(&b, "\nafter a SIGALRM to %d: %v", pid, ticks())
			return b.String()
		}
	}
	return b.String()
}

// history is the operation's events in short.
func (s *stage) history(ctx context.Context) string {
	c, err := s.w.lab.Client(ctx)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	it := c.GetWorkflowHistory(ctx, s.run.GetID(), s.run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			fmt.Fprintln(&b, err)
			break
		}
		what := ""
		switch {
		case strings.HasPrefix(e.GetEventType().String(), "WorkflowTask"):
			continue
		case e.GetActivityTaskScheduledEventAttributes() != nil:
			what = e.GetActivityTaskScheduledEventAttributes().GetActivityType().GetName()
		case e.GetActivityTaskStartedEventAttributes() != nil:
			a := e.GetActivityTaskStartedEventAttributes()
			what = fmt.Sprintf("attempt %d %s", a.GetAttempt(), a.GetLastFailure().GetMessage())
		case e.GetActivityTaskFailedEventAttributes() != nil:
			what = e.GetActivityTaskFailedEventAttributes().GetFailure().String()
		case e.GetActivityTaskTimedOutEventAttributes() != nil:
			what = e.GetActivityTaskTimedOutEventAttributes().GetFailure().String()
		case e.GetWorkflowExecutionSignaledEventAttributes() != nil:
			what = e.GetWorkflowExecutionSignaledEventAttributes().GetSignalName()
		case e.GetWorkflowExecutionCompletedEventAttributes() != nil:
			what = e.GetWorkflowExecutionCompletedEventAttributes().GetResult().String()
		case e.GetWorkflowExecutionFailedEventAttributes() != nil:
			what = e.GetWorkflowExecutionFailedEventAttributes().GetFailure().String()
		}
		fmt.Fprintf(&b, "%s %3d %s %s\n", e.GetEventTime().AsTime().Format("15:04:05.000"), e.GetEventId(), e.GetEventType(), what)
	}
	if d, err := c.DescribeWorkflowExecution(ctx, s.run.GetID(), s.run.GetRunID()); err == nil {
		for _, a := range d.GetPendingActivities() {
			fmt.Fprintf(&b, "pending %s %s attempt %d %s\n", a.GetActivityType().GetName(), a.GetState(), a.GetAttempt(), a.GetLastFailure().GetMessage())
		}
	}
	return b.String()
}
