package trace

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// DefaultMaxGap is the longest time between two rows of a disk that is not
// taken for a hole in the trace.
const DefaultMaxGap = 6 * time.Hour

// Columns of a trace in CSV. The first four are required; the order is free.
const (
	colDisk         = "disk"
	colTime         = "time"
	colUsed         = "used_bytes"
	colCapacity     = "capacity_bytes"
	colCluster      = "cluster"
	colNamespace    = "namespace"
	colClaim        = "claim"
	colClass        = "class"
	colStorageClass = "storage_class"
	colNode         = "node"
	colZone         = "zone"
	colVolumeType   = "volume_type"
	colVolumeIOPS   = "volume_iops"
	colVolumeMiBs   = "volume_mibs"
	colPeakIOPS     = "peak_iops"
	colPeakMiBs     = "peak_mibs"
)

var (
	required = []string{colDisk, colTime, colUsed, colCapacity}
	columns  = append(slices.Clone(required), colCluster, colNamespace, colClaim, colClass, colStorageClass, colNode, colZone,
		colVolumeType, colVolumeIOPS, colVolumeMiBs, colPeakIOPS, colPeakMiBs)
)

// CSV is a trace in a file.
type CSV struct {
	Name   string                        // for messages
	Open   func() (io.ReadCloser, error) // from the beginning, each time it is played
	MaxGap time.Duration                 // 0: DefaultMaxGap
}

// Play is a Source. Errors in the file are of type *Error.
func (c CSV) Play(ctx context.Context, workers int, each func(*Disk) error) error {
	f, err := c.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := NewReader(c.Name, f, c.MaxGap)
	if err != nil {
		return err
	}
	return playAll(ctx, workers, r.Next, each)
}

// playAll reads disks one by one and hands them to workers.
func playAll(ctx context.Context, workers int, next func() (*Disk, error), each func(*Disk) error) error {
	disks := make(chan *Disk)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan error, 1)
	workers = max(workers, 1)
	go func() {
		// Each of the workers takes from the channel until it is closed.
		done <- parallel(ctx, workers, workers, func(int) error {
			for d := range disks {
				if err := each(d); err != nil {
					stop(err)
					return err
				}
			}
			return nil
		})
	}()
	var failed error
read:
	for {
		d, err := next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				failed = err
			}
			break
		}
		select {
		case disks <- d:
		case <-ctx.Done():
			break read
		}
	}
	close(disks)
	err := <-done
	if failed != nil {
		return failed
	}
	return err
}

// Reader reads a trace in CSV, disk by disk.
type Reader struct {
	name   string
	csv    *csv.Reader
	maxGap int64
	at     [16]int // index of each of columns in a row; -1: not there
	seen   map[string]int
	row    []string // read, not used yet
	line   int      // of row
	err    error
}

// NewReader reads the header. name is for messages; maxGap 0 is DefaultMaxGap.
func NewReader(name string, r io.Reader, maxGap time.Duration) (*Reader, error) {
	if maxGap <= 0 {
		maxGap = DefaultMaxGap
	}
	c := csv.NewReader(bufio.NewReaderSize(r, 1<<20))
	c.ReuseRecord = true
	c.Comment = '#'
	t := &Reader{name: name, csv: c, maxGap: int64(maxGap / time.Second), seen: map[string]int{}}
	if err := t.read(); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, &Error{File: name, Problem: "the trace is empty; want a header line: " + strings.Join(required, ",") + ",..."}
		}
		return nil, err
	}
	if err := t.header(); err != nil {
		return nil, err
	}
	t.err = t.read()
	return t, nil
}

func (t *Reader) read() error {
	row, err := t.csv.Read()
	var p *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.As(err, &p) && errors.Is(err, csv.ErrFieldCount):
		return &Error{File: t.name, Line: p.Line, Problem: fmt.Sprintf("%d fields, the header has %d", len(row), t.csv.FieldsPerRecord)}
	case errors.As(err, &p):
		return &Error{File: t.name, Line: p.Line, Problem: p.Err.Error()}
	case err != nil:
		return fmt.Errorf("%s: %w", t.name, err)
	}
	t.row = row
	t.line, _ = t.csv.FieldPos(0)
	return nil
}

func (t *Reader) header() error {
	for i := range t.at {
		t.at[i] = -1
	}
	for i, name := range t.row {
		name = strings.TrimSpace(strings.TrimPrefix(name, "\ufeff"))
		k := slices.Index(columns, name)
		if k < 0 {
			return t.wrong(name, "there is no such column; "+hintColumn(name))
		}
		if t.at[k] >= 0 {
			return t.wrong(name, "the column is there twice")
		}
		t.at[k] = i
	}
	for k, name := range required {
		if t.at[k] < 0 {
			return t.wrong(name, "the column is missing; columns are "+strings.Join(columns, ", "))
		}
	}
	return nil
}

func hintColumn(name string) string {
	low := strings.ToLower(name)
	switch {
	case strings.HasPrefix(low, "used"):
		return "usage is in used_bytes, in bytes"
	case strings.HasPrefix(low, "cap"), strings.HasPrefix(low, "size"), strings.HasPrefix(low, "prov"):
		return "the disk's size is in capacity_bytes, in bytes"
	case strings.HasPrefix(low, "time"), strings.HasPrefix(low, "date"):
		return "the time is in time, as 2026-01-31T13:00:00Z or in Unix seconds"
	}
	return "columns are " + strings.Join(columns, ", ")
}

func (t *Reader) wrong(field, format string, args ...any) error {
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	return &Error{File: t.name, Line: t.line, Field: field, Problem: format}
}

// get is a field of the present row, by its index in columns.
func (t *Reader) get(column int) string {
	if i := t.at[column]; i >= 0 {
		return t.row[i]
	}
	return ""
}

// Next is the next disk, or io.EOF. After an error there is nothing more to read.
func (t *Reader) Next() (*Disk, error) {
	if t.err != nil {
		return nil, t.err
	}
	d, err := t.disk()
	if err != nil {
		t.err = err
		return nil, err
	}
	return d, nil
}

func (t *Reader) disk() (*Disk, error) {
	d := &Disk{ID: strings.Clone(t.get(0))}
	first := t.line
	if d.ID == "" {
		return nil, t.wrong(colDisk, "it is empty")
	}
	if was, ok := t.seen[d.ID]; ok {
		return nil, t.wrong(colDisk, "%q again, whose rows began on line %d: a disk's rows stand together, in the order of time (sort by disk, then time)", d.ID, was)
	}
	t.seen[d.ID] = first
	if err := t.facts(d); err != nil {
		return nil, err
	}
	for {
		s, err := t.sample(d)
		if err != nil {
			return nil, err
		}
		d.Samples = append(d.Samples, s)
		if t.err = t.read(); t.err != nil {
			if !errors.Is(t.err, io.EOF) {
				return nil, t.err
			}
			break
		}
		if t.get(0) != d.ID {
			break
		}
		if err := t.sameFacts(d); err != nil {
			return nil, err
		}
	}
	if len(d.Samples) < 2 {
		return nil, &Error{File: t.name, Line: first, Field: colDisk, Problem: fmt.Sprintf("%q has one row only; usage over time needs two or more", d.ID)}
	}
	return d, nil
}

// texts are the columns that describe a disk, with where they go.
func (d *Disk) texts() [8]*string {
	return [8]*string{&d.Cluster, &d.Namespace, &d.Claim, &d.Class, &d.StorageClass, &d.Node, &d.Zone, &d.Volume.Type}
}

// facts reads what is said of the disk itself, in its first row.
func (t *Reader) facts(d *Disk) error {
	for i, p := range d.texts() {
		*p = strings.Clone(t.get(len(required) + i))
	}
	if !slices.Contains([]string{"", "gp3", "gp2", "io1", "io2", "st1", "sc1", "standard"}, d.Volume.Type) {
		return t.wrong(colVolumeType, "%q is no EBS volume type", d.Volume.Type)
	}
	for _, n := range []struct {
		column int
		into   *int32
	}{{12, &d.Volume.IOPS}, {13, &d.Volume.ThroughputMiBs}} {
		s := t.get(n.column)
		if s == "" {
			continue
		}
		v, err := strconv.ParseInt(s, 10, 32)
		if err != nil || v < 0 {
			return t.wrong(columns[n.column], "%q is not a whole number of 0 or more", s)
		}
		*n.into = int32(v)
	}
	return nil
}

// sameFacts wants what later rows say of the disk to be what the first said, or
// nothing. The node and the zone may change; the first ones count.
func (t *Reader) sameFacts(d *Disk) error {
	for i, p := range d.texts() {
		name := columns[len(required)+i]
		if s := t.get(len(required) + i); s != "" && s != *p && name != colNode && name != colZone {
			return t.wrong(name, "%q, but this disk's first row says %q", s, *p)
		}
	}
	return nil
}

func (t *Reader) sample(d *Disk) (Sample, error) {
	var s Sample
	var err error
	if s.At, err = t.time(); err != nil {
		return s, err
	}
	if s.Used, err = t.bytes(2); err != nil {
		return s, err
	}
	if s.Capacity, err = t.bytes(3); err != nil {
		return s, err
	}
	for _, p := range []struct {
		column int
		into   *float32
	}{{14, &s.IOPS}, {15, &s.MiBs}} {
		if text := t.get(p.column); text != "" {
			v, err := strconv.ParseFloat(text, 32)
			if err != nil || v < 0 || math.IsInf(v, 0) || math.IsNaN(v) {
				return s, t.wrong(columns[p.column], "%q is not a number of 0 or more", text)
			}
			*p.into = float32(v)
		}
	}
	if s.Capacity < 64*MiB {
		return s, t.wrong(colCapacity, "%d bytes are less than 64 MiB; is it in another unit? The field is in bytes", s.Capacity)
	}
	if s.Capacity > 256*TiB {
		return s, t.wrong(colCapacity, "%d bytes are more than 256 TiB; is it in another unit? The field is in bytes", s.Capacity)
	}
	if s.Used > s.Capacity {
		return s, t.wrong(colUsed, "%d bytes used of %d; are the units the same?", s.Used, s.Capacity)
	}
	if n := len(d.Samples); n > 0 {
		return s, t.follows(d.Samples[n-1], s)
	}
	return s, nil
}

// follows checks a sample against the one before it.
func (t *Reader) follows(last, s Sample) error {
	switch {
	case s.At == last.At:
		return t.wrong(colTime, "%s is the time of this disk's row before, too", text(s))
	case s.At < last.At:
		return t.wrong(colTime, "time goes back: %s after %s", text(s), text(last))
	case s.At-last.At > t.maxGap:
		return t.wrong(colTime, "a gap of %s since %s; at most %s are taken for one line (a longer gap can be allowed)",
			time.Duration(s.At-last.At)*time.Second, text(last), time.Duration(t.maxGap)*time.Second)
	case s.Capacity < last.Capacity:
		return t.wrong(colCapacity, "it falls from %d to %d bytes; a disk never gets smaller", last.Capacity, s.Capacity)
	}
	return nil
}

func text(s Sample) string { return s.Time().Format(time.RFC3339) }

func (t *Reader) time() (int64, error) {
	s := t.get(1)
	if len(s) > 0 && len(s) < 16 && isDigits(s) {
		v, err := strconv.ParseInt(s, 10, 64)
		switch {
		case err != nil || v < 946684800:
			return 0, t.wrong(colTime, "%q is before the year 2000; want Unix seconds or 2026-01-31T13:00:00Z", s)
		case v > 100_000_000_000:
			return 0, t.wrong(colTime, "%q seems to be milliseconds; want Unix seconds or 2026-01-31T13:00:00Z", s)
		}
		return v, nil
	}
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, t.wrong(colTime, "%q is not a time; want 2026-01-31T13:00:00Z or Unix seconds", s)
	}
	if v.Year() < 2000 {
		return 0, t.wrong(colTime, "%q is before the year 2000", s)
	}
	return v.Unix(), nil
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func (t *Reader) bytes(column int) (int64, error) {
	s := t.get(column)
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		if v < 0 {
			return 0, t.wrong(columns[column], "%s is negative", s)
		}
		return v, nil
	}
	if s == "" {
		return 0, t.wrong(columns[column], "it is empty")
	}
	// As Prometheus and spreadsheets write large numbers.
	if v, err := strconv.ParseFloat(s, 64); err == nil && v >= 0 && v < math.MaxInt64 {
		if v != math.Trunc(v) {
			return 0, t.wrong(columns[column], "%q is not a whole number; is it in another unit? The field is in bytes", s)
		}
		return int64(v), nil
	}
	if strings.IndexFunc(s, func(r rune) bool { return r >= '0' && r <= '9' }) == 0 {
		return 0, t.wrong(columns[column], "%q is not a number of bytes; write it without a unit", s)
	}
	return 0, t.wrong(columns[column], "%q is not a number of bytes", s)
}
