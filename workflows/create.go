package workflows

import (
	"errors"
	"fmt"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// firstBackingShare of the disk's size is the first backing by default: data
// makes it grow.
const firstBackingShare = 16

// create is one run of CreateDisk.
type create struct {
	*operation
	in     contract.CreateDiskInput
	zone   string
	volume contract.VolumeFacts
}

// CreateDisk makes a disk of one volume with a fresh filesystem. Started again
// with the same input it finishes what an earlier run began, or finds it done.
func CreateDisk(ctx workflow.Context, in contract.CreateDiskInput) (contract.Result, error) {
	if in.Filesystem == "" {
		in.Filesystem = contract.XFS
	}
	if in.BackingGiB == 0 {
		in.BackingGiB = max(plan.CeilGiB(in.SizeBytes/firstBackingShare), 1)
	}
	return operate(ctx, header{
		name: contract.CreateDiskWorkflow, disk: in.Disk, set: in.Settings, input: in.Validate(),
		phases: []contract.Phase{contract.PhaseCheck, contract.PhaseCreate, contract.PhaseAttach, contract.PhasePrepare, contract.PhaseCommit},
	}, func(ctx workflow.Context, op *operation) error {
		c := &create{operation: op, in: in}
		return c.run(ctx)
	})
}

func (c *create) run(ctx workflow.Context) error {
	// 1. Check.
	done := false
	err := c.step(ctx, contract.PhaseCheck, alone, func() (err error) { done, err = c.check(ctx); return err })
	if err != nil || done {
		return err
	}
	if c.in.DryRun {
		c.result.Steps = []string{
			fmt.Sprintf("create a volume of %d GiB in %s", c.in.BackingGiB, c.zone),
			fmt.Sprintf("attach it to %s", c.in.Node),
			fmt.Sprintf("format a disk of %s with %s", plan.Bytes(c.in.SizeBytes), c.in.Filesystem),
		}
		return nil
	}
	// 2. Create its volume, unless an earlier run has.
	c.onUndo("delete the volume", c.undoCreate)
	if c.volume.ID == "" {
		if err := c.step(ctx, contract.PhaseCreate, alone, func() error { return c.create(ctx) }); err != nil {
			return err
		}
	}
	// 3. Attach it.
	c.onUndo("detach the volume", c.undoAttach)
	err = c.step(ctx, contract.PhaseAttach, alone, func() error {
		return c.attach(ctx, c.volume.ID, c.node, true)
	})
	if err != nil {
		return err
	}
	// 4. Format and mount it.
	c.onUndo("take the disk down", c.undoFormat)
	if err := c.step(ctx, contract.PhasePrepare, alone, func() error { return c.format(ctx) }); err != nil {
		return err
	}
	// 5. It is the disk's active volume.
	c.final = true
	return c.step(ctx, contract.PhaseCommit, alone, func() error {
		_, err := control(ctx, c.operation, contract.TagVolume, contract.TagVolumeInput{
			Disk: c.disk, Volume: c.volume.ID, Role: contract.RoleActive, Generation: 1,
		}, brief)
		if err == nil {
			c.undos = nil
		}
		return err
	})
}

// check says whether the same disk exists already.
func (c *create) check(ctx workflow.Context) (done bool, err error) {
	facts, err := control(ctx, c.operation, contract.DescribeDisk, contract.DescribeDiskInput{Disk: c.disk}, brief)
	if err != nil {
		return false, err
	}
	if len(facts.Active()) > 0 {
		return true, c.same(ctx, facts)
	}
	n, err := control(ctx, c.operation, contract.DescribeNode, contract.DescribeNodeInput{Node: c.in.Node}, brief)
	if err != nil {
		return false, err
	}
	begun := facts.Of(1, contract.RoleIncoming)
	switch {
	case n.State != "running":
		return false, contract.Refuse(contract.NodeUnknown, "node %s is %s", n.Node, n.State).WithDisk(c.disk).WithNext("start the instance, or name another one")
	case len(begun) != len(facts.Volumes) || len(begun) > 1:
		return false, contract.Refuse(contract.DiskExists, "EC2 has %d volumes tagged with this disk, none of them active", len(facts.Volumes)).
			WithDisk(c.disk).WithNext("choose another id, or delete the disk first")
	case len(begun) == 0 && n.FreeSlots < 1:
		return false, contract.Refuse(contract.AttachSlotsFull, "node %s can attach no more volumes", n.Node).WithDisk(c.disk).WithNext("name another node")
	}
	if len(begun) == 1 {
		c.volume = begun[0]
		switch v := c.volume; {
		case v.Zone != n.Zone:
			return false, contract.Refuse(contract.ZoneMismatch, "an earlier run made its volume in %s, node %s is in %s", v.Zone, n.Node, n.Zone).
				WithDisk(c.disk).WithVolume(v.ID).WithNext("delete the disk and create it again")
		case v.Node != "" && v.Node != c.in.Node:
			return false, contract.Refuse(contract.DiskExists, "an earlier run began it on node %s", v.Node).
				WithDisk(c.disk).WithNext("start again with that node, or delete the disk first")
		}
	}
	if err := c.fit(ctx, c.in.Node, checkTemporal); err != nil {
		return false, err
	}
	c.node, c.zone = c.in.Node, n.Zone
	c.planned(ctx, c.in.Name, 0, c.in.BackingGiB, "new disk")
	return false, nil
}

// same accepts an existing disk when it is what was asked for.
func (c *create) same(ctx workflow.Context, facts contract.DiskFacts) error {
	exists := contract.Refuse(contract.DiskExists, "a disk with this id exists").WithDisk(c.disk).WithNext("choose another id")
	if facts.Node() != c.in.Node || facts.Name != c.in.Name {
		return exists
	}
	c.node = facts.Node()
	m, err := c.measure(ctx)
	if err != nil {
		return err
	}
	if m.SizeBytes != c.in.SizeBytes || m.Filesystem != c.in.Filesystem {
		return exists
	}
	c.grown(m)
	return nil
}

func (c *create) create(ctx workflow.Context) error {
	v, err := control(ctx, c.operation, contract.CreateVolume, contract.CreateVolumeInput{
		Disk: c.disk, Name: c.in.Name, Move: c.operation.run, Generation: 1, Role: contract.RoleIncoming,
		Zone: c.zone, SizeGiB: c.in.BackingGiB, Spec: c.in.Volume,
	}, brief)
	c.volume = v
	return err
}

func (c *create) format(ctx workflow.Context) error {
	m, err := node(ctx, c.operation, contract.FormatDisk, contract.FormatDiskInput{
		Disk: c.disk, Name: c.in.Name, SizeBytes: c.in.SizeBytes, Volumes: []string{c.volume.ID},
		Filesystem: c.in.Filesystem, MountPath: c.in.MountPath,
	}, brief)
	if err == nil {
		c.grown(m)
	}
	if errors.Is(err, errSilent) {
		return contract.Refuse(contract.NodeUnreachable, "no agent has answered on node %s for %s", c.node, c.set.NodePatience).
			WithDisk(c.disk).WithNext("check that its node agent runs (ebb preflight --node %s), or name another node; then start again", c.node)
	}
	return err
}

// undoFormat takes the disk down. A node that does not answer is not waited for:
// nobody was ever given the disk, so its volume is taken away all the same.
func (c *create) undoFormat(ctx workflow.Context) error {
	queue := c.set.NodeTimeout
	if !c.lostAt.IsZero() {
		queue = min(queue, askPatience)
	}
	ctx = c.nodeOptions(ctx, string(contract.DisassembleDisk), brief, queue)
	_, err := awaited(ctx, c.operation, contract.DisassembleDisk, contract.DisassembleDiskInput{Disk: c.disk}, brief, nil)
	if noAgent(err) {
		c.wait(ctx, "")
		return nil
	}
	return err
}

func (c *create) undoAttach(ctx workflow.Context) error {
	if c.volume.ID == "" {
		return nil
	}
	return c.detach(ctx, contract.DetachVolumeInput{Volume: c.volume.ID, Node: c.node, Fresh: true})
}

func (c *create) undoCreate(ctx workflow.Context) error {
	found := []string{c.volume.ID}
	if c.volume.ID == "" {
		if err := workflow.Sleep(ctx, settlePause); err != nil {
			return err
		}
		facts, err := control(ctx, c.operation, contract.DescribeDisk, contract.DescribeDiskInput{Disk: c.disk}, brief)
		if err != nil {
			return err
		}
		found = ids(facts.Of(1, contract.RoleIncoming))
	}
	for _, id := range found {
		_, err := control(ctx, c.operation, contract.DeleteVolume, contract.DeleteVolumeInput{
			Disk: c.disk, Volume: id, Roles: []contract.Role{contract.RoleIncoming},
		}, brief)
		if err != nil {
			return err
		}
	}
	return nil
}
