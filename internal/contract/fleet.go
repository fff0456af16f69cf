package contract

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"
)

// Workflows of the whole fleet. Schedules run them; a person may start them by
// hand at any time.
const (
	// RightsizeWorkflow (RightsizeInput, RightsizeResult) looks at every disk,
	// plans, and by mode records, asks or starts operations.
	RightsizeWorkflow = "Rightsize"
	// RightsizeShardWorkflow does the looking and planning for some nodes' disks.
	RightsizeShardWorkflow = "RightsizeShard"
	// ProposeWorkflow (ProposeInput, Proposal) asks people to approve one
	// operation. Its id is ProposeWorkflowID.
	ProposeWorkflow = "Propose"
	// BudgetsWorkflow says who may begin operations now, so that all who begin some
	// share the budgets. Its id is BudgetsWorkflowID; it begins when it is asked and
	// ends when nobody asks any more.
	BudgetsWorkflow = "Budgets"
	// ReapWorkflow (ReapInput, ReapResult) finds what nothing needs any more.
	ReapWorkflow = "Reap"
	// CleanWorkflow (CleanInput, Result) removes what one disk does not need.
	// Its id is the disk's, so nothing else happens to the disk meanwhile.
	CleanWorkflow = "Clean"
)

// Schedules that `ebb schedule apply` makes.
const (
	RightsizeSchedule = "ebb-rightsize"
	ReapSchedule      = "ebb-reap"
)

// ProposeWorkflowID is the id of the workflow that asks for an approval; there is
// one for each disk.
func ProposeWorkflowID(d DiskID) string { return "propose/" + string(d) }

// BudgetsWorkflowID is the id of the one workflow that is asked for budgets.
const BudgetsWorkflowID = "ebb-budgets"

// UpdateTake asks Budgets for room (internal/fleet: Ask, Room).
const UpdateTake = "take"

// Names of Propose's updates, signal and query.
const (
	UpdateApprove = "approve"  // Answer: start it
	UpdateReject  = "reject"   // Answer: do not, for a while
	SignalReplace = "replace"  // Proposal: what to ask instead of what was rejected
	QueryProposal = "proposal" // returns Proposal
)

// MaxHold is how long a rejection may hold.
const MaxHold = 366 * 24 * time.Hour

// Mode says how far Rightsize goes with a disk.
type Mode string

// Modes, from the least to the most.
const (
	Observe   Mode = "observe"   // plan and record
	Recommend Mode = "recommend" // plan and ask for approval
	Enforce   Mode = "enforce"   // plan and do
)

// Validate refuses other modes.
func (m Mode) Validate() error {
	if m != Observe && m != Recommend && m != Enforce {
		return fmt.Errorf("mode %q: want observe, recommend or enforce", clip(string(m)))
	}
	return nil
}

// Switch sets the mode of the disks it selects, whatever the policy says. All
// that is given must hold; one that gives nothing selects every disk.
type Switch struct {
	Mode Mode `json:"mode"`
	// Disk is an id or a name.
	Disk      string `json:"disk,omitempty"`
	Cluster   string `json:"cluster,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	// Rule is the name of the policy's rule that holds for a disk.
	Rule string            `json:"rule,omitempty"`
	Tags map[string]string `json:"tags,omitempty"`
}

// Same tells whether two switches select by the same words.
func (s Switch) Same(o Switch) bool {
	if s.Disk != o.Disk || s.Cluster != o.Cluster || s.Namespace != o.Namespace || s.Rule != o.Rule || len(s.Tags) != len(o.Tags) {
		return false
	}
	for k, v := range s.Tags {
		if w, ok := o.Tags[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// Extra is room that somebody wants free on a disk for a while, beside the
// policy's headroom.
type Extra struct {
	Disk  DiskID    `json:"disk"`
	Bytes int64     `json:"bytes"`
	Until time.Time `json:"until"`
}

// RightsizeInput is one look at the fleet.
type RightsizeInput struct {
	// Policy is the document, as YAML (docs/policy.md). Empty: the defaults, which
	// only observe.
	Policy string `json:"policy,omitempty"`
	// Switches override the policy's modes; the last that selects a disk counts.
	Switches []Switch `json:"switches,omitempty"`
	Extras   []Extra  `json:"extras,omitempty"`
	// Feed is for how long operations are started, as budgets allow, after
	// everything is planned. 0: DefaultFeed. What is left is the next run's.
	Feed time.Duration `json:"feedNanos,omitempty"`
	// MaxStarts bounds the operations and proposals one run begins. 0: DefaultStarts.
	MaxStarts int `json:"maxStarts,omitempty"`
	// ProposalExpiry is how long an approval is waited for. 0: DefaultExpiry.
	ProposalExpiry time.Duration `json:"proposalExpiryNanos,omitempty"`
	// DryRun plans and reports, whatever the modes are.
	DryRun bool `json:"dryRun,omitempty"`
	// Settings of the operations it starts, where the policy says nothing.
	Settings Settings `json:"settings,omitzero"`
}

// Defaults of RightsizeInput.
const (
	DefaultFeed   = 10 * time.Minute
	DefaultStarts = 500
	DefaultExpiry = 7 * 24 * time.Hour
)

// MaxFeed is the longest RightsizeInput.Feed: a run is ended after four hours, and looks
// at the fleet before.
const MaxFeed = 3 * time.Hour

// Limits of RightsizeInput.
const (
	maxPolicyBytes = 256 << 10
	maxSwitches    = 1000
	maxStarts      = 2000
)

// Validate refuses what cannot be carried out. The policy is read where it is
// used.
func (in RightsizeInput) Validate() error {
	var errs []error
	if len(in.Policy) > maxPolicyBytes {
		errs = append(errs, fmt.Errorf("policy: %d bytes, at most %d are allowed", len(in.Policy), maxPolicyBytes))
	}
	if len(in.Switches) > maxSwitches || len(in.Extras) > maxSwitches {
		errs = append(errs, fmt.Errorf("switches, extras: at most %d are allowed", maxSwitches))
	}
	for i, s := range in.Switches {
		if err := s.Mode.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("switches[%d]: %w", i, err))
		}
	}
	for i, e := range in.Extras {
		if err := e.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("extras[%d]: %w", i, err))
		}
	}
	if in.Feed < 0 || in.ProposalExpiry < 0 || in.MaxStarts < 0 || in.MaxStarts > maxStarts {
		errs = append(errs, fmt.Errorf("feed, proposalExpiry, maxStarts: want 0 (default) or more, maxStarts at most %d", maxStarts))
	}
	if in.Feed > MaxFeed {
		errs = append(errs, fmt.Errorf("feed: %s is too long: a run is ended after 4h, and looks at the fleet first; want at most 3h", in.Feed))
	}
	return errors.Join(append(errs, in.Settings.Validate())...)
}

// Validate refuses room for no disk or of no size.
func (e Extra) Validate() error {
	if err := e.Disk.Validate(); err != nil {
		return err
	}
	if e.Bytes <= 0 || e.Bytes > MaxDiskBytes || e.Until.IsZero() {
		return fmt.Errorf("headroom of disk %s: want 1 byte to 64 TiB, and until when", e.Disk)
	}
	return nil
}

// RightsizeResult is what one look found and did.
type RightsizeResult struct {
	Totals   Totals   `json:"totals"`
	Started  []Begun  `json:"started,omitempty"`  // in order
	Proposed []Begun  `json:"proposed,omitempty"` // waiting for an approval
	Held     []Begun  `json:"held,omitempty"`     // by a budget or because something runs already; at most 100
	Problems []string `json:"problems,omitempty"` // nodes and shards that could not be looked at, at most 100
	Refusal  *Refusal `json:"refusal,omitempty"`
}

// Begun is an operation that was started, proposed or held back.
type Begun struct {
	Disk           DiskID  `json:"disk"`
	Operation      string  `json:"operation"`
	FromGiB        int64   `json:"fromGiB"`
	ToGiB          int64   `json:"toGiB"`
	SavingUSDMonth float64 `json:"savingUsdMonth,omitempty"`
	Reason         string  `json:"reason"`
	Outcome        string  `json:"outcome,omitempty"` // of an operation that ended while the run lasted
}

// Totals of a fleet or of a part of it. Sums of bytes are over the disks that
// were measured, except BackingBytes and USDMonth, which are over all.
type Totals struct {
	Disks      int `json:"disks"`
	Measured   int `json:"measured"`
	Unmeasured int `json:"unmeasured"`

	SizeBytes    int64 `json:"sizeBytes"`
	BackingBytes int64 `json:"backingBytes"` // what is paid for
	// MeasuredBytes is the backing of the disks that were measured: used by it is
	// the utilization.
	MeasuredBytes int64   `json:"measuredBytes"`
	UsedBytes     int64   `json:"usedBytes"`
	USDMonth      float64 `json:"usdMonth"`
	// SavingUSDMonth is what all wanted shrinks and changes in place would save.
	SavingUSDMonth float64 `json:"savingUsdMonth"`

	Modes  map[Mode]int   `json:"modes,omitempty"`
	Wanted map[string]int `json:"wanted,omitempty"` // by action
	Held   map[string]int `json:"held,omitempty"`   // wanted and not done, by reason
}

// Add adds another part's totals.
func (t *Totals) Add(o Totals) {
	t.Disks += o.Disks
	t.Measured += o.Measured
	t.Unmeasured += o.Unmeasured
	t.SizeBytes += o.SizeBytes
	t.BackingBytes += o.BackingBytes
	t.MeasuredBytes += o.MeasuredBytes
	t.UsedBytes += o.UsedBytes
	t.USDMonth += o.USDMonth
	t.SavingUSDMonth += o.SavingUSDMonth
	t.Modes = addCounts(t.Modes, o.Modes)
	t.Wanted = addCounts(t.Wanted, o.Wanted)
	t.Held = addCounts(t.Held, o.Held)
}

func addCounts[K cmp.Ordered](to, from map[K]int) map[K]int {
	if len(from) > 0 && to == nil {
		to = map[K]int{}
	}
	for _, k := range workflow.DeterministicKeys(from) {
		to[k] += from[k]
	}
	return to
}

// ReapInput is one search for what nothing needs.
type ReapInput struct {
	// MinAge is how long something must have been of no use. 0: DefaultReapAge.
	// A retired volume's grace period counts beside it.
	MinAge time.Duration `json:"minAgeNanos,omitempty"`
	Grace  time.Duration `json:"graceNanos,omitempty"` // of retired volumes; 0: DefaultGrace
	// SnapshotRetention of snapshots Ebb made before a move that do not say
	// themselves (TagRetention). 0: DefaultRetention.
	SnapshotRetention time.Duration `json:"snapshotRetentionNanos,omitempty"`
	// Delete removes what may be removed. False: only report it.
	Delete   bool     `json:"delete,omitempty"`
	Settings Settings `json:"settings,omitzero"`
}

// Defaults of ReapInput.
const (
	DefaultReapAge   = 6 * time.Hour
	DefaultRetention = 7 * 24 * time.Hour
)

// Validate refuses what cannot be carried out.
func (in ReapInput) Validate() error {
	if in.MinAge < 0 || in.Grace < 0 || in.SnapshotRetention < 0 {
		return errors.New("minAge, grace, snapshotRetention: want 0 (default) or more")
	}
	return in.Settings.Validate()
}

// Leftover is a volume or snapshot that EC2's tags say nothing needs.
type Leftover struct {
	Disk       DiskID    `json:"disk"`
	Volume     string    `json:"volume,omitempty"` // one of Volume and Snapshot
	Snapshot   string    `json:"snapshot,omitempty"`
	GiB        int64     `json:"gib"`
	Role       Role      `json:"role,omitempty"`
	Generation uint64    `json:"generation,omitempty"`
	Move       string    `json:"move,omitempty"`
	Zone       string    `json:"zone,omitempty"`
	Node       string    `json:"node,omitempty"` // attached there
	Since      time.Time `json:"since"`          // created, or retired
	Reason     string    `json:"reason"`         // in words
	// Suspect says that it may only be reported: tags contradict each other.
	Suspect bool `json:"suspect,omitempty"`
}

// Fate of a leftover.
type Fate struct {
	Leftover
	Deleted bool   `json:"deleted,omitempty"`
	Why     string `json:"why"` // what was found, or why it is kept
}

// ReapResult is what a search found and did.
type ReapResult struct {
	Found    int      `json:"found"`
	Deleted  int      `json:"deleted"`
	FreedGiB int64    `json:"freedGiB"`
	Fates    []Fate   `json:"fates,omitempty"`    // at most 1000
	Problems []string `json:"problems,omitempty"` // at most 100
	Refusal  *Refusal `json:"refusal,omitempty"`
}

// CleanInput names what of one disk may be removed.
type CleanInput struct {
	Disk      DiskID     `json:"disk"`
	Leftovers []Leftover `json:"leftovers"`
	// Hosts are nodes by zone where a header can be read when the disk itself is up
	// nowhere.
	Hosts    map[string]string `json:"hosts,omitempty"`
	Settings Settings          `json:"settings,omitzero"`
}

// Validate refuses what cannot be carried out.
func (in CleanInput) Validate() error {
	errs := []error{in.Disk.Validate(), in.Settings.Validate()}
	for _, l := range in.Leftovers {
		if l.Disk != in.Disk {
			errs = append(errs, fmt.Errorf("leftover of disk %q among those of %s", clip(string(l.Disk)), in.Disk))
		}
		if l.Volume != "" {
			errs = append(errs, ValidateVolumeID(l.Volume))
		}
	}
	return errors.Join(errs...)
}

// Node activities of the fleet.
const (
	// SurveyNode measures disks of one node and sums up their past, in one call.
	// A disk that cannot be measured says why and delays no other. Guides are kept
	// until the agent ends. Safe to repeat.
	SurveyNode Activity[SurveyInput, SurveyResult] = "SurveyNode"
	// ReadHeaders reads what is on attached volumes, by volume id, whatever disk
	// they belong to. It changes nothing.
	ReadHeaders Activity[ReadHeadersInput, ReadHeadersResult] = "ReadHeaders"
)

// SurveyInput names disks of one node.
type SurveyInput struct {
	Disks []SurveyDisk `json:"disks"`
	// Hours asks for the hours since Since as well (zero: all there are). Whoever asks
	// sees to it that they fit one payload. Older agents leave them out.
	Hours bool      `json:"hours,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// SurveyDisk is one disk to look at.
type SurveyDisk struct {
	Disk     DiskID        `json:"disk"`
	LookBack time.Duration `json:"lookBackNanos"` // of the summary
	// Guide is what the policy wants the agent to do by itself; nil: leave what it
	// was told before, unless Forget.
	Guide *Guide `json:"guide,omitempty"`
	// Forget has the agent go back to its defaults: the disk is no longer enforced.
	Forget bool `json:"forget,omitempty"`
}

// Guide is what the agent needs of a policy to grow a disk in time without
// asking: it is told at each survey and kept until the agent ends. Without one
// the agent's defaults hold.
type Guide struct {
	// Headroom is what must be free: the greatest of bytes, a share of what is
	// used, and a time at the present fill rate. ExtraBytes come on top until
	// ExtraUntil.
	HeadroomBytes   int64         `json:"headroomBytes,omitempty"`
	HeadroomPercent float64       `json:"headroomPercent,omitempty"` // 0.1 is 10%
	HeadroomTime    time.Duration `json:"headroomTimeNanos,omitempty"`
	ExtraBytes      int64         `json:"extraBytes,omitempty"`
	ExtraUntil      time.Time     `json:"extraUntil,omitzero"`
	// CeilingGiB is the greatest backing; 0: all the disk can use.
	CeilingGiB int64 `json:"ceilingGiB,omitempty"`
	// FailAtCeiling: writes that need room beyond CeilingGiB fail instead of
	// waiting for it to be raised.
	FailAtCeiling bool `json:"failAtCeiling,omitempty"`
	// Settings of the growths the agent starts.
	Settings Settings `json:"settings,omitzero"`
}

// SurveyResult has one answer for each disk asked for, in that order.
type SurveyResult struct {
	Disks []DiskSurvey `json:"disks"`
}

// DiskSurvey is a disk's state and past.
type DiskSurvey struct {
	Disk        DiskID       `json:"disk"`
	Measurement *Measurement `json:"measurement,omitempty"`
	Usage       UsageSummary `json:"usage"`
	// Hours are not nil when they were asked for and can be read.
	Hours   PackedHours `json:"hours,omitzero"`
	Problem string      `json:"problem,omitempty"` // why there is no Measurement, no Usage or no Hours
}

// ReadHeadersInput names attached volumes.
type ReadHeadersInput struct {
	Volumes []string `json:"volumes"`
}

// ReadHeadersResult has one answer for each volume asked for, in that order.
type ReadHeadersResult struct {
	Headers []VolumeHeader `json:"headers"`
}

// VolumeHeader is what is on a volume.
type VolumeHeader struct {
	Volume string `json:"volume"`
	// Present: the node sees the volume. Blank: nothing at all was ever written to
	// where a header, a filesystem or a partition table would be.
	Present bool `json:"present"`
	Blank   bool `json:"blank,omitempty"`
	// InUse: a device of a disk, a mount or another program has it open.
	InUse      bool   `json:"inUse,omitempty"`
	Disk       DiskID `json:"disk,omitempty"` // empty: no header of Ebb
	Generation uint64 `json:"generation,omitempty"`
	Role       Role   `json:"role,omitempty"`
	Move       string `json:"move,omitempty"`
	Problem    string `json:"problem,omitempty"` // damaged, newer format, a clone of another volume, other data
}
