package cmd

import (
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/size"
)

// diskView is a disk as list and show print it: what EC2, the node and Temporal
// know.
type diskView struct {
	Disk        contract.DiskID        `json:"disk"`
	Name        string                 `json:"name,omitempty"`
	Node        string                 `json:"node,omitempty"`
	Volumes     []contract.VolumeFacts `json:"volumes"`
	Measurement *contract.Measurement  `json:"measurement,omitempty"`
	Unmeasured  string                 `json:"unmeasured,omitempty"`
	Operation   *control.Running       `json:"operation,omitempty"`
	facts       contract.DiskFacts
}

func newDiskView(r contract.DiskReport, op *control.Running) diskView {
	return diskView{
		Disk: r.Facts.Disk, Name: r.Facts.Name, Node: r.Facts.Node(), Volumes: r.Facts.Volumes,
		Measurement: r.Measurement, Unmeasured: r.Unmeasured, Operation: op, facts: r.Facts,
	}
}

// backingGiB is what the user pays for now, apart from a move.
func (v diskView) backingGiB() int64 {
	var sum int64
	for _, vol := range v.facts.Active() {
		sum += vol.SizeGiB
	}
	return sum
}

func (v diskView) state() string {
	switch {
	case v.Operation != nil:
		s := control.Verb(v.Operation.Operation)
		if v.Operation.Phase != "" {
			s += ": " + string(v.Operation.Phase)
		}
		if v.Operation.Paused {
			s += " (paused)"
		}
		return s
	case v.Measurement != nil && v.Measurement.Full:
		return "full, writes wait"
	case v.Measurement != nil && v.Measurement.Move != nil:
		return "move left over"
	case v.Measurement != nil:
		return "ok"
	case len(v.facts.Active()) == 0:
		return "no active volume"
	case v.Node == "":
		return "detached"
	case v.Unmeasured != "":
		return "unknown: " + v.Unmeasured
	}
	return ""
}

func (v diskView) row() []string {
	name, fs, diskSize, used, percent := v.Name, "", "", "", ""
	if m := v.Measurement; m != nil {
		fs, diskSize, used = string(m.Filesystem), size.Bytes(m.SizeBytes), size.Bytes(m.PoolUsedBytes)
		if m.PoolBytes > 0 {
			percent = fmt.Sprintf("%.0f%%", 100*float64(m.PoolUsedBytes)/float64(m.PoolBytes))
		}
	}
	if name == "" {
		name = "-"
	}
	backing := ""
	if g := v.backingGiB(); g > 0 {
		backing = fmt.Sprintf("%d GiB", g)
	}
	return []string{name, string(v.Disk), orDash(v.Node), orDash(fs), orDash(diskSize), orDash(backing), orDash(used), orDash(percent), v.state()}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
