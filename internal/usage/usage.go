// Package usage sums up what a disk remembers of its past: pure functions from
// hourly records to what planning needs. The node agent does it where the records
// are, the simulator where it makes them up.
package usage

import (
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Record is one hour of a disk's usage, as its volumes carry it (the history
// ring of docs/format.md).
type Record struct {
	Hour         int64 // Unix time / 3600
	UsedMin      int64 // bytes in the pool
	UsedMax      int64
	Written      int64 // bytes
	PeakIOPS     int32
	PeakMiBs     int32
	BackingBytes int64 // 0: not known
	FSUsedMax    int64 // bytes, as the filesystem counts; 0: not known
}

// RecordsOf takes a disk's hours, as its node reports them, for planning.
func RecordsOf(hours []contract.HistoryHour) []Record {
	records := make([]Record, 0, len(hours))
	for _, h := range hours {
		records = append(records, Record{
			Hour: h.Hour.Unix() / 3600, UsedMin: h.UsedMinBytes, UsedMax: h.UsedMaxBytes, Written: h.WrittenBytes,
			PeakIOPS: h.PeakIOPS, PeakMiBs: h.PeakMiBs, BackingBytes: h.BackingBytes, FSUsedMax: h.FSUsedMaxBytes,
		})
	}
	return records
}

// enough of a window's hours, one in so many, are on record for the window to count as
// known: a disk that is down records none, and one that is up in office hours has
// three in ten.
const enough = 4

// Summarize reads hourly records, oldest first, as a policy looks at them: peaks
// over lookBack (0: none are), the rest over all there is. Records from after now are left
// out. Gaps are allowed: nothing was used in them as far as planning knows. Where most
// of lookBack is a gap, less of the past is known than the oldest record is old.
func Summarize(now time.Time, records []Record, lookBack time.Duration) contract.UsageSummary {
	hour := now.Unix() / 3600
	for len(records) > 0 && records[len(records)-1].Hour > hour {
		records = records[:len(records)-1]
	}
	var h contract.UsageSummary
	if len(records) == 0 {
		return h
	}
	h.Known = now.Sub(time.Unix(records[0].Hour*3600, 0))
	for i, r := range records[1:] {
		before := records[i]
		at := time.Unix(r.Hour*3600, 0).UTC()
		switch {
		case r.BackingBytes == 0 || before.BackingBytes == 0:
		case r.BackingBytes > before.BackingBytes:
			h.LastGrow = at
		case r.BackingBytes < before.BackingBytes:
			h.LastShrink = at
		}
	}
	from := now.Add(-lookBack).Unix() / 3600
	last := records[len(records)-1]
	dayAgo := last.UsedMax
	recorded := time.Duration(0)
	for i, r := range records {
		if r.Hour >= last.Hour-24 {
			dayAgo = min(dayAgo, r.UsedMin)
			h.DayPeakBytes = max(h.DayPeakBytes, r.peak())
		}
		if r.Hour < from || lookBack <= 0 {
			continue
		}
		recorded += time.Hour
		h.PeakUsedBytes = max(h.PeakUsedBytes, r.peak())
		h.PeakIOPS = max(h.PeakIOPS, r.PeakIOPS)
		h.PeakMiBs = max(h.PeakMiBs, r.PeakMiBs)
		if i > 0 && records[i-1].Hour == r.Hour-1 {
			h.PeakFillRate = max(h.PeakFillRate, float64(r.UsedMax-records[i-1].UsedMax)/3600)
		}
	}
	if known := enough * recorded; known < lookBack {
		h.Known = min(h.Known, known)
	}
	h.DayGrowthBytes = max(0, last.UsedMax-dayAgo)
	return h
}

// peak is the hour's most used bytes, without what was deleted and not trimmed.
func (r Record) peak() int64 { return Trimmed(r.UsedMax, r.FSUsedMax) }

// Trimmed is what a pool uses at most after a trim: the pool counts blocks of
// 128 KiB, so it has somewhat more than the filesystem.
func Trimmed(pool, filesystem int64) int64 {
	if filesystem <= 0 {
		return pool
	}
	return min(pool, filesystem+filesystem/8)
}
