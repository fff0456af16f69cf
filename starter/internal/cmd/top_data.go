package cmd

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/fleet"
)

// topSource is what top asks; control.Client is one.
type topSource interface {
	fleet.Lister
	AllRunning(ctx context.Context) (map[contract.DiskID]control.Running, error)
	Look(ctx context.Context, r control.Running) (control.Snapshot, bool, error)
}

// What of a disk is trouble.
const (
	fullSoon       = time.Hour // sooner than this
	crowdedCeiling = .9        // used of a pool that cannot grow
)

// looks is how many operations are asked at once how far they are.
const looks = 8

// topData is what top shows at a moment, and its data with -o json.
type topData struct {
	Measured   time.Time      `json:"measured"` // when the disks were asked
	Totals     topTotals      `json:"totals"`
	Disks      []topDisk      `json:"disks"` // those in trouble first
	Operations []topOperation `json:"operations"`
	// Problem is why the figures are older than they should be.
	Problem string `json:"problem,omitempty"`
}

// topTotals are sums over the disks that were measured; Disks and BackingBytes are
// over all.
type topTotals struct {
	Disks        int     `json:"disks"`
	Unmeasured   int     `json:"unmeasured"`
	Troubled     int     `json:"troubled"`
	UsedBytes    int64   `json:"usedBytes"`
	BackingBytes int64   `json:"backingBytes"`
	SizeBytes    int64   `json:"sizeBytes"`
	Utilization  float64 `json:"utilization"` // used of the measured disks' backings
	SavedBytes   int64   `json:"savedBytes"`  // size less backing, of the measured disks
}

type topDisk struct {
	Disk         contract.DiskID `json:"disk"`
	Name         string          `json:"name,omitempty"`
	Node         string          `json:"node,omitempty"`
	State        string          `json:"state"`
	Trouble      bool            `json:"trouble,omitempty"`
	UsedBytes    int64           `json:"usedBytes"`
	PoolBytes    int64           `json:"poolBytes"`
	BackingBytes int64           `json:"backingBytes"`
	SizeBytes    int64           `json:"sizeBytes"`
	FillRate     float64         `json:"fillRate"` // bytes a second
	// FullInSeconds at the present fill rate; 0 when it does not fill.
	FullInSeconds float64 `json:"fullInSeconds,omitempty"`
	SavedBytes    int64   `json:"savedBytes"`
	Measured      bool    `json:"measured"`
	rank          int     // of trouble, the worst first
}

// Ranks of trouble.
const (
	rankFull = iota
	rankSoon
	rankCeiling
	rankUnmeasured
	rankFine
)

// share of the pool that is used.
func (d topDisk) share() float64 {
	if d.PoolBytes <= 0 {
		return 0
	}
	return float64(d.UsedBytes) / float64(d.PoolBytes)
}

func (d topDisk) ref() string { return cmp.Or(d.Name, string(d.Disk)) }

type topOperation struct {
	Disk      contract.DiskID `json:"disk"`
	Name      string          `json:"name,omitempty"`
	Operation string          `json:"operation"`
	Since     time.Time       `json:"since"`
	// Progress is not known when the operation does not answer; its phase is.
	control.Snapshot
}

// newTopDisk judges a disk.
func newTopDisk(r contract.DiskReport) topDisk {
	d := topDisk{Disk: r.Facts.Disk, Name: r.Facts.Name, Node: r.Facts.Node(), State: newDiskView(r, nil).state(), rank: rankFine}
	for _, v := range r.Facts.Active() {
		d.BackingBytes += v.SizeGiB * contract.GiB
	}
	m := r.Measurement
	if m == nil {
		d.rank = rankUnmeasured
		d.Trouble = true
		if d.State == "" {
			d.State = "unknown"
		}
		return d
	}
	d.Measured = true
	d.UsedBytes, d.PoolBytes, d.SizeBytes, d.FillRate = m.PoolUsedBytes, m.PoolBytes, m.SizeBytes, max(m.FillRate, 0)
	d.SavedBytes = d.SizeBytes - d.BackingBytes
	if d.FillRate > 0 {
		d.FullInSeconds = math.Max(float64(m.PoolBytes-m.PoolUsedBytes)/d.FillRate, 0)
	}
	atCeiling := m.SizeBytes > 0 && plan.CeilGiB(m.BackingBytes) >= plan.CeilGiB(m.SizeBytes+m.OverheadBytes)
	switch {
	case m.Full:
		d.rank = rankFull
	case d.FillRate > 0 && d.FullInSeconds < fullSoon.Seconds():
		d.rank, d.State = rankSoon, "full in "+shortTime(d.FullInSeconds)
	case atCeiling && d.share() >= crowdedCeiling:
		d.rank, d.State = rankCeiling, "at its ceiling"
	}
	d.Trouble = d.rank != rankFine
	return d
}

// sortTop puts disks in trouble first, then by what was asked for.
func sortTop(disks []topDisk, by string) {
	key := func(a, b topDisk) int {
		switch by {
		case "free":
			return cmp.Compare(a.PoolBytes-a.UsedBytes, b.PoolBytes-b.UsedBytes)
		case "fill":
			return cmp.Compare(b.FillRate, a.FillRate)
		case "saving":
			return cmp.Compare(b.SavedBytes, a.SavedBytes)
		}
		return cmp.Compare(b.share(), a.share())
	}
	slices.SortStableFunc(disks, func(a, b topDisk) int {
		soon := 0
		if a.rank == rankSoon && b.rank == rankSoon {
			soon = cmp.Compare(a.FullInSeconds, b.FullInSeconds)
		}
		return cmp.Or(cmp.Compare(a.rank, b.rank), soon, key(a, b), cmp.Compare(a.ref(), b.ref()), cmp.Compare(a.Disk, b.Disk))
	})
}

// measured is the part of the data that Inspect gives.
func measured(at time.Time, reports []contract.DiskReport, by string) topData {
	d := topData{Measured: at, Disks: make([]topDisk, 0, len(reports)), Operations: []topOperation{}}
	var backing int64
	for _, r := range reports {
		t := newTopDisk(r)
		d.Disks = append(d.Disks, t)
		d.Totals.Disks++
		d.Totals.BackingBytes += t.BackingBytes
		if t.Trouble {
			d.Totals.Troubled++
		}
		if !t.Measured {
			d.Totals.Unmeasured++
			continue
		}
		backing += t.BackingBytes
		d.Totals.UsedBytes += t.UsedBytes
		d.Totals.SizeBytes += t.SizeBytes
		d.Totals.SavedBytes += t.SavedBytes
	}
	if backing > 0 {
		d.Totals.Utilization = float64(d.Totals.UsedBytes) / float64(backing)
	}
	sortTop(d.Disks, by)
	return d
}

// underWay asks what runs, and of at most n how far it is: those that run longest.
func underWay(ctx context.Context, src topSource, n int) ([]topOperation, error) {
	running, err := src.AllRunning(ctx)
	if err != nil {
		return nil, err
	}
	ops := make([]topOperation, 0, len(running))
	for _, r := range running {
		ops = append(ops, topOperation{Disk: r.Disk.ID, Name: r.Disk.Name, Operation: control.Verb(r.Operation), Since: r.Since})
	}
	slices.SortFunc(ops, func(a, b topOperation) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Disk, b.Disk)) })
	gone := make([]bool, len(ops))
	slots := make(chan struct{}, looks)
	var all sync.WaitGroup
	for i := range ops {
		r := running[ops[i].Disk]
		ops[i].Snapshot.Progress = contract.Progress{Disk: r.Disk.ID, Operation: r.Operation, Phase: r.Phase, Node: r.Disk.Node}
		if i >= n {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			s, ok, err := src.Look(ctx, r)
			switch {
			case err != nil:
				ops[i].Trouble = "it does not answer"
			case !ok:
				gone[i] = true
			default:
				ops[i].Snapshot = s
			}
		})
	}
	all.Wait()
	kept := ops[:0]
	for i, o := range ops {
		if !gone[i] {
			kept = append(kept, o)
		}
	}
	return kept, ctx.Err()
}
