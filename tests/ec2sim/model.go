package ec2sim

import (
	"maps"
	"slices"
	"time"
)

// States of a volume, an attachment, a modification and a snapshot, in EC2's words.
const (
	StateCreating  = "creating"
	StateAvailable = "available"
	StateInUse     = "in-use"
	StateDeleting  = "deleting"
	StateError     = "error"

	StateAttaching = "attaching"
	StateAttached  = "attached"
	StateDetaching = "detaching"
	StateBusy      = "busy"

	StateModifying  = "modifying"
	StateOptimizing = "optimizing"
	StateCompleted  = "completed"
	StateFailed     = "failed"

	StatePending = "pending"

	StateRunning    = "running"
	StateStopped    = "stopped"
	StateTerminated = "terminated"
)

// Shape is what a volume is billed for and what ModifyVolume changes. IOPS and
// ThroughputMiB are zero for types that have none of their own.
type Shape struct {
	SizeGiB       int32  `json:"sizeGiB"`
	Type          string `json:"type"`
	IOPS          int32  `json:"iops,omitempty"`
	ThroughputMiB int32  `json:"throughputMiB,omitempty"`
}

// Volume is the true state of a volume, which describe calls may lag behind.
type Volume struct {
	Shape
	ID         string            `json:"id"`
	Zone       string            `json:"zone"`
	State      string            `json:"state"`
	Created    time.Time         `json:"created"`
	Encrypted  bool              `json:"encrypted,omitempty"`
	KMSKeyID   string            `json:"kmsKeyId,omitempty"`
	SnapshotID string            `json:"snapshotId,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	// Health as DescribeVolumeStatus tells it; "" is ok.
	Health string `json:"health,omitempty"`
	// Attachment is nil when the volume is attached nowhere.
	Attachment *Attachment `json:"attachment,omitempty"`
	// Modifications, the latest last.
	Modifications []Modification `json:"modifications,omitempty"`
	// Due is when creating or deleting ends.
	Due time.Time `json:"due,omitzero"`
	// AsyncFailure is how creating ends when it does not end well: "vanish" or "error".
	AsyncFailure string `json:"asyncFailure,omitempty"`
	// Copying volumes still get their snapshot's contents.
	Copying bool `json:"copying,omitempty"`
	// Token is the client token it was created with.
	Token string `json:"token,omitempty"`
}

// Attachment of a volume to an instance.
type Attachment struct {
	InstanceID          string    `json:"instanceId"`
	Device              string    `json:"device"`
	State               string    `json:"state"`
	Time                time.Time `json:"time"`
	DeleteOnTermination bool      `json:"deleteOnTermination,omitempty"`
	// Due is when attaching or detaching goes on.
	Due time.Time `json:"due,omitzero"`
	// Hung attachments stay attaching until they are detached.
	Hung bool `json:"hung,omitempty"`
	// Force makes a detach end even when the node does not give the device back.
	Force bool `json:"force,omitempty"`
	// DeleteAfterDetach ends the volume with its terminated instance.
	DeleteAfterDetach bool `json:"deleteAfterDetach,omitempty"`
	// Reason says why it hangs or is busy.
	Reason string `json:"reason,omitempty"`
}

// Modification of a volume by ModifyVolume.
type Modification struct {
	State         string    `json:"state"`
	From          Shape     `json:"from"`
	To            Shape     `json:"to"`
	Start         time.Time `json:"start"`
	End           time.Time `json:"end,omitzero"`
	StatusMessage string    `json:"statusMessage,omitempty"`
	// Failure is why the modification will fail once it is due; "" when it will not.
	Failure string `json:"failure,omitempty"`
	// Tries to tell the node of the new size.
	Tries int `json:"tries,omitempty"`
	// Due is when the present state ends, Since when it began.
	Due   time.Time `json:"due,omitzero"`
	Since time.Time `json:"since,omitzero"`
}

// Snapshot of a volume.
type Snapshot struct {
	ID          string            `json:"id"`
	VolumeID    string            `json:"volumeId"`
	SizeGiB     int32             `json:"sizeGiB"`
	State       string            `json:"state"`
	Description string            `json:"description,omitempty"`
	Start       time.Time         `json:"start"`
	Completed   time.Time         `json:"completed,omitzero"`
	Encrypted   bool              `json:"encrypted,omitempty"`
	KMSKeyID    string            `json:"kmsKeyId,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Due         time.Time         `json:"due,omitzero"`
	// Copying snapshots have not got all contents yet.
	Copying bool `json:"copying,omitempty"`
	// Fails makes the snapshot end in "error".
	Fails bool `json:"fails,omitempty"`
	// DataBytes is what the copied contents occupy.
	DataBytes int64 `json:"dataBytes,omitempty"`
}

// Instance is a machine volumes are attached to.
type Instance struct {
	ID   string `json:"id"`
	Type string `json:"type"` // m5.large when empty
	Zone string `json:"zone"` // the first zone when empty
	// State is running when empty.
	State    string            `json:"state,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	Launched time.Time         `json:"launched,omitzero"`
	// NetworkInterfaces count against a shared attachment limit; 1 when zero.
	NetworkInterfaces int `json:"networkInterfaces,omitempty"`
	// IMDSPort of the instance's metadata service; the server chooses one when zero.
	IMDSPort int `json:"imdsPort,omitempty"`
}

func (v *Volume) clone() *Volume {
	c := *v
	c.Tags = maps.Clone(v.Tags)
	c.Modifications = slices.Clone(v.Modifications)
	if v.Attachment != nil {
		a := *v.Attachment
		c.Attachment = &a
	}
	return &c
}

// modification returns the latest one, nil when there was none.
func (v *Volume) modification() *Modification {
	if len(v.Modifications) == 0 {
		return nil
	}
	return &v.Modifications[len(v.Modifications)-1]
}

func (m *Modification) running() bool {
	return m != nil && (m.State == StateModifying || m.State == StateOptimizing)
}

func (sn *Snapshot) clone() *Snapshot {
	c := *sn
	c.Tags = maps.Clone(sn.Tags)
	return &c
}

func (i *Instance) clone() *Instance {
	c := *i
	c.Tags = maps.Clone(i.Tags)
	return &c
}
