package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/tests/ec2sim"
	"github.com/ebb-storage/ebb/tests/lab"
)

// strike is what happens to the operation.
type strike struct {
	name string
	// arm, when set, is done before the operation starts.
	arm func(s *stage)
	// do, when set, is done at the scenario's moment.
	do func(ctx context.Context, s *stage) error
	// mend, when set, is done when the operation has ended.
	mend func(ctx context.Context, s *stage) error
}

var (
	agentKill = strike{name: "kill agent", do: func(ctx context.Context, s *stage) error {
		if err := s.w.lab.KillAgent(s.node); err != nil {
			return err
		}
		return s.w.lab.StartAgent(ctx, s.node)
	}}
	workerKill = strike{name: "kill worker", do: func(_ context.Context, s *stage) error {
		s.w.lab.KillWorker()
		return s.w.lab.StartWorker()
	}}
	temporalRestart = strike{name: "restart Temporal", do: func(ctx context.Context, s *stage) error {
		s.w.lab.StopTemporal()
		return s.w.lab.StartTemporal(ctx)
	}}
	temporalAway = strike{name: "Temporal away for 20 s", do: func(ctx context.Context, s *stage) error {
		s.w.lab.StopTemporal()
		if err := sleep(ctx, 20*time.Second); err != nil {
			return err
		}
		return s.w.lab.StartTemporal(ctx)
	}}
	everything = strike{name: "kill all programs", do: func(ctx context.Context, s *stage) error {
		s.w.lab.StopTemporal()
		s.w.lab.KillWorker()
		if err := s.w.lab.KillAgent(s.node); err != nil {
			return err
		}
		if err := s.w.lab.StartTemporal(ctx); err != nil {
			return err
		}
		if err := s.w.lab.StartWorker(); err != nil {
			return err
		}
		return s.w.lab.StartAgent(ctx, s.node)
	}}
	powerCut = strike{name: "cut power", do: func(ctx context.Context, s *stage) error {
		if err := s.w.lab.PowerCut(s.node); err != nil {
			return err
		}
		s.writer.lost()
		if err := s.w.lab.PowerOn(ctx, s.node); err != nil {
			return err
		}
		return s.writer.start(ctx, s.node)
	}}
	nodeDies = strike{name: "node dies", do: func(ctx context.Context, s *stage) error {
		if err := s.w.lab.Kill(s.node); err != nil {
			return err
		}
		s.writer.lost()
		s.dead, s.node = append(s.dead, s.node), 1-s.node
		if _, err := s.w.lab.Ebb(ctx, "disk", "move", string(s.disk), "--node", lab.NodeID(s.node), "--dead"); err != nil {
			return err
		}
		return s.writer.start(ctx, s.node)
	}}
	cancelIt = strike{name: "cancel", do: func(ctx context.Context, s *stage) error {
		c, err := s.w.lab.Client(ctx)
		if err != nil {
			return err
		}
		return c.SignalWorkflow(ctx, s.run.GetID(), s.run.GetRunID(), contract.SignalCancel, nil)
	}}
)

// storm is several crashes in a row, one upon the other's recovery, while EC2's
// describes lag behind.
func storm(seed uint64) strike {
	return strike{
		name: fmt.Sprintf("storm %d", seed),
		arm:  func(s *stage) { s.w.lab.EC2.SetStaleDescribe(time.Second) },
		do: func(ctx context.Context, s *stage) error {
			defer s.w.lab.EC2.SetStaleDescribe(0)
			rng := rand.New(rand.NewPCG(seed, 1))
			all := []strike{agentKill, workerKill, temporalRestart, powerCut, everything}
			for range 4 {
				if err := sleep(ctx, time.Duration(rng.Int64N(int64(8*time.Second)))); err != nil {
					return err
				}
				if err := all[rng.IntN(len(all))].do(ctx, s); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// again is how often a call fails: more often than the SDK tries by itself.
const again = 4

// weather is a way in which calls of an EC2 action go wrong.
type weather = func(action string) strike

func failsBefore(action string) strike {
	return fault("fails before its effect", ec2sim.Fault{Action: action, Code: "InternalError", Status: 500, Count: again})
}

func failsAfter(action string) strike {
	return fault("fails after its effect", ec2sim.Fault{Action: action, Code: "InternalError", Status: 500, Count: again, After: true})
}

func throttled(action string) strike {
	return fault("is throttled", ec2sim.Fault{Action: action, Code: "RequestLimitExceeded", Status: 503, Count: again})
}

func late(action string) strike {
	return fault("is late", ec2sim.Fault{Action: action, DelayBefore: ec2sim.Duration(time.Second), DelayAfter: ec2sim.Duration(3 * time.Second)})
}

func answerLost(action string) strike {
	return fault("answer is lost", ec2sim.Fault{Action: action, LoseAnswer: true, Count: again})
}

func fault(name string, f ec2sim.Fault) strike {
	f.ID = armed
	return strike{name: f.Action + " " + name, arm: func(s *stage) { s.w.lab.EC2.AddFault(f) }}
}

// outage makes every call of an action fail up to the scenario's moment.
func outage(action string) strike {
	out := fault("fails", ec2sim.Fault{Action: action, Code: "InternalError", Status: 500, Count: -1})
	out.name += " until"
	out.do = func(_ context.Context, s *stage) error {
		hit := s.met()
		if !s.w.lab.EC2.RemoveFault(armed) || !hit {
			return fmt.Errorf("%s was not called", action)
		}
		return nil
	}
	return out
}

// often makes whatever is called go wrong again and again: four calls in a row,
// then some go well.
func often(how weather) strike {
	one := how("")
	return strike{name: "any call" + one.name + " often", arm: func(s *stage) {
		one.arm(s)
		rng := rand.New(rand.NewPCG(uint64(s.w.seed), 2))
		for _, f := range s.w.lab.EC2.Faults() {
			if f.ID != armed {
				continue
			}
			f.Skip = 3
			for i := range 30 {
				s.w.lab.EC2.AddFault(f)
				f.ID = fmt.Sprintf("%s-%d", armed, i)
				f.Skip += again + 6 + rng.IntN(25)
			}
		}
	}}
}

// armed is the fault of a scenario.
const armed = "chaos"

// met says whether the scenario's fault was met. A late call is counted only
// when it has been answered, but its fault is used up.
func (s *stage) met() bool {
	hit := func(c ec2sim.Call) bool { return slices.Contains(c.Faults, armed) }
	return slices.ContainsFunc(s.w.lab.EC2.Calls(""), hit) ||
		!slices.ContainsFunc(s.w.lab.EC2.Faults(), func(f ec2sim.Fault) bool { return f.ID == armed })
}

// vanishes is a volume whose creation fails after it was accepted.
var vanishes = fault("is accepted and fails", ec2sim.Fault{Action: "CreateVolume", FailAsync: "vanish"})
