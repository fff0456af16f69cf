package agent

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

func TestHoursSince(t *testing.T) {
	require.GreaterOrEqual(t, contract.HistoryHours, format.HistorySlots, "a whole ring is one answer")
	begin := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	first := begin.Unix() / 3600
	ring := []format.Usage{
		{Hour: first, UsedMin: 1, UsedMax: 2, Written: 3, PeakIOPS: math.MaxUint32, PeakMiBs: 5, BackingBytes: 6, FSUsedMax: 7},
		{Hour: first + 1},
		{Hour: first + 5},
	}
	got := hoursSince(ring, time.Time{})
	require.Len(t, got, 3)
	require.Equal(t, contract.HistoryHour{
		Hour: begin, UsedMinBytes: 1, UsedMaxBytes: 2, WrittenBytes: 3, PeakIOPS: math.MaxInt32, PeakMiBs: 5, BackingBytes: 6, FSUsedMaxBytes: 7,
	}, got[0])
	require.Equal(t, begin.Add(5*time.Hour), got[2].Hour)

	require.Len(t, hoursSince(ring, begin.Add(59*time.Minute)), 3, "the hour goes on")
	require.Len(t, hoursSince(ring, begin.Add(time.Hour)), 2, "it is over")
	none := hoursSince(ring, begin.AddDate(0, 0, 1))
	require.NotNil(t, none)
	require.Empty(t, none)

	require.Len(t, hoursSince(make([]format.Usage, contract.HistoryHours+3), time.Time{}), contract.HistoryHours)
}
