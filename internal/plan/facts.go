package plan

import (
	"slices"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Facts is what is known of one disk now. Whoever fills it takes sizes and usage
// from the node's measurement and volumes from EC2.
type Facts struct {
	Disk contract.DiskID `json:"disk"`
	Name string          `json:"name,omitempty"`

	// What a policy selects by; empty where it is not known.
	Cluster      string            `json:"cluster,omitempty"`
	Namespace    string            `json:"namespace,omitempty"`
	Claim        string            `json:"claim,omitempty"`
	StorageClass string            `json:"storageClass,omitempty"`
	NodeGroup    string            `json:"nodeGroup,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	Tags         map[string]string `json:"tags,omitempty"`

	Node string `json:"node,omitempty"` // instance id; empty: attached nowhere
	Zone string `json:"zone,omitempty"`

	SizeBytes     int64 `json:"sizeBytes"`     // the disk's own size
	OverheadBytes int64 `json:"overheadBytes"` // of the backing: headers, logs, metadata
	UsedBytes     int64 `json:"usedBytes"`     // mapped in the pool
	// FilesystemUsedBytes is what the filesystem counts, less than UsedBytes
	// where deleted files were not trimmed yet; 0: not known.
	FilesystemUsedBytes int64   `json:"filesystemUsedBytes,omitempty"`
	FillRate            float64 `json:"fillRate,omitempty"` // bytes per second; below 0 counts as 0
	Full                bool    `json:"full,omitempty"`     // writes wait for a free block

	Volumes []Volume `json:"volumes"` // the backing, by index
	// Striped: the volumes were made together, for performance. False: those after
	// the first were appended.
	Striped bool `json:"striped,omitempty"`
	// Modified is when the disk was modified in the last 24 hours, in any order:
	// each ModifyVolume that was asked for one of its volumes, and each volume that
	// was appended. It is the disk's own, so moves carry it over from one backing to
	// the next. Older times do no harm; without any the volumes' own count.
	Modified []time.Time `json:"modified,omitempty"`
	// DayPeakBytes is the most that was used in the last 24 hours, without what a
	// trim gives back. It counts where the policy looks back less than a day; 0: not
	// known.
	DayPeakBytes int64 `json:"dayPeakBytes,omitempty"`
	// Operation that runs on the disk ("Shrink", ...); empty: none.
	Operation string `json:"operation,omitempty"`
}

// History is what planning needs of a disk's past (usage.Summarize).
type History = contract.UsageSummary

// Volume is one EBS volume of a backing.
type Volume struct {
	ID             string `json:"id,omitempty"`
	GiB            int64  `json:"gib"`
	Type           string `json:"type"`
	IOPS           int32  `json:"iops,omitempty"`
	ThroughputMiBs int32  `json:"throughputMiBs,omitempty"`
	// Modified is when the modifications of the last 24 hours were asked for, in
	// any order; older ones do no harm.
	Modified []time.Time `json:"modified,omitempty"`
	// OptimizingUntil is when the modification under way is expected to be
	// completed; zero, or past: none is.
	OptimizingUntil time.Time `json:"optimizingUntil,omitzero"`
}

// BackingGiB is what is paid for.
func (f Facts) BackingGiB() int64 {
	var n int64
	for _, v := range f.Volumes {
		n += v.GiB
	}
	return n
}

// PoolBytes is what of the backing can hold data.
func (f Facts) PoolBytes() int64 { return f.BackingGiB()*contract.GiB - f.OverheadBytes }

// delivered is what the backing gives: surely what its best volume does, since
// what is hot may lie on one, and at most what all do together.
func (l Limits) delivered(f Facts) (surely, together performance) {
	for _, v := range f.Volumes {
		p := l.performance(v)
		surely = performance{max(surely.iops, p.iops), max(surely.mibs, p.mibs)}
		together = performance{together.iops + p.iops, together.mibs + p.mibs}
	}
	if f.Striped {
		surely = together
	}
	return surely, together
}

type performance struct{ iops, mibs int32 }

// performance of one volume; zeros where it is not known (st1, sc1, standard).
func (l Limits) performance(v Volume) performance {
	iops, mibs := Delivered(v.facts())
	if t := l.Types[v.Type]; t.CarriedMiBs > 0 {
		mibs = min(t.CarriedMiBs, iops/t.IOPSPerMiBs)
	}
	return performance{iops, mibs}
}

func (v Volume) facts() contract.VolumeFacts {
	return contract.VolumeFacts{SizeGiB: v.GiB, Type: v.Type, IOPS: v.IOPS, ThroughputMiBs: v.ThroughputMiBs}
}

// OverheadBytes is at most what Ebb itself needs of a backing of gib made in
// one piece: headers, logs, and metadata for twice the data (docs/format.md).
func OverheadBytes(gib int64) int64 { return 16<<20 + gib*contract.GiB/1000 }

// Tags by which the EBS CSI driver names the claim a volume was made for.
const (
	tagPVCNamespace = "kubernetes.io/created-for/pvc/namespace"
	tagPVC          = "kubernetes.io/created-for/pvc/name"
)

// FactsOf is what EC2 and the node told of a disk. Labels, storage class, node
// group and cluster are not known to them; namespace and claim come from the
// EBS CSI driver's tags or from a name such as namespace/claim. Without a
// measurement the usage is not known, and Decide says so.
func FactsOf(r contract.DiskReport) Facts {
	f := Facts{Disk: r.Facts.Disk, Name: r.Facts.Name, Node: r.Facts.Node()}
	if ns, claim, ok := strings.Cut(f.Name, "/"); ok && !strings.Contains(claim, "/") {
		f.Namespace, f.Claim = ns, claim
	}
	for _, v := range r.Facts.Active() {
		f.Volumes = append(f.Volumes, Volume{
			ID: v.ID, GiB: v.SizeGiB, Type: v.Type, IOPS: v.IOPS, ThroughputMiBs: v.ThroughputMiBs, OptimizingUntil: v.OptimizingUntil,
		})
		f.Zone = v.Zone
		if f.Tags == nil {
			f.Tags = v.Tags
		}
	}
	f.Modified = modifiedOf(r.Facts.Active())
	if ns, claim := f.Tags[tagPVCNamespace], f.Tags[tagPVC]; ns != "" && claim != "" {
		f.Namespace, f.Claim = ns, claim
	}
	if r.Measurement != nil {
		f = f.Measured(*r.Measurement)
	}
	return f
}

// modifiedOf is the disk's modifications as its volumes' tags tell: each tag holds
// those of the whole disk, but a call that failed may have left one behind the others.
func modifiedOf(volumes []contract.VolumeFacts) []time.Time {
	var all []time.Time
	for _, v := range volumes {
		all = append(all, v.Modified...)
	}
	slices.SortFunc(all, time.Time.Compare)
	return slices.CompactFunc(all, time.Time.Equal)
}

// MoveLeft is the Operation of a disk with a move of which no operation is known: it
// ended when its node was away for longer than it waits.
const MoveLeft = "a move"

// Measured is the facts with what the disk's node measured.
func (f Facts) Measured(m contract.Measurement) Facts {
	f.SizeBytes, f.OverheadBytes, f.UsedBytes = m.SizeBytes, m.OverheadBytes, m.PoolUsedBytes
	f.FilesystemUsedBytes, f.FillRate, f.Full = m.FilesystemUsedBytes, m.FillRate, m.Full
	if m.Node != "" {
		f.Node = m.Node
	}
	if m.Move != nil {
		f.Operation = MoveLeft
	}
	return f
}
