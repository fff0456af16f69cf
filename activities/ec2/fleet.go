package ec2

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Fleet is how many disks there are and where, and what is being done to them.
type Fleet struct {
	Nodes []FleetNode // by id
	// Detached disks have active volumes, none of them attached; by id, at most
	// 1000.
	Detached []contract.DiskID
	// ExtraGiB are in volumes that are not part of a disk yet.
	ExtraGiB int64
	// Disks that a volume is attached for that is not part of them yet. A disk
	// with an appended volume counts like a move for that moment.
	MovesByNode, MovesByZone map[string]int
	// Modifications of all disks in the last 24 hours.
	Modifications int
}

// FleetNode is an instance that disks are attached to.
type FleetNode struct {
	Node, Zone string
	Disks      int
}

const maxDetached = 1000

// seenDisk is what is kept of a disk while the volumes go by.
type seenDisk struct {
	generation uint64 // the highest active one; 0: none
	index      int    // of the volume that node is of
	node, zone string // where that is attached; empty: nowhere

	incomingNode, incomingZone string // a volume on its way into the disk is attached there
	modified                   []time.Time
}

// Fleet counts all disks, those of the cluster when there is one, from one list
// of all volumes. Of each it keeps a few words, so that 100,000 volumes need some
// 20 MiB (TestFleetKeepsLittleInMemory). It changes nothing.
func (a *Activities) Fleet(ctx context.Context) (Fleet, error) {
	f := Fleet{MovesByNode: map[string]int{}, MovesByZone: map[string]int{}}
	disks := map[contract.DiskID]*seenDisk{}
	names := interner{}
	err := a.eachPage(ctx, a.inTurn, a.all(contract.TagDisk), func(vs []types.Volume) {
		for _, v := range vs {
			id, ok := a.diskOf(v)
			if !ok {
				continue
			}
			d := disks[id]
			if d == nil {
				d = &seenDisk{}
				disks[contract.DiskID(strings.Clone(string(id)))] = d
			}
			if contract.Role(tagOf(v.Tags, contract.TagRole)) == contract.RoleIncoming {
				f.ExtraGiB += int64(aws.ToInt32(v.Size))
			}
			d.see(v, names)
			d.modified = a.counting(latest(d.modified, modifiedTimes(tagOf(v.Tags, contract.TagModified))))
		}
	})
	if err != nil {
		return Fleet{}, translate(err, "", "")
	}
	nodes := map[string]*FleetNode{}
	for id, d := range disks {
		f.Modifications += len(d.modified)
		if d.incomingNode != "" {
			f.MovesByNode[d.incomingNode]++
			f.MovesByZone[d.incomingZone]++
		}
		switch {
		case d.generation == 0:
		case d.node == "":
			f.Detached = append(f.Detached, id)
		case nodes[d.node] == nil:
			nodes[d.node] = &FleetNode{Node: d.node, Zone: d.zone, Disks: 1}
		default:
			nodes[d.node].Disks++
		}
	}
	for _, n := range nodes {
		f.Nodes = append(f.Nodes, *n)
	}
	slices.SortFunc(f.Nodes, func(x, y FleetNode) int { return strings.Compare(x.Node, y.Node) })
	slices.Sort(f.Detached)
	f.Detached = slices.Clone(f.Detached[:min(len(f.Detached), maxDetached)])
	return f, nil
}

// see takes note of a volume of the disk.
func (d *seenDisk) see(v types.Volume, names interner) {
	node, zone := attachedTo(v), aws.ToString(v.AvailabilityZone)
	switch contract.Role(tagOf(v.Tags, contract.TagRole)) {
	case contract.RoleIncoming:
		if node != "" {
			d.incomingNode, d.incomingZone = names.of(node), names.of(zone)
		}
	case contract.RoleActive:
		gen, _ := strconv.ParseUint(tagOf(v.Tags, contract.TagGeneration), 10, 64) // 0 when damaged: it is no backing then
		index, _ := strconv.Atoi(tagOf(v.Tags, contract.TagIndex))
		if gen < d.generation || gen == 0 {
			return
		}
		if gen > d.generation {
			d.generation, d.node = gen, ""
		}
		if node != "" && (d.node == "" || index < d.index) {
			d.node, d.zone, d.index = names.of(node), names.of(zone), index
		}
	}
}

// attachedTo is the instance the volume is attached to, or on its way to or from;
// empty: none.
func attachedTo(v types.Volume) string {
	for _, at := range v.Attachments {
		if at.State != types.VolumeAttachmentStateDetached {
			return aws.ToString(at.InstanceId)
		}
	}
	return ""
}

// interner keeps one copy of a name that many volumes have.
type interner map[string]string

func (in interner) of(s string) string {
	if have, ok := in[s]; ok {
		return have
	}
	s = strings.Clone(s)
	in[s] = s
	return s
}
