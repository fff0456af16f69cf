package trace

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"
)

// The metrics of a kubelet that make a trace, and the labels that name a disk.
const (
	metricUsed     = "kubelet_volume_stats_used_bytes"
	metricCapacity = "kubelet_volume_stats_capacity_bytes"
)

// Prometheus collects the answers of range queries (GET /api/v1/query_range,
// JSON) for kubelet_volume_stats_used_bytes and ..._capacity_bytes. Any number
// of answers can be added, in any order: both metrics, parts of the fleet, parts
// of the time. A claim that was mounted on several nodes is one disk.
//
// All samples are held in memory: 24 bytes each.
type Prometheus struct {
	// MaxGap as for CSV. While a claim is not mounted nothing is reported, so a
	// longer gap is no error: usage stays as it was. 0: DefaultMaxGap.
	MaxGap time.Duration
	disks  map[promKey]*promDisk
}

type promKey struct{ cluster, namespace, claim string }

type promDisk struct {
	labels         map[string]string
	used, capacity []point
}

type point struct {
	at    int64
	bytes int64
}

// Add reads one answer. name is for messages.
func (p *Prometheus) Add(name string, r io.Reader) error {
	if p.disks == nil {
		p.disks = map[promKey]*promDisk{}
	}
	dec := json.NewDecoder(bufio.NewReaderSize(r, 1<<20))
	a := promAnswer{p: p, name: name, dec: dec}
	err := a.object(a.top)
	var wrong *Error
	if err != nil && !errors.As(err, &wrong) {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the document ends too early")
		}
		return &Error{File: name, Field: fmt.Sprintf("byte %d", dec.InputOffset()), Problem: "not the JSON of a range query: " + err.Error()}
	}
	if err == nil && a.status != "success" {
		return &Error{File: name, Field: "status", Problem: fmt.Sprintf("%q, want success: the query failed: %s", a.status, a.failure)}
	}
	if err == nil && a.kind != "matrix" {
		return &Error{File: name, Field: "data.resultType", Problem: fmt.Sprintf("%q, want matrix: ask /api/v1/query_range, not /api/v1/query", a.kind)}
	}
	return err
}

// promAnswer reads one document, series by series.
type promAnswer struct {
	p       *Prometheus
	name    string
	dec     *json.Decoder
	status  string
	failure string
	kind    string
	n       int // series read
}

// object calls field for each key of an object; field reads the value.
func (a *promAnswer) object(field func(key string) error) error {
	if err := a.delim('{'); err != nil {
		return err
	}
	for a.dec.More() {
		tok, err := a.dec.Token()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return fmt.Errorf("%v is not a key", tok)
		}
		if err := field(key); err != nil {
			return err
		}
	}
	return a.delim('}')
}

func (a *promAnswer) delim(want json.Delim) error {
	tok, err := a.dec.Token()
	if err == nil && tok != want {
		return fmt.Errorf("%v where %v is wanted", tok, want)
	}
	return err
}

func (a *promAnswer) top(key string) error {
	switch key {
	case "status":
		return a.dec.Decode(&a.status)
	case "error":
		return a.dec.Decode(&a.failure)
	case "data":
		return a.object(a.data)
	}
	var skip json.RawMessage
	return a.dec.Decode(&skip)
}

func (a *promAnswer) data(key string) error {
	switch key {
	case "resultType":
		return a.dec.Decode(&a.kind)
	case "result":
		if a.kind != "" && a.kind != "matrix" {
			break
		}
		if err := a.delim('['); err != nil {
			return err
		}
		for a.dec.More() {
			var s promSeries
			if err := a.dec.Decode(&s); err != nil {
				return err
			}
			if err := a.series(s); err != nil {
				return err
			}
			a.n++
		}
		return a.delim(']')
	}
	var skip json.RawMessage
	return a.dec.Decode(&skip)
}

type promSeries struct {
	Metric map[string]string    `json:"metric"`
	Values [][2]json.RawMessage `json:"values"`
}

func (a *promAnswer) series(s promSeries) error {
	where := fmt.Sprintf("data.result[%d]", a.n)
	metric := s.Metric["__name__"]
	if metric != metricUsed && metric != metricCapacity {
		return &Error{File: a.name, Field: where + ".metric", Problem: fmt.Sprintf("%q, want %s or %s (a query with a function around it loses the name)", metric, metricUsed, metricCapacity)}
	}
	key := promKey{s.Metric["cluster"], s.Metric["namespace"], s.Metric["persistentvolumeclaim"]}
	if key.namespace == "" || key.claim == "" {
		return &Error{File: a.name, Field: where + ".metric", Problem: "it has no namespace or no persistentvolumeclaim label (an aggregation drops labels)"}
	}
	where += fmt.Sprintf(" (%s/%s)", key.namespace, key.claim)
	points := make([]point, 0, len(s.Values))
	for i, v := range s.Values {
		pt, ok, err := promPoint(v)
		if err != nil {
			return &Error{File: a.name, Field: fmt.Sprintf("%s.values[%d]", where, i), Problem: err.Error()}
		}
		if !ok {
			continue
		}
		if n := len(points); n > 0 && pt.at <= points[n-1].at {
			return &Error{File: a.name, Field: fmt.Sprintf("%s.values[%d]", where, i), Problem: fmt.Sprintf("time goes back: %d after %d", pt.at, points[n-1].at)}
		}
		points = append(points, pt)
	}
	d := a.p.disks[key]
	if d == nil {
		d = &promDisk{labels: s.Metric}
		a.p.disks[key] = d
	}
	if metric == metricUsed {
		d.used = append(d.used, points...)
	} else {
		d.capacity = append(d.capacity, points...)
	}
	return nil
}

// promPoint reads [seconds, "value"]. NaN, Prometheus' mark of a series that
// ended, is no point.
func promPoint(v [2]json.RawMessage) (pt point, ok bool, err error) {
	var at float64
	var text string
	if err := json.Unmarshal(v[0], &at); err != nil {
		return pt, false, fmt.Errorf("the time %s is not a number of seconds", v[0])
	}
	if err := json.Unmarshal(v[1], &text); err != nil {
		return pt, false, fmt.Errorf("the value %s is not a string with a number", v[1])
	}
	b, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		return pt, false, fmt.Errorf("the value %q is not a number", text)
	case math.IsNaN(b):
		return pt, false, nil
	case b < 0 || b > 1e18:
		return pt, false, fmt.Errorf("the value %s is not a number of bytes", text)
	case at > 1e11 || at < 946684800:
		return pt, false, fmt.Errorf("the time %s is not in Unix seconds", v[0])
	}
	return point{int64(at), int64(b)}, true, nil
}

// Disks are the disks of all answers together, in the order of their names.
// Warnings say what was left out or filled, one line each.
func (p *Prometheus) Disks() (disks []*Disk, warnings []string, err error) {
	maxGap := int64(p.MaxGap / time.Second)
	if maxGap <= 0 {
		maxGap = int64(DefaultMaxGap / time.Second)
	}
	for key, d := range p.disks {
		id := key.namespace + "/" + key.claim
		if key.cluster != "" {
			id = key.cluster + "/" + id
		}
		used, capacity := merge(d.used), merge(d.capacity)
		switch {
		case len(capacity) == 0:
			return nil, nil, fmt.Errorf("%s: there is no %s of it", id, metricCapacity)
		case len(used) == 0:
			return nil, nil, fmt.Errorf("%s: there is no %s of it", id, metricUsed)
		case len(used) < 2:
			warnings = append(warnings, id+": left out, it has one sample only")
			continue
		}
		disk := &Disk{
			ID: id, Cluster: key.cluster, Namespace: key.namespace, Claim: key.claim,
			StorageClass: d.labels["storageclass"], Node: cmp.Or(d.labels["node"], d.labels["instance"]), Zone: d.labels["zone"],
		}
		var gaps int
		disk.Samples, gaps = join(used, capacity, maxGap)
		if gaps > 0 {
			warnings = append(warnings, fmt.Sprintf("%s: %d gaps, the longest taken as not mounted", id, gaps))
		}
		disks = append(disks, disk)
	}
	slices.SortFunc(disks, func(a, b *Disk) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(warnings)
	return disks, warnings, nil
}

// Play is a Source, once all answers are added.
func (p *Prometheus) Play(ctx context.Context, workers int, each func(*Disk) error) error {
	disks, _, err := p.Disks()
	if err != nil {
		return err
	}
	return Of(disks...)(ctx, workers, each)
}

// merge orders points; of several at one time the greatest stays.
func merge(p []point) []point {
	slices.SortStableFunc(p, func(a, b point) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.bytes, a.bytes))
	})
	return slices.CompactFunc(p, func(a, b point) bool { return a.at == b.at })
}

// join gives each use its capacity: the latest known, and what was known before
// is never undercut, since a filesystem's capacity wobbles by its own metadata.
func join(used, capacity []point, maxGap int64) (out []Sample, gaps int) {
	out = make([]Sample, 0, len(used))
	next, size := 1, capacity[0].bytes
	for _, u := range used {
		for next < len(capacity) && capacity[next].at <= u.at {
			size = max(size, capacity[next].bytes)
			next++
		}
		size = max(size, u.bytes)
		if n := len(out); n > 0 && u.at-out[n-1].At > maxGap {
			gaps++
			// Not mounted: as it was, until just before it is seen again.
			hold := out[n-1]
			hold.At = u.at - 1
			out = append(out, hold)
		}
		out = append(out, Sample{At: u.at, Used: u.bytes, Capacity: size})
	}
	return out, gaps
}
