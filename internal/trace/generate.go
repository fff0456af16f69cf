package trace

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Fleet is a generated fleet: the same figures give the same fleet, on any
// machine. What it is made of is in docs/simulate.md.
type Fleet struct {
	Shape            string    // one of Shapes
	Disks            int       // at least 1
	Days             int       // at least 1
	Seed             uint64    // another seed, another fleet
	ProvisionedBytes int64     // sum of the disks' sizes; 0: 200 GB for each disk (2 PB for 10,000)
	Utilization      float64   // share of it used at the start; 0: 0.25
	Start            time.Time // zero: Monday 2026-01-05, 00:00 UTC

	births []birth // see plan
}

// Shapes are the mixes of workloads there are, with what they are.
func Shapes() []struct{ Name, Meaning string } {
	return []struct{ Name, Meaning string }{
		{"ai-platform", "training, notebooks, datasets, databases, logs and build scratch, as a platform team has them"},
		{"training", "training runs with hourly checkpoints only: the hardest to follow"},
		{"steady", "databases and datasets only: the easiest"},
	}
}

// mix is the share of disks of each class, by shape.
var mixes = map[string]map[string]float64{
	"ai-platform": {classNotebook: .38, classTraining: .18, classDataset: .13, classDatabase: .12, classLog: .11, classScratch: .08},
	"training":    {classTraining: 1},
	"steady":      {classDatabase: .5, classDataset: .5},
}

// Workload classes of a generated fleet.
const (
	classNotebook = "notebook"
	classTraining = "training"
	classDataset  = "dataset"
	classDatabase = "database"
	classLog      = "log"
	classScratch  = "scratch"
)

var classes = []string{classNotebook, classTraining, classDataset, classDatabase, classLog, classScratch}

// birth is what a disk begins as.
type birth struct {
	class    string
	capacity int64
	used     int64
}

func (f Fleet) withDefaults() Fleet {
	if f.ProvisionedBytes == 0 {
		f.ProvisionedBytes = int64(f.Disks) * 200_000_000_000
	}
	if f.Utilization == 0 {
		f.Utilization = .25
	}
	if f.Start.IsZero() {
		f.Start = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	}
	return f
}

// NewFleet checks the figures and sizes the fleet so that it has the wanted
// bytes and utilization as a whole.
func NewFleet(f Fleet) (*Fleet, error) {
	f = f.withDefaults()
	mix, ok := mixes[f.Shape]
	names := []string{}
	for _, s := range Shapes() {
		names = append(names, s.Name)
	}
	switch {
	case !ok:
		return nil, fmt.Errorf("there is no shape %q; shapes are %s", f.Shape, strings.Join(names, ", "))
	case f.Disks < 1 || f.Disks > 1_000_000:
		return nil, fmt.Errorf("%d disks; want 1 to 1,000,000", f.Disks)
	case f.Days < 1 || f.Days > 3660:
		return nil, fmt.Errorf("%d days; want 1 to 3660", f.Days)
	case f.Utilization < .01 || f.Utilization > .9:
		return nil, fmt.Errorf("a utilization of %g; want 0.01 to 0.9", f.Utilization)
	case f.ProvisionedBytes/int64(f.Disks) < 10*GiB || f.ProvisionedBytes/int64(f.Disks) > 10*TiB:
		return nil, fmt.Errorf("%d bytes over %d disks; want 10 GiB to 10 TiB for each on average", f.ProvisionedBytes, f.Disks)
	}
	f.births = make([]birth, f.Disks)
	var capacity, used float64
	for i := range f.births {
		b := f.born(i, mix)
		f.births[i] = b
		capacity += float64(b.capacity)
		used += float64(b.used)
	}
	// The draws only have the shape; now the sums are made right.
	bigger := float64(f.ProvisionedBytes) / capacity
	left := (f.ProvisionedBytes + GiB - 1) / GiB
	for i := range f.births {
		b := &f.births[i]
		b.capacity = max(int64(float64(b.capacity)*bigger/float64(GiB)), 4) * GiB
		left -= b.capacity / GiB
	}
	for i := 0; left > 0; i, left = i+1, left-1 { // what rounding took
		f.births[i%f.Disks].capacity += GiB
	}
	for range 8 { // a few rounds, since no disk gets fuller than 85%
		var have, want float64
		for _, b := range f.births {
			have += float64(b.used)
			want += float64(b.capacity) * f.Utilization
		}
		for i := range f.births {
			b := &f.births[i]
			b.used = min(int64(float64(b.used)*want/have), b.capacity*85/100)
		}
	}
	return &f, nil
}

// rand of a disk: independent of all others and of how they are played.
func (f *Fleet) rand(i int, use uint64) *rand.Rand {
	return rand.New(rand.NewPCG(f.Seed<<8|use, uint64(i)*0x9E3779B97F4A7C15+1)) //nolint:gosec // it is to be repeatable, not secret
}

// born draws class, size and use of disk i.
func (f *Fleet) born(i int, mix map[string]float64) birth {
	r := f.rand(i, 1)
	pick := r.Float64()
	b := birth{}
	for _, c := range classes {
		if mix[c] == 0 {
			continue
		}
		b.class = c
		if pick -= mix[c]; pick < 0 {
			break
		}
	}
	// People choose round sizes; big ones are rare and hold most bytes.
	sizes := map[string][]int64{
		classNotebook: {20, 50, 50, 100, 100, 100, 200, 200},
		classTraining: {100, 200, 500, 500, 500, 1000, 1000, 2000},
		classDataset:  {100, 200, 200, 500, 500, 1000},
		classDatabase: {20, 50, 100, 100, 200, 500},
		classLog:      {20, 50, 100, 100, 200},
		classScratch:  {50, 100, 100, 200, 500},
	}[b.class]
	b.capacity = sizes[r.IntN(len(sizes))] * GiB
	// Skewed: many disks nearly empty, a few rather full.
	mean := map[string]float64{classNotebook: .18, classTraining: .24, classDataset: .33, classDatabase: .27, classLog: .24, classScratch: .20}[b.class]
	share := mean * math.Exp(.6*r.NormFloat64()-.18)
	b.used = int64(float64(b.capacity) * min(max(share, .01), .85))
	return b
}

// Disk makes disk i, from 0. It keeps no state and can be called from any goroutine.
func (f *Fleet) Disk(i int) *Disk {
	b := f.births[i]
	r := f.rand(i, 2)
	team := r.IntN(12) + 1
	d := &Disk{
		ID:           fmt.Sprintf("%s-%05d", b.class, i),
		Cluster:      "ai-1",
		Namespace:    fmt.Sprintf("team-%02d", team),
		Claim:        fmt.Sprintf("%s-%05d", b.class, i),
		Class:        b.class,
		StorageClass: "gp3",
		Node:         fmt.Sprintf("i-%017x", i/12),
		Zone:         "us-east-1" + string(rune('a'+i/12%3)),
		Volume:       Volume{Type: "gp3"},
	}
	switch {
	case b.class == classTraining && b.capacity >= 400*GiB:
		d.Volume.IOPS, d.Volume.ThroughputMiBs = 4000, []int32{250, 250, 500, 1000}[r.IntN(4)]
	case b.class == classDataset && b.capacity >= 400*GiB:
		d.Volume.IOPS, d.Volume.ThroughputMiBs = 3000, 250
	case b.class == classDatabase && r.Float64() < .3:
		d.Volume.IOPS, d.Volume.ThroughputMiBs = []int32{6000, 9000, 12000}[r.IntN(3)], 250
	case b.class == classDatabase && r.Float64() < .3, b.class == classNotebook && r.Float64() < .15: //nolint:gocritic // a draw of its own
		d.Volume.Type, d.StorageClass = "gp2", "gp2" // from before gp3
	}
	if m := d.Volume.ThroughputMiBs; m > 125 {
		d.StorageClass = fmt.Sprintf("gp3-%d", m)
	}
	throughput := int64(max(d.Volume.ThroughputMiBs, 125)) * MiB
	w := &workload{
		r: r, at: f.Start.Unix(), end: f.Start.Unix() + int64(f.Days)*day,
		used: b.used, capacity: b.capacity, throughput: throughput,
		samples: make([]Sample, 0, f.Days*24),
	}
	w.emit(0, 0)
	switch b.class {
	case classNotebook:
		w.notebook()
	case classTraining:
		w.training()
	case classDataset:
		w.dataset()
	case classDatabase:
		w.database(float32(d.Volume.IOPS))
	case classLog:
		w.log()
	default:
		w.scratch()
	}
	w.stay(w.end)
	d.Samples = w.samples
	return d
}

// Play is a Source.
func (f *Fleet) Play(ctx context.Context, workers int, each func(*Disk) error) error {
	return parallel(ctx, workers, f.Disks, func(i int) error { return each(f.Disk(i)) })
}

// Classes are the workload classes of generated fleets.
func Classes() []string { return slices.Clone(classes) }
