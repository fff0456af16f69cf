package plan

import "time"

// Limits are EBS's, and how close to them planning goes.
type Limits struct {
	// Types by name.
	Types map[string]TypeLimits `json:"types"`
	// Modifications of one volume in any ModificationWindow.
	Modifications      int           `json:"modifications"`
	ModificationWindow time.Duration `json:"modificationWindowNanos"`
	// DiskModifications of one disk in any ModificationWindow: its volumes' and
	// appended volumes together, so that another volume is no way around EBS's
	// limit. 0: no limit.
	DiskModifications int `json:"diskModifications"`
	// Reserve of these, and of a volume's, is kept for emergencies.
	Reserve int `json:"reserve"`
	// Urgent growth is one whose pool would be full within this time.
	Urgent time.Duration `json:"urgentNanos"`
	// MaxVolumes of a backing.
	MaxVolumes int `json:"maxVolumes"`
	// CopyMiBs is the assumed speed of a move, for its duration and cost.
	CopyMiBs float64 `json:"copyMiBs"`
}

// TypeLimits of one volume type. Zero MaxIOPS, MaxMiBs: nothing is provisioned.
// io1 carries up to 1,000 MiB/s with small I/O; 500 is what it always does.
type TypeLimits struct {
	MinGiB, MaxGiB int64
	BaseIOPS       int32 // comes with the volume
	MaxIOPS        int32
	IOPSPerGiB     int64 // above BaseIOPS
	BaseMiBs       int32
	MaxMiBs        int32
	IOPSPerMiBs    int32 // IOPS each MiB/s needs
	CarriedMiBs    int32 // most throughput that comes with IOPS, where none is provisioned
}

// DefaultLimits are those of the EBS user guide.
func DefaultLimits() Limits {
	return Limits{
		Types: map[string]TypeLimits{
			gp3:        {MinGiB: 1, MaxGiB: 65536, BaseIOPS: gp3BaseIOPS, MaxIOPS: gp3MaxIOPS, IOPSPerGiB: gp3IOPSPerGiB, BaseMiBs: gp3BaseThroughput, MaxMiBs: gp3MaxThroughput, IOPSPerMiBs: 4},
			io1:        {MinGiB: 4, MaxGiB: 16384, MaxIOPS: 64000, IOPSPerGiB: 50, IOPSPerMiBs: 4, CarriedMiBs: 500},
			io2:        {MinGiB: 4, MaxGiB: 65536, MaxIOPS: 256000, IOPSPerGiB: 1000, IOPSPerMiBs: 4, CarriedMiBs: 4000},
			gp2:        {MinGiB: 1, MaxGiB: 16384},
			"st1":      {MinGiB: 125, MaxGiB: 16384},
			"sc1":      {MinGiB: 125, MaxGiB: 16384},
			"standard": {MinGiB: 1, MaxGiB: 1024},
		},
		Modifications:      4,
		DiskModifications:  4,
		ModificationWindow: 24 * time.Hour,
		Reserve:            1,
		Urgent:             15 * time.Minute,
		MaxVolumes:         16,
		CopyMiBs:           100,
	}
}

// modifiable tells from when on a volume may be modified: now, or later. Of the
// modifications in the window the reserve is left alone unless urgent.
func (l Limits) modifiable(now time.Time, v Volume, urgent bool) (from time.Time, why Why) {
	allowed := l.Modifications
	if !urgent {
		allowed -= l.Reserve
	}
	from = now
	if v.OptimizingUntil.After(now) {
		from, why = v.OptimizingUntil, WhyModifying
	}
	if allowed <= 0 {
		return now.Add(l.ModificationWindow), WhyModifications
	}
	recent := recentFirst(now, v.Modified, l.ModificationWindow)
	if len(recent) >= allowed {
		// The allowed-th latest must have left the window.
		if free := recent[allowed-1].Add(l.ModificationWindow); free.After(from) {
			from, why = free, WhyModifications
		}
	}
	return from, why
}
