package contract

import "time"

// HistoryHours is the most hours a disk remembers: 170 days. That many
// HistoryHour fit one payload.
const HistoryHours = 4096

// ReadHistoryInput names a disk and from when on to read.
type ReadHistoryInput struct {
	Disk DiskID `json:"disk"`
	// Since leaves out the hours that were over by then; zero: all there is.
	Since time.Time `json:"since,omitzero"`
}

// ReadHistoryResult is what a disk remembers.
type ReadHistoryResult struct {
	// Hours are in order, the oldest first. Hours in which the disk was not
	// measured are not among them; the last one may still be going on, and lags
	// by up to ten minutes.
	Hours []HistoryHour `json:"hours"`
}

// HistoryHour is one hour of a disk's usage, as its volumes carry it.
type HistoryHour struct {
	Hour           time.Time `json:"hour"`           // when it began, UTC
	UsedMinBytes   int64     `json:"usedMinBytes"`   // the least and
	UsedMaxBytes   int64     `json:"usedMaxBytes"`   // the most that was used of the pool
	WrittenBytes   int64     `json:"writtenBytes"`   // to the disk
	PeakIOPS       int32     `json:"peakIops"`       // the highest mean over one measuring interval
	PeakMiBs       int32     `json:"peakMibs"`       // likewise, reads and writes together
	BackingBytes   int64     `json:"backingBytes"`   // sum of the volumes, at the hour's end
	FSUsedMaxBytes int64     `json:"fsUsedMaxBytes"` // the most the filesystem counted; 0: not known
}

// UsageSummary is what planning needs of a disk's past.
type UsageSummary struct {
	// Known is how much of the past there are records of, up to now: no more than four
	// times the hours in the look-back window where that is less than the window.
	Known time.Duration `json:"knownNanos"`
	// PeakUsedBytes in the look-back window, without what a trim gives back.
	PeakUsedBytes int64 `json:"peakUsedBytes"`
	// DayPeakBytes is the same over the last 24 hours, whatever the window is.
	DayPeakBytes int64 `json:"dayPeakBytes,omitempty"`
	// PeakFillRate is the fastest rise from one hour to the next in the window,
	// in bytes per second.
	PeakFillRate float64 `json:"peakFillRate,omitempty"`
	// DayGrowthBytes is by how much more is used than a day ago, at least 0.
	DayGrowthBytes int64 `json:"dayGrowthBytes,omitempty"`
	PeakIOPS       int32 `json:"peakIops,omitempty"` // in the window
	PeakMiBs       int32 `json:"peakMiBs,omitempty"`

	LastGrow   time.Time `json:"lastGrow,omitzero"`   // when the hour began in which the backing last became larger; zero: not on record
	LastShrink time.Time `json:"lastShrink,omitzero"` // in which it last became smaller
}
