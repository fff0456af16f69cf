package agent

import (
	"math"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// hoursSince says in the contract's words what a disk remembers, without the
// hours that were over by since, and no more of them than fit a payload.
func hoursSince(records []format.Usage, since time.Time) []contract.HistoryHour {
	if more := len(records) - contract.HistoryHours; more > 0 {
		records = records[more:]
	}
	hours := make([]contract.HistoryHour, 0, len(records))
	for _, u := range records {
		at := time.Unix(u.Hour*3600, 0).UTC()
		if !at.Add(time.Hour).After(since) {
			continue
		}
		hours = append(hours, contract.HistoryHour{
			Hour: at, UsedMinBytes: int64(u.UsedMin), UsedMaxBytes: int64(u.UsedMax), WrittenBytes: int64(u.Written),
			PeakIOPS: int32(min(u.PeakIOPS, math.MaxInt32)), PeakMiBs: int32(min(u.PeakMiBs, math.MaxInt32)),
			BackingBytes: int64(u.BackingBytes), FSUsedMaxBytes: int64(u.FSUsedMax),
		})
	}
	return hours
}
