package contract

import "time"

// Control activities run on ControlQueue, next to EC2. Each is safe to run
// twice and to run again after it did its work and reported failure: it
// describes first, decides, acts, verifies.
const (
	// DescribeDisk finds a disk's volumes by their ebb:disk tag.
	DescribeDisk Activity[DescribeDiskInput, DiskFacts] = "DescribeDisk"
	// ListDisks finds all disks of the account by their tags.
	ListDisks Activity[ListDisksInput, ListDisksResult] = "ListDisks"
	// DescribeNode tells an instance's state, zone and free attachment slots.
	DescribeNode Activity[DescribeNodeInput, NodeFacts] = "DescribeNode"
	// CreateVolume makes (or finds, by its ebb:move and ebb:index tags) the
	// volume of a move and waits until it is available.
	CreateVolume Activity[CreateVolumeInput, VolumeFacts] = "CreateVolume"
	// AttachVolume attaches to Node and waits until EC2 says attached. What does
	// not get there within Patience is detached again and refused as AttachStuck.
	AttachVolume Activity[AttachVolumeInput, VolumeFacts] = "AttachVolume"
	// DetachVolume detaches and waits until available, at most for Patience;
	// then it refuses as DetachStuck. EC2 goes on with what was asked.
	DetachVolume Activity[DetachVolumeInput, VolumeFacts] = "DetachVolume"
	// ModifyVolume raises size or performance and waits until the new size is
	// usable (optimizing). Does nothing, and spends nothing, when the volume is
	// already as asked.
	ModifyVolume Activity[ModifyVolumeInput, VolumeFacts] = "ModifyVolume"
	// TagVolume sets tags.
	TagVolume Activity[TagVolumeInput, struct{}] = "TagVolume"
	// DeleteVolume deletes a volume whose tags say it belongs to Disk in one of
	// Roles; a volume that is gone already is success.
	DeleteVolume Activity[DeleteVolumeInput, struct{}] = "DeleteVolume"
	// WaitForBackups waits until no snapshot of the volumes is pending.
	WaitForBackups Activity[WaitForBackupsInput, WaitForBackupsResult] = "WaitForBackups"
	// SnapshotDisk makes (or finds, by its ebb:move tag) a crash-consistent
	// snapshot of all volumes of a disk.
	SnapshotDisk Activity[SnapshotDiskInput, SnapshotDiskResult] = "SnapshotDisk"
)

// DescribeDiskInput names a disk.
type DescribeDiskInput struct {
	Disk DiskID `json:"disk"`
}

// DiskFacts is what EC2 knows of a disk.
type DiskFacts struct {
	Disk    DiskID        `json:"disk"`
	Name    string        `json:"name,omitempty"`
	Volumes []VolumeFacts `json:"volumes"` // every volume tagged with the disk, by generation and index
}

// Active is the volumes of the highest generation tagged active, by index.
func (f DiskFacts) Active() []VolumeFacts {
	var gen uint64
	for _, v := range f.Volumes {
		if v.Role == RoleActive && v.Generation > gen {
			gen = v.Generation
		}
	}
	return f.Of(gen, RoleActive)
}

// Of is the volumes of one generation in a role.
func (f DiskFacts) Of(generation uint64, role Role) []VolumeFacts {
	var out []VolumeFacts
	for _, v := range f.Volumes {
		if v.Generation == generation && v.Role == role {
			out = append(out, v)
		}
	}
	return out
}

// Node is the instance the active volumes are attached to, empty when none.
func (f DiskFacts) Node() string {
	for _, v := range f.Active() {
		if v.Node != "" {
			return v.Node
		}
	}
	return ""
}

// VolumeFacts is what EC2 knows of a volume.
type VolumeFacts struct {
	ID             string    `json:"id"`
	State          string    `json:"state"` // creating, available, in-use, deleting, deleted, error
	SizeGiB        int64     `json:"sizeGiB"`
	Type           string    `json:"type"`
	IOPS           int32     `json:"iops,omitempty"`
	ThroughputMiBs int32     `json:"throughputMiBs,omitempty"`
	Zone           string    `json:"zone"`
	Encrypted      bool      `json:"encrypted,omitempty"`
	KMSKeyID       string    `json:"kmsKeyId,omitempty"`
	Role           Role      `json:"role,omitempty"`
	Generation     uint64    `json:"generation,omitempty"`
	Index          int       `json:"index,omitempty"`
	Move           string    `json:"move,omitempty"`
	Node           string    `json:"node,omitempty"`        // instance id while attached or attaching
	AttachState    string    `json:"attachState,omitempty"` // attaching, attached, detaching, busy
	CreatedAt      time.Time `json:"createdAt"`
	RetiredAt      time.Time `json:"retiredAt,omitzero"`
	// Modified is when the disk's latest modifications were asked for, those of all
	// its volumes and appended volumes alike (TagModified), the oldest first.
	Modified []time.Time `json:"modified,omitempty"`
	// OptimizingUntil is when a modification under way may be over; zero: none is.
	OptimizingUntil time.Time         `json:"optimizingUntil,omitzero"`
	Tags            map[string]string `json:"tags,omitempty"` // user tags only
}

// ListDisksInput selects disks; the zero value is all.
type ListDisksInput struct {
	Node string `json:"node,omitempty"`
	// Nodes selects the disks attached to any of them, at most 200.
	Nodes []string `json:"nodes,omitempty"`
}

// ListDisksResult is all disks found, by id.
type ListDisksResult struct {
	Disks []DiskFacts `json:"disks"`
}

// DescribeNodeInput names an instance.
type DescribeNodeInput struct {
	Node string `json:"node"`
}

// NodeFacts is what EC2 knows of an instance.
type NodeFacts struct {
	Node      string `json:"node"`
	State     string `json:"state"` // pending, running, stopping, stopped, shutting-down, terminated
	Zone      string `json:"zone"`
	Type      string `json:"type"`
	FreeSlots int    `json:"freeSlots"` // volumes that can still be attached
}

// CreateVolumeInput describes a volume of a new backing.
type CreateVolumeInput struct {
	Disk       DiskID     `json:"disk"`
	Name       string     `json:"name,omitempty"`
	Move       string     `json:"move"` // operation id; identifies the volume on a second run
	Generation uint64     `json:"generation"`
	Index      int        `json:"index"`
	Role       Role       `json:"role"`
	Zone       string     `json:"zone"`
	SizeGiB    int64      `json:"sizeGiB"`
	Spec       VolumeSpec `json:"spec"`
	// Like, when set, is the volume whose performance (DESIGN: never slower),
	// encryption, key and user tags the new one carries where Spec is silent.
	Like *VolumeFacts `json:"like,omitempty"`
}

// AttachVolumeInput attaches a volume.
type AttachVolumeInput struct {
	Disk   DiskID `json:"disk"`
	Volume string `json:"volume"`
	Node   string `json:"node"`
	// Try counts from 1; each try uses another device name, since one may be
	// what is stuck. 0 is the first.
	Try int `json:"try,omitempty"`
	// Fresh says that the volume holds nothing that counts, as one made for this
	// operation: a stuck attachment is ended by force when asking does not end it
	// and the volume's tag says incoming too.
	Fresh bool `json:"fresh,omitempty"`
	// Patience; 0: the default of Settings.AttachPatience.
	Patience time.Duration `json:"patienceNanos,omitempty"`
}

// DetachVolumeInput detaches a volume from Node (a volume attached elsewhere is
// left alone: an earlier run or a rehome moved it).
type DetachVolumeInput struct {
	Disk   DiskID `json:"disk"`
	Volume string `json:"volume"`
	Node   string `json:"node"`
	// Force detaches from a dead node. Refused while EC2 says it is running.
	Force bool `json:"force,omitempty"`
	// Fresh says that the volume holds nothing that counts: it is detached by
	// force when asking does not detach it and its tag says incoming too. Other
	// volumes are never taken off a running node by force.
	Fresh bool `json:"fresh,omitempty"`
	// Patience; 0: the default of Settings.AttachPatience.
	Patience time.Duration `json:"patienceNanos,omitempty"`
}

// ModifyVolumeInput raises a volume; zero fields stay as they are. With a Type it makes
// the volume just so, less performance than before included, and its size stays: IOPS
// and ThroughputMiBs are then all that the type has to set.
type ModifyVolumeInput struct {
	Disk           DiskID `json:"disk"`
	Volume         string `json:"volume"`
	SizeGiB        int64  `json:"sizeGiB,omitempty"`
	Type           string `json:"type,omitempty"`
	IOPS           int32  `json:"iops,omitempty"`
	ThroughputMiBs int32  `json:"throughputMiBs,omitempty"`
}

// TagVolumeInput sets Ebb's own tags from the volume's header facts.
type TagVolumeInput struct {
	Disk       DiskID    `json:"disk"`
	Volume     string    `json:"volume"`
	Role       Role      `json:"role"`
	Generation uint64    `json:"generation"`
	RetiredAt  time.Time `json:"retiredAt,omitzero"`
}

// DeleteVolumeInput deletes a volume that is detached.
type DeleteVolumeInput struct {
	Disk   DiskID `json:"disk"`
	Volume string `json:"volume"`
	// Roles: the volume's tag must be one of these. RoleRetired alone: the disk must
	// have an active volume of a later generation, else this may be its last copy.
	Roles []Role `json:"roles"`
}

// WaitForBackupsInput names volumes.
type WaitForBackupsInput struct {
	Disk    DiskID   `json:"disk"`
	Volumes []string `json:"volumes"`
}

// WaitForBackupsResult says what was waited for.
type WaitForBackupsResult struct {
	Waited []string `json:"waited,omitempty"` // snapshot ids
}

// SnapshotDiskInput names the volumes of a disk: all attached to Node and taken at one
// moment, or, without Node, each for itself.
type SnapshotDiskInput struct {
	Disk    DiskID   `json:"disk"`
	Node    string   `json:"node,omitempty"`
	Volumes []string `json:"volumes"`
	Move    string   `json:"move"`
	Reason  string   `json:"reason,omitempty"`
	// Retention stands on the snapshots, for Reap. 0: Reap's own.
	Retention time.Duration `json:"retentionNanos,omitempty"`
	// Complete has it wait until the snapshots are complete: the volumes go next.
	Complete bool `json:"complete,omitempty"`
}

// SnapshotDiskResult is one snapshot id per volume.
type SnapshotDiskResult struct {
	Snapshots []string `json:"snapshots"`
}
