package report

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"time"
)

// AccountFormat names the JSON document of an Account. Fields are added, never
// renamed or given another meaning, as long as it is this.
const AccountFormat = "ebb.io/report/v1"

// Account is what became of a fleet: what its disks remember and what was done to
// them. internal/ledger adds it up; docs/report.md explains every figure. Bytes of
// backings are of volumes as they are paid for, money is US dollars, a month has
// 730 hours.
type Account struct {
	Format string    `json:"format"` // AccountFormat
	Title  string    `json:"title"`
	About  string    `json:"about"` // what kind of figures these are, in a sentence or two
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Scope  Scope     `json:"scope"`
	Prices PriceList `json:"prices"`

	Totals     Sums           `json:"totals"`
	Money      Savings        `json:"money"`
	Series     []Sample       `json:"series"` // evenly spaced, at most MaxSamples
	Namespaces []Part         `json:"namespaces"`
	Classes    []Part         `json:"classes"`
	Disks      []DiskLine     `json:"disks"` // those that are known, the greatest saving first
	Unknown    []Unknown      `json:"unknown"`
	Done       []Reason       `json:"done"`
	Refused    []Reason       `json:"refused"` // refused, cancelled, failed
	Held       []Reason       `json:"held"`    // wanted by the planner and not done, at its last look
	Operations []OperationRow `json:"operations"`
	Notes      []string       `json:"notes"` // what the figures leave out or assume

	// Hours is the series hour by hour, for CSVHours.
	Hours []Sample `json:"-"`
}

// MaxSamples is how many points a series has at most.
const MaxSamples = 400

// Scope is what was asked for; empty fields select everything.
type Scope struct {
	Namespace string `json:"namespace,omitempty"` // of the claims
	Node      string `json:"node,omitempty"`
}

// PriceList says whose prices were counted with.
type PriceList struct {
	Region string `json:"region"`
	Date   string `json:"date"` // when they were entered or read, 2006-01-02
	Source string `json:"source"`
	// BuiltIn: they came with Ebb.
	BuiltIn bool `json:"builtIn"`
}

// Sums are the figures of the whole fleet. Bytes are of now; utilizations over
// the time are weighted by bytes and by time, over the hours on record.
type Sums struct {
	Disks          int     `json:"disks"`
	Known          int     `json:"known"`          // measured now
	Unknown        int     `json:"unknown"`        // the others
	WithoutHistory int     `json:"withoutHistory"` // known, and with no hour on record
	DiskHours      float64 `json:"diskHours"`      // on record, all disks together
	GapHours       float64 `json:"gapHours"`       // between a disk's first hour on record and now, and not on record

	SizeBytes    int64   `json:"sizeBytes"`
	BackingBytes int64   `json:"backingBytes"`
	UsedBytes    int64   `json:"usedBytes"`
	Utilization  float64 `json:"utilization"` // used of the backings, now
	// FirstUtilization is that of the first day on record.
	FirstUtilization float64 `json:"firstUtilization"`
	// MeanUtilization is used of the backings, FullUtilization used of the disks'
	// full sizes: what it would have been without Ebb.
	MeanUtilization float64 `json:"meanUtilization"`
	FullUtilization float64 `json:"fullUtilization"`

	Operations  int     `json:"operations"` // that ended, whatever came of them
	Running     int     `json:"running"`
	Grows       int     `json:"grows"` // done, as all that follow
	Shrinks     int     `json:"shrinks"`
	Moves       int     `json:"moves"` // to another node
	Expands     int     `json:"expands"`
	Creates     int     `json:"creates"`
	Deletes     int     `json:"deletes"`
	RefusedOps  int     `json:"refused"`
	Cancelled   int     `json:"cancelled"`
	Failed      int     `json:"failed"`
	GrownGiB    int64   `json:"grownGiB"`
	GivenGiB    int64   `json:"givenBackGiB"`
	CopiedBytes int64   `json:"copiedBytes"`
	LongestMS   float64 `json:"longestPauseMs"` // the longest that writes were held for a table swap
	Pauses      int     `json:"pauses"`         // such swaps
	// Unrecorded are changes of a backing that only the disks remember: Temporal
	// has forgotten the operation. They are part of Grows and Shrinks.
	Unrecorded int `json:"unrecorded"`
	// Unread are operations that ended and whose result could not be read. They are
	// part of Operations alone.
	Unread int `json:"unread"`
}

// Savings is the money. Sums are over the hours on record.
type Savings struct {
	Full    float64 `json:"fullSizeUsd"` // each disk as one gp3 volume of its full size
	Backing float64 `json:"backingUsd"`  // what the backings cost
	Own     []Cost  `json:"own"`         // what Ebb itself costs
	OwnSum  float64 `json:"ownUsd"`
	Net     float64 `json:"netSavingUsd"` // Full - Backing - OwnSum
	// Months are means over the time on record.
	FullMonth float64 `json:"fullSizeUsdMonth"`
	NetMonth  float64 `json:"netSavingUsdMonth"`
	// NowMonth is what the disks save at their present sizes, before Ebb's own cost.
	NowMonth float64 `json:"nowSavingUsdMonth"`
	// Payback is after how many days savings had passed Ebb's own cost for good; -1:
	// they have not.
	Payback float64 `json:"paybackDays"`
}

// Cost is a part of what Ebb costs, in the time of the report.
type Cost struct {
	Name string  `json:"name"`
	USD  float64 `json:"usd"`
}

// Sample is the fleet in an interval that begins at At: means of bytes, counts,
// and the saving up to its end.
type Sample struct {
	At           time.Time `json:"at"`
	UsedBytes    int64     `json:"usedBytes"`
	BackingBytes int64     `json:"backingBytes"`
	ExtraBytes   int64     `json:"extraBytes"` // volumes of moves under way and retired ones
	SizeBytes    int64     `json:"sizeBytes"`  // the disks' full sizes
	Disks        float64   `json:"disks"`      // that there were
	Recorded     float64   `json:"recorded"`   // of which were on record; the others are as they last were
	Grows        int       `json:"grows"`
	Shrinks      int       `json:"shrinks"`
	Other        int       `json:"other"` // other operations that were done
	Refused      int       `json:"refused"`
	NetUSD       float64   `json:"netSavingUsd"` // since From
}

// Utilization of the backings.
func (s Sample) Utilization() float64 { return ratio(s.UsedBytes, s.BackingBytes) }

// Part is a part of the fleet. Bytes are means over the hours on record.
type Part struct {
	Name         string  `json:"name"`
	Disks        int     `json:"disks"`
	UsedBytes    int64   `json:"usedBytes"`
	BackingBytes int64   `json:"backingBytes"`
	SizeBytes    int64   `json:"sizeBytes"`
	Grows        int     `json:"grows"`
	Shrinks      int     `json:"shrinks"`
	Refused      int     `json:"refused"`
	FullUSD      float64 `json:"fullSizeUsd"`
	NetUSD       float64 `json:"netSavingUsd"`
}

// Utilization with Ebb.
func (p Part) Utilization() float64 { return ratio(p.UsedBytes, p.BackingBytes) }

// Before is the utilization the full sizes would have had.
func (p Part) Before() float64 { return ratio(p.UsedBytes, p.SizeBytes) }

// DiskLine is one disk, as it is now.
type DiskLine struct {
	Disk         string  `json:"disk"`
	Name         string  `json:"name,omitempty"`
	Namespace    string  `json:"namespace,omitempty"`
	Class        string  `json:"class,omitempty"`
	Node         string  `json:"node,omitempty"`
	UsedBytes    int64   `json:"usedBytes"`
	BackingBytes int64   `json:"backingBytes"`
	SizeBytes    int64   `json:"sizeBytes"`
	Hours        float64 `json:"hours"` // on record
	Grows        int     `json:"grows"`
	Shrinks      int     `json:"shrinks"`
	NetUSD       float64 `json:"netSavingUsd"`
}

// Ref is what to call it.
func (d DiskLine) Ref() string {
	if d.Name != "" {
		return d.Name
	}
	return d.Disk
}

// Unknown is a disk nothing, or not all, is known of.
type Unknown struct {
	Disk         string `json:"disk"`
	Name         string `json:"name,omitempty"`
	Node         string `json:"node,omitempty"`
	BackingBytes int64  `json:"backingBytes"` // as EC2 has it
	Why          string `json:"why"`
}

// Outcomes of an OperationRow. The first four are a workflow's results.
const (
	OutcomeDone       = "done"
	OutcomeRefused    = "refused"
	OutcomeCancelled  = "cancelled"
	OutcomeFailed     = "failed"
	OutcomeRunning    = "running"
	OutcomeUnrecorded = "unrecorded" // only the disk remembers that its backing changed
	OutcomeUnread     = "unread"     // it ended; its result could not be read
)

// OperationRow is one operation.
type OperationRow struct {
	Began       time.Time `json:"began"`
	Ended       time.Time `json:"ended,omitzero"` // zero: it runs
	Disk        string    `json:"disk"`
	Name        string    `json:"name,omitempty"`
	Namespace   string    `json:"namespace,omitempty"`
	Class       string    `json:"class,omitempty"`
	Operation   string    `json:"operation"` // grow, shrink, move, expand, create, delete
	Outcome     string    `json:"outcome"`
	FromGiB     int64     `json:"fromGiB,omitempty"`
	ToGiB       int64     `json:"toGiB,omitempty"`
	UsedBytes   int64     `json:"usedBytes,omitempty"`
	CopiedBytes int64     `json:"copiedBytes,omitempty"`
	PauseMS     float64   `json:"longestPauseMs,omitempty"` // the longest hold of writes
	By          string    `json:"by,omitempty"`             // who or what asked for it
	Code        string    `json:"code,omitempty"`           // of a refusal
	Why         string    `json:"why"`
}

// Took is how long it ran; 0 while it runs and where it is not known.
func (o OperationRow) Took() time.Duration {
	if o.Ended.IsZero() {
		return 0
	}
	return o.Ended.Sub(o.Began)
}

// JSON writes the account as one indented document.
func (a *Account) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(a)
}

// CSV writes one row for each operation.
func (a *Account) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{
		"began", "ended", "disk", "name", "namespace", "class", "operation", "outcome", "from_gib", "to_gib", "used_bytes", "copied_bytes",
		"took_seconds", "longest_pause_ms", "by", "code", "why",
	})
	for _, o := range a.Operations {
		ended := ""
		if !o.Ended.IsZero() {
			ended = o.Ended.UTC().Format(time.RFC3339)
		}
		_ = c.Write([]string{
			o.Began.UTC().Format(time.RFC3339), ended, cell(o.Disk), cell(o.Name), cell(o.Namespace), cell(o.Class), o.Operation, o.Outcome, whole(o.FromGiB), whole(o.ToGiB),
			whole(o.UsedBytes), whole(o.CopiedBytes), decimal(o.Took().Seconds(), 0), decimal(o.PauseMS, 3), cell(o.By), cell(o.Code), cell(o.Why),
		})
	}
	c.Flush()
	return c.Error()
}

// CSVHours writes one row for each hour of the fleet.
func (a *Account) CSVHours(w io.Writer) error {
	c := csv.NewWriter(w)
	_ = c.Write([]string{
		"time", "disks", "recorded", "used_bytes", "backing_bytes", "extra_bytes", "size_bytes", "utilization", "grows", "shrinks", "other", "refused", "net_saving_usd",
	})
	for _, s := range a.Hours {
		_ = c.Write([]string{
			s.At.UTC().Format(time.RFC3339), decimal(s.Disks, 0), decimal(s.Recorded, 0), whole(s.UsedBytes), whole(s.BackingBytes), whole(s.ExtraBytes), whole(s.SizeBytes),
			decimal(s.Utilization(), 4), whole(int64(s.Grows)), whole(int64(s.Shrinks)), whole(int64(s.Other)), whole(int64(s.Refused)), decimal(s.NetUSD, 4),
		})
	}
	c.Flush()
	return c.Error()
}

func decimal(f float64, digits int) string { return strconv.FormatFloat(f, 'f', digits, 64) }

// cell keeps a spreadsheet from taking text for a formula.
func cell(s string) string {
	if s != "" && (s[0] == '=' || s[0] == '+' || s[0] == '-' || s[0] == '@') {
		return "'" + s
	}
	return s
}

// Thin makes at most n samples of a series: means of levels, sums of counts, the
// last of sums.
func Thin(s []Sample, n int) []Sample {
	if len(s) <= n {
		return s
	}
	each := (len(s) + n - 1) / n
	out := make([]Sample, 0, n)
	for i := 0; i < len(s); i += each {
		part := s[i:min(i+each, len(s))]
		p := Sample{At: part[0].At}
		var used, backing, extra, size float64
		for _, q := range part {
			used += float64(q.UsedBytes)
			backing += float64(q.BackingBytes)
			extra += float64(q.ExtraBytes)
			size += float64(q.SizeBytes)
			p.Disks += q.Disks
			p.Recorded += q.Recorded
			p.Grows += q.Grows
			p.Shrinks += q.Shrinks
			p.Other += q.Other
			p.Refused += q.Refused
			p.NetUSD = q.NetUSD
		}
		k := float64(len(part))
		p.UsedBytes, p.BackingBytes, p.ExtraBytes, p.SizeBytes = int64(used/k), int64(backing/k), int64(extra/k), int64(size/k)
		p.Disks, p.Recorded = p.Disks/k, p.Recorded/k
		out = append(out, p)
	}
	return out
}
