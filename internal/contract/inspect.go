package contract

import (
	"errors"
	"fmt"
	"time"
)

// Read-only workflows. They hold no disk's lock, change nothing and may run at
// any time, several at once.
const (
	// InspectWorkflow (InspectInput, InspectResult) reads what EC2 and the
	// nodes know of one disk or of all.
	InspectWorkflow = "Inspect"
	// PreflightWorkflow (PreflightNodeInput, PreflightNodeResult) asks a node's
	// agent whether Ebb can run there.
	PreflightWorkflow = "Preflight"
)

// MostInspected is the most disks of a node that one question names: a node that looks
// at so many answers in time even when some of them hang.
const MostInspected = 20

// InspectedAtOnce is how many disks of a node may be asked for their hours since a time
// in one question: what they remember fits one payload of Temporal's (2 MiB), whatever
// their hours and tags hold. At least 1.
func InspectedAtOnce(now, since time.Time) int {
	const hours = 3 << 19 / packedMost // 1.5 MiB
	each := int64(HistoryHours)
	if !since.IsZero() {
		each = min(max(int64(now.Sub(since)/time.Hour), 0)+2, each)
	}
	return int(min(max(hours/each, 1), MostInspected))
}

// InspectInput selects disks; the zero value is all.
type InspectInput struct {
	Disk      DiskID `json:"disk,omitempty"`
	Node      string `json:"node,omitempty"`      // only the disks attached to this instance
	FactsOnly bool   `json:"factsOnly,omitempty"` // EC2's view alone: no node is asked
	// Disks, at most MostInspected, are the only ones of Node that are wanted. They
	// come with their tags. One that is not on the node is not in the result.
	Disks []DiskID `json:"disks,omitempty"`
	// History asks for the usage history as well, of the disks named by Disk or Disks.
	// Those of Disks must fit one payload: see InspectedAtOnce.
	History bool      `json:"history,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of the history; zero: all there is
}

// Validate refuses what cannot be looked up.
func (in InspectInput) Validate() error {
	var errs []error
	if in.Disk != "" {
		errs = append(errs, in.Disk.Validate())
	}
	if in.Node != "" {
		errs = append(errs, ValidateInstanceID(in.Node))
	}
	if len(in.Disks) > 0 && (in.Node == "" || in.Disk != "") {
		errs = append(errs, errors.New("disks: want the node they are on, and no disk beside them"))
	}
	if n := len(in.Disks); n > MostInspected {
		errs = append(errs, fmt.Errorf("disks: want at most %d, not %d", MostInspected, n))
	}
	for _, d := range in.Disks {
		errs = append(errs, d.Validate())
	}
	if in.History && in.Disk == "" && len(in.Disks) == 0 {
		errs = append(errs, errors.New("history: want one disk, or disks of one node"))
	}
	if in.History && in.FactsOnly {
		errs = append(errs, errors.New("history: only the disk's node knows it"))
	}
	return errors.Join(errs...)
}

// InspectResult is the disks found, by id. A refusal comes with no disks.
type InspectResult struct {
	Disks   []DiskReport `json:"disks"`
	Refusal *Refusal     `json:"refusal,omitempty"`
}

// DiskReport is what EC2 and, when it answers in time, the disk's node know of
// a disk. An operation running on the disk is not part of it: Temporal itself
// answers that, under WorkflowID.
type DiskReport struct {
	Facts       DiskFacts    `json:"facts"`
	Measurement *Measurement `json:"measurement,omitempty"`
	Unmeasured  string       `json:"unmeasured,omitempty"` // why there is no Measurement
	// History is there when it was asked for and the node answered; that of a new
	// disk has no hours. Where Disks were asked for there are Hours instead, unless the
	// node's agent is older.
	History *ReadHistoryResult `json:"history,omitempty"`
	Hours   PackedHours        `json:"hours,omitzero"`
	Unread  string             `json:"unread,omitempty"` // why the History asked for is not known
}

// PreflightNodeInput names the node to ask.
type PreflightNodeInput struct {
	Node string `json:"node"`
}

// Validate refuses what is not an instance id.
func (in PreflightNodeInput) Validate() error { return ValidateInstanceID(in.Node) }

// PreflightNodeResult is the node's answer, or the reason why there is none.
type PreflightNodeResult struct {
	Preflight *PreflightResult `json:"preflight,omitempty"`
	Refusal   *Refusal         `json:"refusal,omitempty"`
}
