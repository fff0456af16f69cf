// Package wire is what the two halves of the benchmark say to each other: the
// program in the node writes Messages to its standard output, one JSON object a
// line, and reads an Answer from its standard input for each Order.
package wire

import "sort"

// Volume operations of an Order.
const (
	Attach = "attach"
	Detach = "detach" // and throw the bytes away
	Resize = "resize"
)

// Order asks the host for what EC2 would do.
type Order struct {
	Do     string `json:"do"`
	Volume string `json:"volume"`
	Bytes  int64  `json:"bytes,omitempty"`
}

// Answer to an Order; Error is empty when it was carried out.
type Answer struct {
	Error string `json:"error,omitempty"`
}

// Row is one line of the result table. Key is set for what goes into the
// summary.
type Row struct {
	Group string  `json:"group"`
	Key   string  `json:"key,omitempty"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"` // "x" for ratios
	Note  string  `json:"note,omitempty"`
}

// Message of the program in the node: one of the fields is set.
type Message struct {
	Order *Order `json:"order,omitempty"`
	Row   *Row   `json:"row,omitempty"`
}

// Params of a run in the node.
type Params struct {
	Quick bool   `json:"quick"`
	Seed  uint64 `json:"seed"`
	Disks int    `json:"disks,omitempty"` // for the experiment disks
}

// Median of some values; 0 of none.
func Median(v []float64) float64 { return Percentile(v, 0.5) }

// Percentile p (0 to 1) of some values; 0 of none.
func Percentile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := append([]float64(nil), v...)
	sort.Float64s(s)
	if p == 0.5 && len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[min(len(s)-1, int(p*float64(len(s))))]
}
