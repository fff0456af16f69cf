package control

import (
	"context"
	"slices"
)

// Nodes are those that had disks when Rightsize last looked at the fleet;
// exit.NotFound when it never did. Detached disks are on none.
func (c *Client) Nodes(ctx context.Context) ([]string, error) {
	e, err := c.LastRightsize(ctx)
	if err != nil {
		return nil, err
	}
	d, err := c.Decided(ctx, e)
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, disk := range d.Disks {
		if disk.Node != "" {
			nodes = append(nodes, disk.Node)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes), nil
}
