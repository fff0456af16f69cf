package lab

import (
	"context"

	"github.com/ebb-storage/ebb/tests/ec2sim"
)

// KillAgent kills the agent of node i; its disks stay up.
func (l *Lab) KillAgent(i int) error {
	l.mu.Lock()
	p := l.agents[NodeID(i)]
	l.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := p.Kill(); err != nil {
		return err
	}
	<-p.Done()
	return nil
}

// PowerCut cuts node i's power.
func (l *Lab) PowerCut(i int) error { return l.Nodes[i].PowerCut() }

// PowerOn boots node i again and starts its agent, as its init would.
func (l *Lab) PowerOn(ctx context.Context, i int) error {
	if err := l.Nodes[i].Boot(ctx); err != nil {
		return err
	}
	return l.StartAgent(ctx, i)
}

// Kill ends node i for good: EC2 says stopped. Revive brings it back.
func (l *Lab) Kill(i int) error {
	if err := l.PowerCut(i); err != nil {
		return err
	}
	return l.EC2.SetInstanceState(NodeID(i), "stopped")
}

// Revive starts a killed node i again: EC2 says running, it boots with the
// volumes that are still attached to it.
func (l *Lab) Revive(ctx context.Context, i int) error {
	if err := l.EC2.SetInstanceState(NodeID(i), ec2sim.StateRunning); err != nil {
		return err
	}
	return l.PowerOn(ctx, i)
}

// Ensure starts whatever part is not running, so that one failed test leaves
// the next a whole lab.
func (l *Lab) Ensure(ctx context.Context) error {
	if l.temporal.ended() {
		if err := l.StartTemporal(ctx); err != nil {
			return err
		}
	}
	if l.worker.ended() {
		if err := l.StartWorker(); err != nil {
			return err
		}
	}
	for i, n := range l.Nodes {
		if err := l.EC2.SetInstanceState(n.ID(), ec2sim.StateRunning); err != nil {
			return err
		}
		if !n.Running() {
			if err := l.PowerOn(ctx, i); err != nil {
				return err
			}
			continue
		}
		if l.agentEnded(i) {
			if err := l.StartAgent(ctx, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lab) agentEnded(i int) bool {
	l.mu.Lock()
	p := l.agents[NodeID(i)]
	l.mu.Unlock()
	if p == nil {
		return true
	}
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// ended tells whether a process is not running.
func (p *process) ended() bool {
	if p == nil {
		return true
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
