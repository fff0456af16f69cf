// Package fleet holds what the workflows of a whole fleet and the control worker
// must agree on: the activities that look at all disks and plan for them. What the
// nodes are asked is in internal/contract.
//
// Planning is an activity, so that what was decided stands in the history as it
// was, whatever later versions of the planner or the policy would say.
package fleet

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

// Activities on contract.ControlQueue. None but TakeBudget, PublishRun and
// DeleteSnapshot changes anything; all are safe to repeat.
const (
	// TakeCensus reads the policy and counts disks by node. A policy with mistakes
	// is refused (BadInput) with their lines.
	TakeCensus contract.Activity[CensusInput, Census] = "TakeCensus"
	// TakeInventory lists the disks of some nodes with the rule that holds for each.
	TakeInventory contract.Activity[InventoryInput, Inventory] = "TakeInventory"
	// PlanDisks decides about disks.
	PlanDisks contract.Activity[PlanInput, Plan] = "PlanDisks"
	// CountRunning counts what is under way in the fleet.
	CountRunning contract.Activity[struct{}, Counted] = "CountRunning"
	// TakeBudget asks the workflow Budgets for room, and the clock whether a
	// maintenance window is open. What may begin counts from then on.
	TakeBudget contract.Activity[Ask, Room] = "TakeBudget"
	// PublishRun shows a run's totals in the worker's metrics.
	PublishRun contract.Activity[contract.RightsizeResult, struct{}] = "PublishRun"
	// ListLeftovers finds what EC2's tags say nothing needs.
	ListLeftovers contract.Activity[contract.ReapInput, Leftovers] = "ListLeftovers"
	// DeleteSnapshot deletes a snapshot Ebb made, when its tags still say so.
	DeleteSnapshot contract.Activity[DeleteSnapshotInput, struct{}] = "DeleteSnapshot"
)

// ShardDisks is how many disks one shard plans for at most, unless a single node
// has more: what they send each other fits Temporal's 2 MiB a payload twice.
const ShardDisks = 400

// ShardNodes is how many nodes one shard has at most: as many as a filter of EC2
// takes.
const ShardNodes = 200

// CensusInput carries the policy.
type CensusInput struct {
	Policy string `json:"policy,omitempty"`
}

// Census is who there is.
type Census struct {
	Nodes []Node `json:"nodes"`
	// Detached disks are attached nowhere: nobody can measure them. At most 1000.
	Detached []contract.DiskID `json:"detached,omitempty"`
	Budgets  plan.Budgets      `json:"budgets,omitzero"`
	Running  plan.Running      `json:"running,omitzero"`
	// Notes on the policy that stop nothing, as rules that hold for no disk.
	Notes []string `json:"notes,omitempty"`
}

// Node is an instance with disks.
type Node struct {
	Node  string `json:"node"`
	Zone  string `json:"zone"`
	Disks int    `json:"disks"`
}

// InventoryInput names nodes and says what holds for their disks.
type InventoryInput struct {
	Nodes    []string          `json:"nodes"`
	Policy   string            `json:"policy,omitempty"`
	Switches []contract.Switch `json:"switches,omitempty"`
	Extras   []contract.Extra  `json:"extras,omitempty"`
	Settings contract.Settings `json:"settings,omitzero"`
	Now      time.Time         `json:"now"`
}

// Inventory is disks with their rules.
type Inventory struct {
	// Rules that hold for at least one of the disks.
	Rules []plan.Rule `json:"rules"`
	Disks []Entry     `json:"disks"` // by id
}

// Entry is one disk before it was measured.
type Entry struct {
	Facts plan.Facts `json:"facts"`
	Rule  int        `json:"rule"` // in Rules
	// ExtraBytes are wanted free beside the rule's headroom until ExtraUntil.
	ExtraBytes int64     `json:"extraBytes,omitempty"`
	ExtraUntil time.Time `json:"extraUntil,omitzero"`
	// Guide is what the disk's agent is told; nil in modes that change nothing.
	Guide *contract.Guide `json:"guide,omitempty"`
}

// PlanInput is disks and what their nodes said.
type PlanInput struct {
	Inventory Inventory             `json:"inventory"`
	Surveys   []contract.DiskSurvey `json:"surveys"` // in any order
	Now       time.Time             `json:"now"`
}

// Plan is a decision for each disk, in the order of the inventory.
type Plan struct {
	Decisions []plan.Decision `json:"decisions"`
	Totals    contract.Totals `json:"totals"`
	// Rules by name, of the operations to start.
	Rules map[string]plan.Rule `json:"rules,omitempty"`
}

// Shard is what RightsizeShard is asked.
type Shard struct {
	Inventory InventoryInput `json:"inventory"`
	// Most is how many decisions to take it returns.
	Most int `json:"most"`
	// DryRun: agents are not told what the policy wants of them.
	DryRun bool `json:"dryRun,omitempty"`
}

// ShardResult is what a part of the fleet wants done now: Decisions to take or to
// propose, the most pressing first, at most Shard.Most of each.
type ShardResult struct {
	Do       []plan.Decision      `json:"do,omitempty"`
	Propose  []plan.Decision      `json:"propose,omitempty"`
	Rules    map[string]plan.Rule `json:"rules,omitempty"`
	Totals   contract.Totals      `json:"totals"`
	Problems []string             `json:"problems,omitempty"`
}

// Proposal is what Propose asks people.
type Proposal struct {
	Decision plan.Decision `json:"decision"`
	Workflow string        `json:"workflow"` // contract.GrowWorkflow, ShrinkWorkflow or RetypeWorkflow
	// One of these, by Workflow.
	Grow   *contract.GrowInput   `json:"grow,omitempty"`
	Shrink *contract.ShrinkInput `json:"shrink,omitempty"`
	Retype *contract.RetypeInput `json:"retype,omitempty"`
	Expiry time.Duration         `json:"expiryNanos"`
	// Budgets and Windows that the operation waits for once it is approved.
	Budgets plan.Budgets  `json:"budgets,omitzero"`
	Windows []plan.Window `json:"windows,omitempty"`
	// Again: it takes the place of one that was rejected.
	Again bool `json:"again,omitempty"`
}

// Answer is the payload of the updates contract.UpdateApprove and UpdateReject.
type Answer struct {
	By   string `json:"by"`
	Note string `json:"note,omitempty"`
	// For is how long a rejection holds. 0: as long as an answer was waited for.
	For time.Duration `json:"forNanos,omitempty"`
	// Now: the approved operation waits for no maintenance window.
	Now bool `json:"now,omitempty"`
}

// Proposed is the answer to contract.QueryProposal, and Propose's result.
type Proposed struct {
	Decision plan.Decision `json:"decision"`
	Expires  time.Time     `json:"expires"` // when the waiting ends: for an answer, then for room in the budgets
	// Answer is approved, rejected or expired; empty while it is waited for.
	Answer string    `json:"answer,omitempty"`
	At     time.Time `json:"at,omitzero"` // answered
	By     string    `json:"by,omitempty"`
	Note   string    `json:"note,omitempty"`
	Now    bool      `json:"now,omitempty"` // without waiting for a maintenance window
	// Until a rejection holds. Until then it may be approved after all.
	Until time.Time `json:"until,omitzero"`
	// Waits says what the approved operation waits for; empty: for nothing any more.
	Waits   string           `json:"waits,omitempty"`
	Outcome *contract.Result `json:"outcome,omitempty"` // of the operation; nil while it runs
	Held    string           `json:"held,omitempty"`    // why it was not begun although approved
}

// Leftovers is what ListLeftovers found, at most 1000.
type Leftovers struct {
	Leftovers []contract.Leftover `json:"leftovers"`
	More      bool                `json:"more,omitempty"`
}

// DeleteSnapshotInput names a snapshot Ebb made.
type DeleteSnapshotInput struct {
	Disk     contract.DiskID `json:"disk"`
	Snapshot string          `json:"snapshot"`
}

// Operation is the workflow that carries a decision out, with its input. The
// second result says why none does.
func Operation(d plan.Decision, r plan.Rule, base contract.Settings) (workflow string, input any, why string) {
	set := SettingsOf(r, base)
	switch d.Wanted {
	case plan.Grow, plan.Append:
		return contract.GrowWorkflow, contract.GrowInput{Disk: d.Disk, ToGiB: d.GiB, Reason: d.Reason, Settings: set}, ""
	case plan.Retype:
		return contract.RetypeWorkflow, contract.RetypeInput{
			Disk: d.Disk, Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs, Reason: d.Reason, Settings: set,
		}, ""
	case plan.Shrink:
		if d.Stripes > 1 {
			return "", nil, "a move to several volumes is not carried out yet"
		}
		in := contract.ShrinkInput{
			Disk: d.Disk, ToGiB: d.GiB, Verify: r.Verify, ThrottleMiBs: r.ThrottleMiBs, SkipSnapshot: !r.Snapshot,
			Retention: r.SnapshotRetention, GracePeriod: r.GracePeriod, HeadroomBytes: r.HeadroomBytes, HeadroomPercent: r.HeadroomPercent, Settings: set,
		}
		// The decision has chosen: what the old volumes have need not be what is needed.
		if d.Resume {
			in.ToGiB, in.ResumeOnly = 0, true
		} else {
			in.Volume = contract.VolumeSpec{Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs}
		}
		return contract.ShrinkWorkflow, in, ""
	}
	return "", nil, "nothing is to be done"
}

// SettingsOf is the settings of a disk's operations: the rule's, and base where it
// says nothing. They hold whole percent: the target is rounded up, or an operation would
// find what was planned by it too small, and the least step is 1% at least.
func SettingsOf(r plan.Rule, base contract.Settings) contract.Settings {
	base.UtilizationPercent = min(int(math.Ceil(r.Target*100-1e-9)), 95)
	base.CeilingGiB = r.CeilingGiB
	base.MinGrowGiB = max(r.MinStepGiB, 1)
	base.MinGrowPercent = max(int(r.MinStep*100+0.5), 1)
	if r.HeadroomTime > 0 {
		base.FillHorizon = r.HeadroomTime
	}
	return base
}

// Selects tells whether a switch is for a disk, for which rule holds.
func Selects(s contract.Switch, f plan.Facts, r plan.Rule) bool {
	is := func(want string, have ...string) bool { return want == "" || slices.Contains(have, want) }
	if !is(s.Disk, string(f.Disk), f.Name) || !is(s.Cluster, f.Cluster) || !is(s.Namespace, f.Namespace) || !is(s.Rule, strings.Split(r.Name, " + ")...) {
		return false
	}
	for k, v := range s.Tags {
		if have, ok := f.Tags[k]; !ok || have != v {
			return false
		}
	}
	return true
}
