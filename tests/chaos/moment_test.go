package chaos

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// moment is when something happens, as seen from outside.
type moment interface {
	String() string
	// wait returns at the moment, or with an error when it cannot come any more.
	wait(ctx context.Context, s *stage) error
}

// before is the boundary in front of a step: its activity was scheduled.
type before struct {
	activity string
	plus     time.Duration
}

func (m before) String() string { return delayed("before "+m.activity, m.plus) }

func (m before) wait(ctx context.Context, s *stage) error {
	if err := s.event(ctx, enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, m.activity); err != nil {
		return err
	}
	return sleep(ctx, m.plus)
}

// copied is when that share of a move is copied.
type copied float64

func (m copied) String() string { return fmt.Sprintf("%.0f%% copied", 100*float64(m)) }

func (m copied) wait(ctx context.Context, s *stage) error {
	e := before{activity: string(contract.EvacuateDisk)}
	if err := e.wait(ctx, s); err != nil {
		return err
	}
	return s.w.lab.Until(ctx, 2*time.Minute, m.String(), func(ctx context.Context) error {
		now, err := s.measure(ctx)
		if err != nil {
			return err
		}
		mv := now.Move
		if mv == nil || mv.CopyBytes == 0 || float64(mv.CopiedBytes) < float64(m)*float64(mv.CopyBytes) {
			return fmt.Errorf("move: %+v", mv)
		}
		return nil
	})
}

// at is some time after the operation's start. The operation may have ended by
// then.
type at time.Duration

func (m at) String() string { return "at " + time.Duration(m).String() }

func (m at) wait(ctx context.Context, _ *stage) error { return sleep(ctx, time.Duration(m)) }

// diskFull is when the disk's pool has no room left, so that writes wait.
type diskFull struct{}

func (diskFull) String() string { return "the disk is full" }

func (diskFull) wait(ctx context.Context, s *stage) error {
	pool := fmt.Sprintf("ebb-%s-g%d-pool", s.disk, s.before.Generation)
	return s.w.lab.Until(ctx, 2*time.Minute, "the disk is full", func(ctx context.Context) error {
		out, err := s.w.lab.Sh(ctx, s.node, "dmsetup status "+pool)
		if err == nil && !strings.Contains(out, "out_of_data_space") {
			err = errors.New(out)
		}
		return err
	})
}

// inCall is when a call of an EC2 action has had its effect and is not answered
// yet.
type inCall string

func (m inCall) String() string { return "in a call of " + string(m) }

// arm holds the answer back.
func (m inCall) arm(s *stage) {
	s.w.lab.EC2.AddFault(ec2sim.Fault{ID: armed, Action: string(m), DelayAfter: ec2sim.Duration(3 * time.Second)})
}

func (m inCall) wait(ctx context.Context, s *stage) error {
	return s.w.lab.Until(ctx, time.Minute, string(m)+" is called", func(context.Context) error {
		if !s.met() {
			return errors.New("not yet")
		}
		return nil
	})
}

func delayed(s string, d time.Duration) string {
	if d > 0 {
		s += " + " + d.String()
	}
	return s
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// event waits for a history event of an activity.
func (s *stage) event(ctx context.Context, kind enumspb.EventType, activity string) error {
	c, err := s.w.lab.Client(ctx)
	if err != nil {
		return err
	}
	types := map[int64]string{}
	it := c.GetWorkflowHistory(ctx, s.run.GetID(), s.run.GetRunID(), true, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			return fmt.Errorf("read the history: %w", err)
		}
		name := ""
		if a := e.GetActivityTaskScheduledEventAttributes(); a != nil {
			name = a.GetActivityType().GetName()
			types[e.GetEventId()] = name
		}
		if a := e.GetActivityTaskCompletedEventAttributes(); a != nil {
			name = types[a.GetScheduledEventId()]
		}
		if e.GetEventType() == kind && name == activity {
			return nil
		}
	}
	return fmt.Errorf("%w: %s of %s", errWithout, kind, activity)
}

var errWithout = errors.New("the operation ended without an event")
