package stubnode

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
)

// HerdZone is where all of a Herd is.
const HerdZone = "us-east-1a"

// Herd is a fleet without EC2: disks of one volume each, as EC2 would describe them
// and, on Nodes, as their nodes see them. It is the EC2 of its nodes and the World of
// the fleet's activities. Its methods are safe for concurrent use; its fields belong
// to a test whose workflows do not run at that moment.
type Herd struct {
	Nodes   *Nodes
	Disks   map[contract.DiskID]contract.DiskFacts
	Found   []contract.Leftover // what Leftovers answers
	Deleted []string            // snapshots

	mu sync.Mutex
}

// NewHerd makes a fleet without disks.
func NewHerd() *Herd {
	h := &Herd{Disks: map[contract.DiskID]contract.DiskFacts{}}
	h.Nodes = New(h)
	return h
}

// HerdDisk is the id of disk n.
func HerdDisk(n int) contract.DiskID { return contract.DiskID(fmt.Sprintf("d-%017x", n)) }

// Add makes disk n on a node: a filesystem of 1000 GiB, of which so much is used, on
// a gp3 volume. Its tag team is t0 or t1.
func (h *Herd) Add(n int, name, node string, backingGiB, usedGiB int64) contract.DiskID {
	id := HerdDisk(n)
	v := contract.VolumeFacts{
		ID: fmt.Sprintf("vol-%017x", n), State: "in-use", SizeGiB: backingGiB, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125, Zone: HerdZone,
		Role: contract.RoleActive, Generation: 1, Node: node, AttachState: "attached", Tags: map[string]string{"team": fmt.Sprintf("t%d", n%2)},
	}
	h.mu.Lock()
	h.Disks[id] = contract.DiskFacts{Disk: id, Name: name, Volumes: []contract.VolumeFacts{v}}
	h.mu.Unlock()
	h.Nodes.Put(Disk{
		ID: id, Name: name, SizeBytes: 1000 * contract.GiB, UsedBytes: usedGiB * contract.GiB, Node: node, Filesystem: contract.XFS,
		Members: []contract.Member{{Volume: v.ID, Bytes: backingGiB * contract.GiB}},
	})
	return id
}

// Disk is what EC2 would describe of a disk.
func (h *Herd) Disk(id contract.DiskID) contract.DiskFacts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Disks[id]
}

// Resize gives a disk's only volume another size and returns the one it had; false:
// there is no such disk.
func (h *Herd) Resize(id contract.DiskID, toGiB int64) (was int64, ok bool) {
	h.mu.Lock()
	f := h.Disks[id]
	if len(f.Volumes) > 0 {
		was, ok = f.Volumes[0].SizeGiB, true
		f.Volumes = slices.Clone(f.Volumes)
		f.Volumes[0].SizeGiB = toGiB
		h.Disks[id] = f
	}
	h.mu.Unlock()
	if ok {
		h.Nodes.With(id, func(d *Disk) { d.Members[0].Bytes = toGiB * contract.GiB })
	}
	return was, ok
}

// AttachedGiB implements EC2.
func (h *Herd) AttachedGiB(node string) map[string]int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]int64{}
	for _, d := range h.Disks {
		for _, v := range d.Volumes {
			if v.Node == node {
				out[v.ID] = v.SizeGiB
			}
		}
	}
	return out
}

// Census counts the disks by node.
func (h *Herd) Census(context.Context) (fleet.Census, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := map[string]int{}
	var c fleet.Census
	for id, d := range h.Disks {
		if n := d.Node(); n != "" {
			count[n]++
		} else {
			c.Detached = append(c.Detached, id)
		}
	}
	for n, k := range count {
		c.Nodes = append(c.Nodes, fleet.Node{Node: n, Zone: HerdZone, Disks: k})
	}
	slices.SortFunc(c.Nodes, func(a, b fleet.Node) int { return strings.Compare(a.Node, b.Node) })
	return c, nil
}

// DisksOn lists the disks of nodes, no more of them than EC2 takes at once; none
// given: all disks.
func (h *Herd) DisksOn(_ context.Context, nodes []string) ([]contract.DiskFacts, error) {
	if len(nodes) > fleet.ShardNodes {
		return nil, fmt.Errorf("BROKEN: %d nodes at once", len(nodes))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []contract.DiskFacts
	for _, d := range h.Disks {
		if len(nodes) == 0 || slices.Contains(nodes, d.Node()) {
			out = append(out, d)
		}
	}
	return out, nil
}

// Leftovers answers with Found.
func (h *Herd) Leftovers(context.Context, time.Duration, time.Duration, time.Duration) ([]contract.Leftover, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.Found), nil
}

// DeleteSnapshot notes the snapshot in Deleted.
func (h *Herd) DeleteSnapshot(_ context.Context, _ contract.DiskID, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Deleted = append(h.Deleted, id)
	return nil
}
