// Package trace is the usage of a fleet of disks over time: what each disk had
// on it, when. Traces are read from CSV, imported from Prometheus or generated;
// they are played to the planner by internal/simulate.
//
// A trace is handled disk by disk, so that a fleet of any size needs the memory
// of a few disks only. The package knows nothing of volumes' limits, prices or
// plans.
package trace

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Units of the package.
const (
	KiB int64 = 1 << 10
	MiB int64 = 1 << 20
	GiB int64 = 1 << 30
	TiB int64 = 1 << 40
)

// Disk is one disk's past: who it belongs to, the volume it began on, and its
// usage.
type Disk struct {
	ID           string // unique in the trace, never empty
	Cluster      string
	Namespace    string
	Claim        string
	Class        string // workload class, such as database; may be empty
	StorageClass string
	Node         string
	Zone         string
	Volume       Volume
	// Samples in the order of time, at least two, no two at the same second.
	// Between two of them usage runs in a straight line.
	Samples []Sample
}

// Volume is what the disk was provisioned with. Its size is the first sample's
// capacity.
type Volume struct {
	Type           string // empty: gp3
	IOPS           int32  // 0: what the type gives without provisioning
	ThroughputMiBs int32  // 0: what the type gives without provisioning
}

// Sample is a disk at one moment.
type Sample struct {
	At       int64   // Unix seconds
	Used     int64   // bytes the filesystem counts as used
	Capacity int64   // bytes of the disk; it may rise (an expansion), never fall
	IOPS     float32 // peak since the sample before; 0: not known
	MiBs     float32 // peak since the sample before; 0: not known
}

// Time of the sample, in UTC.
func (s Sample) Time() time.Time { return time.Unix(s.At, 0).UTC() }

// Source plays a fleet: it calls each once for every disk, from at most workers
// goroutines at once, and returns the first error, its own or each's. The disk
// and its samples belong to the callee until it returns, not longer. A source
// can be played again.
type Source func(ctx context.Context, workers int, each func(*Disk) error) error

// Of is a source of disks that are in memory already.
func Of(disks ...*Disk) Source {
	return func(ctx context.Context, workers int, each func(*Disk) error) error {
		return parallel(ctx, workers, len(disks), func(i int) error { return each(disks[i]) })
	}
}

// parallel calls do for 0 to n-1 from workers goroutines and returns the first
// error. No goroutine outlives it.
func parallel(ctx context.Context, workers, n int, do func(i int) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	next := make(chan int)
	var all sync.WaitGroup
	for range max(workers, 1) {
		all.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					stop(err)
					return
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	all.Wait()
	return context.Cause(ctx)
}

// Error is what is wrong with a trace, where.
type Error struct {
	File    string // as it was named by the caller
	Line    int    // from 1; 0 where lines mean nothing
	Field   string // the column, or the place in a JSON document
	Problem string
}

// Error reads "file:line: field: problem".
func (e *Error) Error() string {
	s := e.File
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Field != "" {
		s += ": " + e.Field
	}
	return s + ": " + e.Problem
}
