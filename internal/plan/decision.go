package plan

import (
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Action is what a decision asks for.
type Action string

// Actions.
const (
	None Action = "none"
	// Grow raises Volume to VolumeGiB in place (ModifyVolume).
	Grow Action = "grow"
	// Append adds a volume of VolumeGiB to the backing.
	Append Action = "append"
	// Shrink moves the disk to a new backing of GiB with Type, IOPS and
	// ThroughputMiBs: a smaller one, a cheaper one, or one volume instead of several.
	Shrink Action = "shrink"
	// Retype gives Volume another Type, IOPS or ThroughputMiBs in place (ModifyVolume):
	// nothing is copied, and its size stays.
	Retype Action = "retype"
)

// Why names what holds a wanted action back.
type Why string

// Reasons to hold back.
const (
	WhyNone          Why = ""
	WhyMode          Why = "Mode"          // the policy only observes or recommends
	WhyRunning       Why = "Running"       // an operation runs on the disk
	WhyHistory       Why = "History"       // the look-back window is not on record yet
	WhyQuiet         Why = "QuietTime"     // too soon after the last growth or shrink
	WhyWindow        Why = "Window"        // outside of the maintenance windows
	WhyPayback       Why = "Payback"       // would not pay for itself in time
	WhyModifications Why = "Modifications" // EBS's modifications are spent, but for the reserve
	WhyModifying     Why = "Modifying"     // EBS still works on the last modification
	WhyCeiling       Why = "Ceiling"       // the backing may not grow further
	WhyVolumes       Why = "Volumes"       // the backing can hold no more volumes
	WhyRoom          Why = "Room"          // growth may be due while EBS works on the change
	WhyFacts         Why = "Facts"         // the facts are incomplete or contradict each other
	WhyBudget        Why = "Budget"        // Schedule: a budget is used up
	WhyAnswered      Why = "Answered"      // somebody rejected it, and that holds; or approved it, and it waits
)

// Decision is a size and why. GrowTarget, GrowTo and ShrinkTarget fill the first
// three fields alone; Decide fills all that apply.
type Decision struct {
	GiB    int64  `json:"gib"`    // of the whole backing afterwards; the present size when nothing is wanted
	Reason string `json:"reason"` // the one reason that decided
	// Enough says that nothing needs to be done: GiB is the present size.
	Enough bool `json:"enough,omitempty"`

	Disk    contract.DiskID `json:"disk,omitempty"`
	Node    string          `json:"node,omitempty"`
	Zone    string          `json:"zone,omitempty"`
	Rule    string          `json:"rule,omitempty"` // name of the policy's rule
	Mode    Mode            `json:"mode,omitempty"`
	FromGiB int64           `json:"fromGiB,omitempty"`

	// Action to take now. None when nothing is wanted, and when what is Wanted is
	// held back by Why.
	Action Action `json:"action"`
	Wanted Action `json:"wanted"`
	Why    Why    `json:"why,omitempty"`
	// NotBefore is when what holds the action back will have passed, as far as
	// that is known; zero: not by time alone.
	NotBefore time.Time `json:"notBefore,omitzero"`

	// NotAfter is when the maintenance window closes in which the action may begin; zero:
	// it waits for none.
	NotAfter time.Time `json:"notAfter,omitzero"`

	Volume         string `json:"volume,omitempty"`    // Grow, Retype: the volume to modify
	VolumeGiB      int64  `json:"volumeGiB,omitempty"` // Grow: its new size. Append: of the new volume. Shrink: of each new volume. Retype: its size
	Type           string `json:"type,omitempty"`      // of the volume(s) afterwards
	IOPS           int32  `json:"iops,omitempty"`      // of each, 0: the type has none to set
	ThroughputMiBs int32  `json:"throughputMiBs,omitempty"`
	Stripes        int    `json:"stripes,omitempty"` // Shrink: how many volumes share the new backing, 1 or more

	// Urgent: ahead of everything, budgets and reserve included.
	Urgent     bool          `json:"urgent,omitempty"`
	TimeToFull time.Duration `json:"timeToFullNanos,omitempty"` // at the present rate; 1 ns: full; 0: not filling
	// Fold: the move's purpose is one volume instead of several. It need not pay.
	Fold bool `json:"fold,omitempty"`
	// Lacks: the Retype is for the policy's least performance. It waits for no window,
	// whether it saves or not.
	Lacks bool `json:"lacks,omitempty"`
	// Resume: the Shrink takes up a move that no operation carries on. GiB is then the
	// present size.
	Resume bool `json:"resume,omitempty"`
	// Replaces says that it is to be asked instead of a proposal that was rejected and
	// from which it differs; whoever knows of proposals sets it.
	Replaces bool `json:"replaces,omitempty"`
	// AtCeiling is what the policy wants of writes (AtCeilingWait, AtCeilingFail)
	// when Why is WhyCeiling.
	AtCeiling string `json:"atCeiling,omitempty"`

	CopyBytes      int64         `json:"copyBytes,omitempty"` // a move's copy, estimated
	SavingUSDMonth float64       `json:"savingUsdMonth,omitempty"`
	CostUSD        float64       `json:"costUsd,omitempty"`      // of the operation, once
	Payback        time.Duration `json:"paybackNanos,omitempty"` // CostUSD by SavingUSDMonth; 0: costs nothing or saves nothing
	Reasons        []string      `json:"reasons,omitempty"`      // all reasons, in words with figures
}
