package contract

import (
	"errors"
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

// InspectInput selects disks; the zero value is all.
type InspectInput struct {
	Disk      DiskID `json:"disk,omitempty"`
	Node      string `json:"node,omitempty"`      // only the disks attached to this instance
	FactsOnly bool   `json:"factsOnly,omitempty"` // EC2's view alone: no node is asked
	// History asks for the usage history as well, of the one disk named by Disk.
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
	if in.History && in.Disk == "" {
		errs = append(errs, errors.New("history: want one disk"))
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
	// disk has no hours.
	History *ReadHistoryResult `json:"history,omitempty"`
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
