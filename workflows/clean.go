package workflows

import (
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Clean removes volumes of a disk that nothing needs. It holds the disk's lock. A
// volume is deleted only when EC2's tags, the header on the volume itself and, for
// what a move left, the node where the disk is up all say that it is of no use. In
// doubt it is kept, and the result says why.
func Clean(ctx workflow.Context, in contract.CleanInput) (contract.Result, error) {
	return operate(ctx, header{
		name: contract.CleanWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(),
		phases: []contract.Phase{contract.PhaseCheck, contract.PhaseRetire},
	}, func(ctx workflow.Context, op *operation) error {
		c := &clean{operation: op, in: in}
		if err := op.step(ctx, contract.PhaseCheck, alone, func() error { return c.check(ctx) }); err != nil {
			return err
		}
		// A disk must not fill up while what it does not need is looked at.
		op.keepRoom(ctx)
		for _, l := range in.Leftovers {
			if err := op.step(ctx, contract.PhaseRetire, shared, func() error { return c.remove(ctx, l) }); err != nil {
				return err
			}
		}
		return nil
	})
}

type clean struct {
	*operation
	in    contract.CleanInput
	facts contract.DiskFacts
	// m is the disk as its node sees it; nil: it is up nowhere.
	m *contract.Measurement
	// ill is why the node the disk is attached to does not have it up.
	ill *contract.Refusal
}

func (c *clean) check(ctx workflow.Context) error {
	facts, err := c.located(ctx)
	if r, ok := contract.AsRefusal(err); ok && r.Code == contract.DiskUnknown {
		return nil // all is gone
	}
	if err != nil {
		return err
	}
	c.facts, c.m, c.ill, c.rehomed = facts, nil, nil, false
	if c.node == "" {
		return nil
	}
	// A node that does not answer is not waited for: the disk's lock is for what
	// the disk needs.
	m, err := contract.MeasureDisk.Execute(askNode(ctx, c.node), contract.MeasureDiskInput{Disk: c.disk})
	if r, refused := contract.AsRefusal(err); refused {
		c.ill = r
		return nil
	}
	if err != nil {
		return nodeRefusal(c.node, err).WithDisk(c.disk)
	}
	c.m = &m
	return nil
}

// fate notes what becomes of a leftover; a step that runs again corrects itself.
func (c *clean) fate(l contract.Leftover, deleted bool, format string, args ...any) {
	c.result.Fates = slices.DeleteFunc(c.result.Fates, func(f contract.Fate) bool { return f.Volume == l.Volume })
	c.result.Fates = append(c.result.Fates, contract.Fate{Leftover: l, Deleted: deleted, Why: fmt.Sprintf(format, args...)})
}

// remove decides about one volume and carries it out. What a rehome has changed
// since the last look is looked at again.
func (c *clean) remove(ctx workflow.Context, l contract.Leftover) error {
	if c.rehomed {
		if err := c.check(ctx); err != nil {
			return err
		}
	}
	var v *contract.VolumeFacts
	for i := range c.facts.Volumes {
		if c.facts.Volumes[i].ID == l.Volume {
			v = &c.facts.Volumes[i]
		}
	}
	switch {
	case v == nil:
		c.fate(l, true, "it is gone already")
		return nil
	case v.Role != l.Role || v.Generation != l.Generation:
		c.fate(l, false, "kept: its tags say %s, generation %d, by now", v.Role, v.Generation)
		return nil
	case v.Role == contract.RoleIncoming && len(c.facts.Active()) > 0 && c.m == nil:
		c.fate(l, false, "kept: the disk is up nowhere, and its next assembly may go on with the move; bring it up: ebb disk move %s", c.disk)
		return nil
	}
	if c.m != nil && (member(c.m.Members, v.ID) || c.m.Move != nil && member(c.m.Move.Members, v.ID)) {
		c.fate(l, false, "kept: node %s uses it, whatever its tags say", c.node)
		return nil
	}
	if v.Role == contract.RoleRetired && c.ill != nil {
		c.fate(l, false, "kept: node %s does not have the disk up (%s), and until it does an older generation may be all there is", c.node, c.ill)
		return nil
	}
	if v.Role == contract.RoleRetired && !c.replaced(*v) {
		c.fate(l, false, "kept: EC2 shows no active volume of a later generation by now; it may be the last copy of the disk")
		return nil
	}
	host := v.Node
	if host == "" {
		host = c.node
	}
	if host == "" {
		host = c.in.Hosts[v.Zone]
	}
	if host == "" {
		c.fate(l, false, "kept: no node in zone %s can read what is on it", v.Zone)
		return nil
	}
	why, err := c.inspect(ctx, *v, host)
	if err != nil {
		return err
	}
	if why != "" {
		c.fate(l, false, "kept: %s", why)
		return nil
	}
	_, err = control(ctx, c.operation, contract.DeleteVolume, contract.DeleteVolumeInput{
		Disk: c.disk, Volume: v.ID, Roles: []contract.Role{v.Role},
	}, brief)
	if r, refused := contract.AsRefusal(err); refused {
		c.fate(l, false, "kept: %s", r.Error())
		return nil
	}
	if err == nil {
		c.fate(l, true, "%s; its header agrees", l.Reason)
	}
	return err
}

// replaced says that the disk has an active volume of a later generation.
func (c *clean) replaced(v contract.VolumeFacts) bool {
	return slices.ContainsFunc(c.facts.Active(), func(a contract.VolumeFacts) bool { return a.Generation > v.Generation })
}

// inspect attaches the volume where it is not, reads its header, and detaches it.
// It returns why the volume must be kept; empty: everything agrees that nothing
// needs it.
func (c *clean) inspect(ctx workflow.Context, v contract.VolumeFacts, host string) (why string, err error) {
	if v.Node == "" {
		// Not Fresh: what is on it may count.
		if err := c.operation.attach(ctx, v.ID, host, false); err != nil {
			if r, refused := contract.AsRefusal(err); refused {
				return "it could not be attached to node " + host + " to read its header: " + r.Error(), nil
			}
			return "", err
		}
	}
	ask := contract.ReadHeadersInput{Volumes: []string{v.ID}}
	res, rerr := contract.ReadHeaders.Execute(askNode(ctx, host), ask)
	if rerr == nil && open(res, v.ID) {
		// What looks at every new device has it open for a moment.
		if err := workflow.Sleep(ctx, lookAgain); err != nil {
			return "", err
		}
		res, rerr = contract.ReadHeaders.Execute(askNode(ctx, host), ask)
	}
	switch {
	case rerr == nil && open(res, v.ID):
		return "something on node " + host + " has it open, so it stays attached there", nil
	case rerr != nil:
		why = "its header was not read: " + nodeRefusal(host, rerr).Message
	case len(res.Headers) != 1 || res.Headers[0].Volume != v.ID:
		why = "its header was not read: node " + host + " answered about another volume"
	default:
		why = disagrees(c.disk, v, res.Headers[0])
	}
	if why != "" && v.Node != "" {
		return why, nil // it stays where it was
	}
	if err := c.operation.detach(ctx, contract.DetachVolumeInput{Volume: v.ID, Node: host}); err != nil {
		if r, refused := contract.AsRefusal(err); refused {
			return "it does not come off node " + host + ": " + r.Error(), nil
		}
		return "", err
	}
	return why, nil
}

// open says that the volume is in use where its header was read.
func open(res contract.ReadHeadersResult, volume string) bool {
	return len(res.Headers) == 1 && res.Headers[0].Volume == volume && res.Headers[0].InUse
}

// disagrees says what of a volume's header speaks against deleting it.
func disagrees(disk contract.DiskID, v contract.VolumeFacts, h contract.VolumeHeader) string {
	switch {
	case !h.Present:
		return "its node does not see it"
	case h.InUse:
		return "something on its node has it open"
	case h.Problem != "":
		return "what is on it is not clear: " + h.Problem
	case h.Blank && v.Role == contract.RoleIncoming:
		return "" // it was never written to
	case h.Blank:
		return "it is blank, but its tags say " + string(v.Role)
	case h.Disk == "":
		return "it holds data that is not Ebb's"
	case h.Disk != disk:
		return fmt.Sprintf("its header says that it belongs to disk %s", h.Disk)
	case h.Generation != v.Generation:
		return fmt.Sprintf("its header says generation %d, its tags %d", h.Generation, v.Generation)
	case h.Role == contract.RoleActive:
		return "its header says that it is active"
	case v.Role == contract.RoleRetired && h.Role != contract.RoleRetired:
		return fmt.Sprintf("its header says %s, its tags retired", h.Role)
	}
	return ""
}
