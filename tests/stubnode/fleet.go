package stubnode

import (
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Put makes a disk exist, as if it had been made and assembled earlier.
func (n *Nodes) Put(d Disk) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d.Generation == 0 {
		d.Generation = 1
	}
	if d.Retired == nil {
		d.Retired = map[uint64][]string{}
	}
	n.disks[d.ID] = &d
}

// Guide is what the disk's agent was told last, nil: nothing.
func (n *Nodes) Guide(id contract.DiskID) *contract.Guide {
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := n.disks[id]; d != nil {
		return d.Guide
	}
	return nil
}

func (n *Nodes) survey(node string, in contract.SurveyInput) (contract.SurveyResult, error) {
	var out contract.SurveyResult
	have := n.ec2.AttachedGiB(node)
	for _, ask := range in.Disks {
		s := contract.DiskSurvey{Disk: ask.Disk}
		d, err := n.here(node, ask.Disk)
		if err == nil {
			err = d.complete(node, have)
		}
		if err != nil {
			s.Problem = err.Error()
			out.Disks = append(out.Disks, s)
			continue
		}
		if ask.Guide != nil || ask.Forget {
			d.Guide = ask.Guide
		}
		m := d.measured(node, have)
		s.Measurement, s.Usage = &m, d.Usage
		if s.Usage == (contract.UsageSummary{}) {
			s.Usage = contract.UsageSummary{Known: 60 * 24 * time.Hour, PeakUsedBytes: d.UsedBytes}
		}
		if in.Hours {
			s.Hours = contract.PackHours(d.hours(in.Since).Hours)
		}
		out.Disks = append(out.Disks, s)
	}
	return out, nil
}

func (n *Nodes) headers(node string, in contract.ReadHeadersInput) (contract.ReadHeadersResult, error) {
	have := n.ec2.AttachedGiB(node)
	var out contract.ReadHeadersResult
	for _, v := range in.Volumes {
		h := contract.VolumeHeader{Volume: v, Present: have[v] != 0}
		if h.Present {
			n.header(&h)
		}
		out.Headers = append(out.Headers, h)
	}
	return out, nil
}

// header finds what the volume's header would say.
func (n *Nodes) header(h *contract.VolumeHeader) {
	is := func(m contract.Member) bool { return m.Volume == h.Volume }
	for _, d := range n.disks {
		if slices.ContainsFunc(d.Members, is) {
			h.Disk, h.Generation, h.Role, h.InUse = d.ID, d.Generation, contract.RoleActive, d.Node != ""
			return
		}
		if d.Move != nil && slices.ContainsFunc(d.Move.Members, is) {
			h.Disk, h.Generation, h.Role, h.Move, h.InUse = d.ID, d.Move.Generation, contract.RoleIncoming, d.Move.Move, d.Node != ""
			return
		}
		for g, vs := range d.Retired {
			if slices.Contains(vs, h.Volume) {
				h.Disk, h.Generation, h.Role = d.ID, g, contract.RoleRetired
				return
			}
		}
	}
	h.Blank = true
}
