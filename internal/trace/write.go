package trace

import (
	"bufio"
	"encoding/csv"
	"io"
	"strconv"
	"time"
)

// Writer writes a trace as CSV, as Reader reads it.
type Writer struct {
	buf *bufio.Writer
	csv *csv.Writer
	row []string
	// Every is the longest time between two rows; longer lines get rows in
	// between. 0: one hour.
	Every time.Duration
}

// NewWriter writes the header. Call Flush at the end.
func NewWriter(w io.Writer) (*Writer, error) {
	b := bufio.NewWriterSize(w, 1<<20)
	out := &Writer{buf: b, csv: csv.NewWriter(b), row: make([]string, len(columns))}
	return out, out.csv.Write(columns)
}

// Write adds a disk. What is the same in all rows is in the first one only.
func (w *Writer) Write(d *Disk) error {
	clear(w.row)
	w.row[0] = d.ID
	for i, p := range d.texts() {
		w.row[len(required)+i] = *p
	}
	w.row[12], w.row[13] = number(float64(d.Volume.IOPS)), number(float64(d.Volume.ThroughputMiBs))
	every := int64(w.Every / time.Second)
	if every <= 0 {
		every = 3600
	}
	for i, s := range d.Samples {
		if i > 0 {
			last := d.Samples[i-1]
			for at := last.At + every; at < s.At; at += every {
				if err := w.sample(Between(last, s, at)); err != nil {
					return err
				}
			}
		}
		if err := w.sample(s); err != nil {
			return err
		}
	}
	return nil
}

func (w *Writer) sample(s Sample) error {
	w.row[1], w.row[2], w.row[3] = text(s), strconv.FormatInt(s.Used, 10), strconv.FormatInt(s.Capacity, 10)
	w.row[14], w.row[15] = number(float64(s.IOPS)), number(float64(s.MiBs))
	err := w.csv.Write(w.row)
	for i := len(required); i < 14; i++ {
		w.row[i] = ""
	}
	return err
}

func number(v float64) string {
	if v == 0 {
		return ""
	}
	return strconv.FormatFloat(v, 'f', -1, 32)
}

// Flush writes what is buffered.
func (w *Writer) Flush() error {
	w.csv.Flush()
	if err := w.csv.Error(); err != nil {
		return err
	}
	return w.buf.Flush()
}

// Between is the state at a moment between two samples.
func Between(a, b Sample, at int64) Sample {
	f := float64(at-a.At) / float64(b.At-a.At)
	return Sample{At: at, Used: a.Used + int64(f*float64(b.Used-a.Used)), Capacity: a.Capacity, IOPS: b.IOPS, MiBs: b.MiBs}
}
