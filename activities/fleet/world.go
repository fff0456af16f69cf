package fleet

import (
	"context"
	"time"

	"github.com/ebb-storage/ebb/activities/ec2"
	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// EC2 is the World as EC2 describes it.
type EC2 struct{ API *ec2.Activities }

// Census implements World.
func (e EC2) Census(ctx context.Context) (fleet.Census, error) {
	f, err := e.API.Fleet(ctx)
	if err != nil {
		return fleet.Census{}, err
	}
	c := fleet.Census{Detached: f.Detached, Running: plan.Running{
		MovesByNode: f.MovesByNode, MovesByZone: f.MovesByZone, ExtraGiB: f.ExtraGiB, Modifications: f.Modifications,
	}}
	for _, n := range f.MovesByNode {
		c.Running.Moves += n
	}
	for _, n := range f.Nodes {
		c.Nodes = append(c.Nodes, fleet.Node{Node: n.Node, Zone: n.Zone, Disks: n.Disks})
	}
	return c, nil
}

// DisksOn implements World.
func (e EC2) DisksOn(ctx context.Context, nodes []string) ([]contract.DiskFacts, error) {
	return e.API.DisksOn(ctx, nodes)
}

// Leftovers implements World.
func (e EC2) Leftovers(ctx context.Context, minAge, grace, retention time.Duration) ([]contract.Leftover, error) {
	return e.API.Leftovers(ctx, minAge, grace, retention)
}

// DeleteSnapshot implements World.
func (e EC2) DeleteSnapshot(ctx context.Context, disk contract.DiskID, snapshot string) error {
	return e.API.DeleteSnapshot(ctx, disk, snapshot)
}
