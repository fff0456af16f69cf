package workflows

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// States of an instance that can hold a volume in use.
const (
	stateRunning = "running"
	// The others hold none.
	stateStopped    = "stopped"
	stateTerminated = "terminated"
	stateGone       = "" // EC2 does not know the instance any more
)

// Rehome brings a disk to another node. The new node is asked before anything
// changes; when it refuses the disk after all, the disk is brought back.
func Rehome(ctx workflow.Context, in contract.RehomeInput) (contract.Result, error) {
	return operate(ctx, header{
		name: contract.RehomeWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(),
		phases: []contract.Phase{contract.PhaseCheck, contract.PhaseRehome},
	}, func(ctx workflow.Context, op *operation) error {
		op.keepRoom(ctx)
		return op.step(ctx, contract.PhaseRehome, alone, func() error {
			if op.rehomed {
				return nil // a signal said where to, later than the input
			}
			if in.DryRun {
				h, err := op.plot(ctx, in)
				if err == nil {
					op.result.Steps = h.words(op)
				}
				return err
			}
			return op.bring(ctx, in)
		})
	})
}

// haul is a checked plan to bring a disk's volumes from one node to another.
type haul struct {
	from, to string
	fromUp   bool // the old node's agent is to take the disk down first
	force    bool // the detach is forced
	move     []contract.VolumeFacts
	leave    []contract.VolumeFacts // retired: detached, not attached again
	mount    string
}

// plot looks whether a disk can be brought to in.Node, and how. It changes
// nothing.
func (op *operation) plot(ctx workflow.Context, in contract.RehomeInput) (haul, error) {
	h := haul{to: in.Node, mount: in.MountPath}
	begun := op.hauling && op.node == in.Node // it is on its way there, and waited for
	facts, err := op.located(ctx)
	if err != nil {
		return h, err
	}
	active := facts.Active()
	if len(active) == 0 {
		return h, contract.Refuse(contract.DiskIncomplete, "EC2 has no active volume of the disk").WithDisk(op.disk).
			WithNext(noActive)
	}
	need := 0
	for _, v := range facts.Volumes {
		if v.Node != "" && v.Node != in.Node {
			h.from = v.Node
		}
		switch {
		case v.Role == contract.RoleRetired && v.Node != "":
			h.leave = append(h.leave, v)
		case v.Role == contract.RoleRetired:
		default:
			h.move = append(h.move, v)
			if v.Node != in.Node {
				need++
			}
		}
	}
	to, err := control(ctx, op, contract.DescribeNode, contract.DescribeNodeInput{Node: in.Node}, brief)
	if err != nil {
		return h, err
	}
	switch {
	case to.State != stateRunning:
		return h, contract.Refuse(contract.NodeUnknown, "node %s is %s", to.Node, to.State).WithDisk(op.disk).WithNext("start the instance, or name another one")
	case to.Zone != active[0].Zone:
		return h, contract.Refuse(contract.ZoneMismatch, "the disk is in %s, node %s is in %s", active[0].Zone, to.Node, to.Zone).
			WithDisk(op.disk).WithVolume(active[0].ID).WithNext("name a node in %s", active[0].Zone)
	case to.FreeSlots < need:
		return h, contract.Refuse(contract.AttachSlotsFull, "node %s can attach %d more volumes, the disk has %d", to.Node, to.FreeSlots, need).
			WithDisk(op.disk).WithNext("name another node")
	}
	if err := op.plotFrom(ctx, in, &h); err != nil || begun {
		return h, err
	}
	return h, op.fit(ctx, in.Node, checkTools, checkTemporal)
}

// Checks of a node's preflight that keep no disk from it.
const (
	checkTools    = "tools"    // no mkfs: a disk that exists works
	checkTemporal = "temporal" // the agent has just answered through it
)

// fit asks a node's agent whether a disk can be there, spared checks aside. An
// agent that does not answer at once is a refusal: nothing has changed yet.
func (op *operation) fit(ctx workflow.Context, at string, spared ...string) error {
	res, err := contract.Preflight.Execute(askNode(ctx, at), contract.PreflightInput{})
	if err != nil {
		return nodeRefusal(at, err).WithDisk(op.disk)
	}
	for _, c := range res.Checks {
		if !c.OK && !slices.Contains(spared, c.Name) {
			return contract.Refuse(contract.NodeUnsupported, "Ebb cannot run on node %s: %s: %s", at, c.Name, c.Detail).
				WithDisk(op.disk).WithNext("%s; see all checks: ebb preflight --node %s", c.Next, at)
		}
	}
	return nil
}

// plotFrom decides how to take the disk off its old node.
func (op *operation) plotFrom(ctx workflow.Context, in contract.RehomeInput, h *haul) error {
	if h.from == "" {
		return nil
	}
	state := stateGone
	n, err := control(ctx, op, contract.DescribeNode, contract.DescribeNodeInput{Node: h.from}, brief)
	if err == nil {
		state = n.State
	} else if r, ok := contract.AsRefusal(err); !ok || r.Code != contract.NodeUnknown {
		return err
	}
	h.fromUp = state == stateRunning || state == "pending"
	h.force = in.Dead && !h.fromUp
	if in.Dead && h.fromUp {
		return contract.Refuse(contract.DiskBusy, "EC2 says that node %s is %s: a disk in use there would be torn away", h.from, state).
			WithDisk(op.disk).WithNext("stop the instance first; or, while its agent answers, ebb disk move without --dead")
	}
	return nil
}

// bring carries out a rehome. It is safe to repeat; after a refusal the disk is
// where it was, and up unless a volume is stuck in coming off.
func (op *operation) bring(ctx workflow.Context, in contract.RehomeInput) error {
	h, err := op.plot(ctx, in)
	if err != nil {
		return err
	}
	was, between := op.progress.Phase, op.hauling
	op.enter(ctx, contract.PhaseRehome)
	if h.from != "" {
		op.node = h.from
		if err := op.takeOff(ctx, h); err != nil {
			r, refused := contract.AsRefusal(err)
			if refused {
				op.hauling = between
			}
			if refused && r.Code != contract.DetachStuck { // that one may come off at any moment
				return errors.Join(err, op.upAgain(ctx, h))
			}
			return err
		}
	}
	op.assemble, op.hauling = true, true // wherever it goes
	if h.fromUp {
		op.home = h.from
	}
	err = op.putOn(ctx, h, h.to)
	op.turned = false
	if errors.Is(err, errYield) {
		return err
	}
	home := op.home
	op.home = ""
	_, refused := contract.AsRefusal(err)
	off := errors.Is(err, errTurnBack)
	if off {
		err = errCancelled
	}
	if home != "" && home != h.to && (off || refused) {
		if back := op.bringBack(ctx, h, home, off); back != nil {
			return fmt.Errorf("node %s did not take the disk (%w) and it could not be brought back to %s: %w", h.to, errors.New(err.Error()), home, errors.New(back.Error()))
		}
	}
	if err != nil {
		return err
	}
	op.result.Node = h.to
	if was != contract.PhaseRehome {
		op.enter(ctx, was)
	}
	return nil
}

// takeOff takes the disk down on its old node and detaches its volumes. Once it
// is down a cancel would leave it between two nodes, so that only a newer rehome
// comes between; turnBack says when a cancel does.
func (op *operation) takeOff(ctx workflow.Context, h haul) error {
	if h.fromUp {
		// What waits to be written may be more than the pool has room for.
		if err := op.takeDown(ctx); err != nil {
			return err
		}
	}
	op.hauling = true
	for _, v := range append(h.leave[:len(h.leave):len(h.leave)], h.move...) {
		if v.Node == "" || v.Node == h.to {
			continue
		}
		if err := op.detach(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: v.Node, Force: h.force}); err != nil {
			return err
		}
	}
	return nil
}

// upAgain assembles a disk again whose first volume did not come off its node.
func (op *operation) upAgain(ctx workflow.Context, h haul) error {
	if !h.fromUp {
		return nil
	}
	facts, err := control(ctx, op, contract.DescribeDisk, contract.DescribeDiskInput{Disk: op.disk}, brief)
	if err != nil {
		return err
	}
	here := attachedTo(facts, h.from)
	if len(here) < len(h.move) {
		op.assemble = true
		return nil // some are off already: the next rehome goes on
	}
	_, err = node(ctx, op, contract.AssembleDisk, contract.AssembleDiskInput{Disk: op.disk, Volumes: here}, brief)
	return err
}

// putOn attaches the disk's volumes to a node and assembles it there.
func (op *operation) putOn(ctx workflow.Context, h haul, to string) error {
	for _, v := range h.move {
		if err := op.attach(ctx, v.ID, to, false); err != nil {
			return err
		}
	}
	if op.node != to {
		op.node, op.progress.Node, op.lostAt = to, to, time.Time{}
	}
	m, err := node(ctx, op, contract.AssembleDisk, contract.AssembleDiskInput{Disk: op.disk, Volumes: ids(h.move), MountPath: h.mount}, brief)
	if err == nil {
		op.assemble, op.hauling = false, false
		op.grown(m)
	}
	return err
}

// called says that a cancel came which whoever waits for a node has not heard.
func (op *operation) called() bool { return op.turning() && !op.turned }

// turning says that a cancelled disk is on its way to a node.
func (op *operation) turning() bool {
	return op.hauling && op.signals.cancelled && !op.undoing && !op.final
}

// turnBack is what a cancel does while no agent answers on the node that the
// disk was brought to: the disk goes back, once it is certain that the node does
// not have it up. An agent that is out of Temporal's reach brings up what is
// attached to its node, so the node must be off; until then the operation waits
// for either, and says so.
func (op *operation) turnBack(ctx workflow.Context, at string) error {
	op.turned = true
	state := stateGone
	n, err := control(ctx, op, contract.DescribeNode, contract.DescribeNodeInput{Node: at}, brief)
	if err == nil {
		state = n.State
	} else if r, ok := contract.AsRefusal(err); !ok || r.Code != contract.NodeUnknown {
		return err
	}
	var why string
	switch {
	case op.home == "" || op.home == at:
		why = "there is no node to bring the disk back to: bring this one back, or rehome the disk to another"
	case state != stateStopped && state != stateTerminated && state != stateGone:
		why = fmt.Sprintf("EC2 says that it is %s, so it may have the disk up: stop it, and the disk goes back to %s; or bring its agent back", state, op.home)
	default:
		err := op.fit(ctx, op.home, checkTools, checkTemporal)
		if err == nil {
			return errTurnBack
		}
		why = "nor can the disk go back: " + err.Error()
	}
	op.wait(ctx, fmt.Sprintf("cancelled, but no agent answers on node %s; %s", at, why))
	_, err = workflow.AwaitWithTimeout(ctx, lostPause, func() bool { return op.interrupted() != nil })
	return err
}

// bringBack undoes a rehome that the new node refused: the disk is assembled on
// home again. Off says that the new node is off and has nothing to take down.
func (op *operation) bringBack(ctx workflow.Context, h haul, home string, off bool) error {
	if op.node == h.to && !off {
		_, err := node(ctx, op, contract.DisassembleDisk, contract.DisassembleDiskInput{Disk: op.disk}, brief)
		if err != nil {
			return err
		}
	}
	for _, v := range h.move {
		if err := op.detach(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: h.to, Force: off}); err != nil {
			return err
		}
	}
	h.mount = ""
	return op.putOn(ctx, h, home)
}

func (h haul) words(op *operation) []string {
	var w []string
	if h.fromUp {
		w = append(w, fmt.Sprintf("unmount the disk on %s and take it down", h.from))
	}
	for _, v := range h.move {
		if v.Node != h.to {
			w = append(w, fmt.Sprintf("bring volume %s to %s", v.ID, h.to))
		}
	}
	return append(w, fmt.Sprintf("assemble disk %s on %s and mount it", op.disk, h.to))
}
