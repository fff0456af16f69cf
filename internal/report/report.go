// Package report shows what Ebb did to a fleet, or would do: utilization and
// footprint over time, by namespace and workload class, what was done and
// refused and why, and what it saves after its own cost.
//
// A Report is plain data that somebody else has counted (internal/simulate, or
// the disks' own histories); this package only renders it: as one HTML page that
// needs no network and runs no script, as JSON, and as CSV.
package report

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"time"
)

// Report is all there is to show. Bytes are bytes of volumes as they are
// provisioned, money is US dollars, a month has 730 hours.
type Report struct {
	Title      string      `json:"title"`
	About      string      `json:"about"` // what kind of figures these are, in a sentence or two
	From       time.Time   `json:"from"`
	To         time.Time   `json:"to"`
	Totals     Totals      `json:"totals"`
	Money      Money       `json:"money"`
	Series     []Point     `json:"series"` // evenly spaced, in the order of time
	Classes    []Group     `json:"classes"`
	Namespaces []Group     `json:"namespaces"`
	Done       []Reason    `json:"done"`
	Refused    []Reason    `json:"refused"`
	Operations []Operation `json:"operations"` // the most telling ones, not all
	Notes      []string    `json:"notes"`      // what the figures assume
}

// Totals are the figures of the whole fleet and time.
type Totals struct {
	Disks                 int     `json:"disks"`
	Days                  float64 `json:"days"`
	ProvisionedFirstBytes int64   `json:"provisionedFirstBytes"`
	ProvisionedLastBytes  int64   `json:"provisionedLastBytes"`
	PeakPaidBytes         int64   `json:"peakPaidBytes"` // backings, moves under way and retired volumes together
	// Utilization is used over provisioned, weighted by time and bytes.
	UtilizationFirst     float64 `json:"utilizationFirst"`
	UtilizationLast      float64 `json:"utilizationLast"`
	UtilizationAfterWeek float64 `json:"utilizationAfterWeek"`
	// PaidUtilizationAfterWeek counts what is paid for beside the backings, too:
	// volumes of moves under way and retired ones in their grace period.
	PaidUtilizationAfterWeek float64 `json:"paidUtilizationAfterWeek"`

	Grows                  int     `json:"grows"`
	Appends                int     `json:"appends"` // growths by another volume
	Shrinks                int     `json:"shrinks"`
	Changes                int     `json:"changes"` // of type or performance only
	Expands                int     `json:"expands"`
	Urgent                 int     `json:"urgent"` // growths that could not wait for the next round
	MaxModificationsPerDay int     `json:"maxModificationsPerDiskDay"`
	OutOfSpace             int     `json:"outOfSpace"`  // times a write would have waited for room for longer than 30 seconds
	Waits                  int     `json:"waits"`       // times a write would have waited at all, those included
	WaitSeconds            float64 `json:"waitSeconds"` // in all of them together
	LongestWaitSeconds     float64 `json:"longestWaitSeconds"`
	NearMisses             int     `json:"nearMisses"` // growths that arrived with less than 10 seconds of room left, without a wait
	Oscillations           int     `json:"oscillations"`
	Regrown                int     `json:"regrown"` // shrinks followed by a growth the usage forced
	MovedBytes             int64   `json:"movedBytes"`
	MostMovesAtOnce        int     `json:"mostMovesAtOnce"`
	RefusedTotal           int     `json:"refused"`
}

// Money is a month's worth, as an average of the time after the first week.
type Money struct {
	Without   float64    `json:"withoutUSDMonth"` // the volumes as they were provisioned
	Volumes   float64    `json:"volumesUSDMonth"` // the backings
	Own       []OwnCost  `json:"own"`             // what Ebb itself costs
	Net       float64    `json:"netSavingUSDMonth"`
	Total     float64    `json:"netSavingUSD"` // over the whole time, first week included
	Payback   float64    `json:"paybackDays"`  // until the sum of savings passes the sum of Ebb's own cost; -1: never
	PricedAt  string     `json:"pricedAt"`     // the price table's date
	Region    string     `json:"region"`
	Cumulated []SumPoint `json:"cumulated"`
}

// OwnCost is a part of what Ebb costs.
type OwnCost struct {
	Name     string  `json:"name"`
	USDMonth float64 `json:"usdMonth"`
}

// SumPoint is the net saving up to a moment.
type SumPoint struct {
	At  time.Time `json:"at"`
	USD float64   `json:"usd"`
}

// Point is the fleet at one time: means over the interval that begins there.
type Point struct {
	At           time.Time `json:"at"`
	UsedBytes    int64     `json:"usedBytes"`
	BackingBytes int64     `json:"backingBytes"` // what the disks have
	PaidBytes    int64     `json:"paidBytes"`    // and what is paid for beside
	WithoutBytes int64     `json:"withoutBytes"` // what would be there without Ebb
	Grows        int       `json:"grows"`        // in the interval, as all that follow
	Urgent       int       `json:"urgent"`       // of Grows
	Shrinks      int       `json:"shrinks"`
	Refused      int       `json:"refused"`
}

// Utilization of the backings.
func (p Point) Utilization() float64 { return ratio(p.UsedBytes, p.BackingBytes) }

// Group is a part of the fleet. Shares and bytes are means after the first week.
type Group struct {
	Name           string  `json:"name"`
	Disks          int     `json:"disks"`
	WithoutBytes   int64   `json:"withoutBytes"`
	BackingBytes   int64   `json:"backingBytes"`
	PaidBytes      int64   `json:"paidBytes"`
	UsedBytes      int64   `json:"usedBytes"`
	Grows          int     `json:"grows"`
	Shrinks        int     `json:"shrinks"`
	OutOfSpace     int     `json:"outOfSpace"`
	Waits          int     `json:"waits"`
	NetUSDMonth    float64 `json:"netSavingUSDMonth"`
	WithoutUSDMont float64 `json:"withoutUSDMonth"`
}

// Utilization with Ebb.
func (g Group) Utilization() float64 { return ratio(g.UsedBytes, g.BackingBytes) }

// Before is the utilization without Ebb.
func (g Group) Before() float64 { return ratio(g.UsedBytes, g.WithoutBytes) }

// Reason is why something was done, or was not, and how often.
type Reason struct {
	What    string  `json:"what"`    // the operation, or the refusal's code
	Why     string  `json:"why"`     // in words; an example where words differ
	Times   int     `json:"times"`   //
	Disks   int     `json:"disks"`   // 0: not counted
	GiB     int64   `json:"gib"`     // added, or given back
	Example Example `json:"example"` // one of them
}

// Example is one decision in the planner's own words.
type Example struct {
	Disk string    `json:"disk"`
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Operation is one thing that was done.
type Operation struct {
	At        time.Time     `json:"at"`
	Disk      string        `json:"disk"`
	Namespace string        `json:"namespace"`
	Class     string        `json:"class"`
	What      string        `json:"what"`
	Urgent    bool          `json:"urgent,omitempty"`
	FromGiB   int64         `json:"fromGiB"`
	ToGiB     int64         `json:"toGiB"`
	UsedBytes int64         `json:"usedBytes"`
	Took      time.Duration `json:"tookNanos"`
	Why       string        `json:"why"`
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// JSON writes the report as one indented document.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// CSV writes the series, one row for each point.
func (r *Report) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"time", "used_bytes", "backing_bytes", "paid_bytes", "without_bytes", "utilization", "grows", "urgent", "shrinks", "refused"})
	for _, p := range r.Series {
		_ = c.Write([]string{
			p.At.UTC().Format(time.RFC3339), whole(p.UsedBytes), whole(p.BackingBytes), whole(p.PaidBytes), whole(p.WithoutBytes),
			strconv.FormatFloat(p.Utilization(), 'f', 4, 64), whole(int64(p.Grows)), whole(int64(p.Urgent)), whole(int64(p.Shrinks)), whole(int64(p.Refused)),
		})
	}
	c.Flush()
	return c.Error()
}

// OperationsWriter writes operations as CSV, one row for each, as they come.
type OperationsWriter struct{ csv *csv.Writer }

// NewOperationsWriter writes the header. Call Flush at the end.
func NewOperationsWriter(w io.Writer) *OperationsWriter {
	c := csv.NewWriter(w)
	_ = c.Write([]string{"time", "disk", "namespace", "class", "operation", "urgent", "from_gib", "to_gib", "used_bytes", "took_seconds", "why"})
	return &OperationsWriter{c}
}

// Write adds an operation.
func (w *OperationsWriter) Write(o Operation) error {
	return w.csv.Write([]string{
		o.At.UTC().Format(time.RFC3339), o.Disk, o.Namespace, o.Class, o.What, strconv.FormatBool(o.Urgent), whole(o.FromGiB), whole(o.ToGiB),
		whole(o.UsedBytes), strconv.FormatFloat(o.Took.Seconds(), 'f', 0, 64), o.Why,
	})
}

// Flush writes what is buffered, and tells the first error of all writing.
func (w *OperationsWriter) Flush() error {
	w.csv.Flush()
	return w.csv.Error()
}

func whole(v int64) string { return strconv.FormatInt(v, 10) }

// SortGroups puts those that save most first.
func SortGroups(g []Group) {
	slices.SortFunc(g, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.NetUSDMonth, a.NetUSDMonth), cmp.Compare(a.Name, b.Name))
	})
}

// SortReasons puts the most frequent first.
func SortReasons(r []Reason) {
	slices.SortFunc(r, func(a, b Reason) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(a.What, b.What), cmp.Compare(a.Why, b.Why))
	})
}
