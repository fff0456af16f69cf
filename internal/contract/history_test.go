package contract_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

// TestHistoryFitsAPayload: Temporal refuses payloads of more than 2 MiB.
func TestHistoryFitsAPayload(t *testing.T) {
	largest := contract.HistoryHour{
		Hour: time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC), UsedMinBytes: math.MaxInt64, UsedMaxBytes: math.MaxInt64, WrittenBytes: math.MaxInt64,
		PeakIOPS: math.MaxInt32, PeakMiBs: math.MaxInt32, BackingBytes: math.MaxInt64, FSUsedMaxBytes: math.MaxInt64,
	}
	var all contract.ReadHistoryResult
	for range contract.HistoryHours {
		all.Hours = append(all.Hours, largest)
	}
	b, err := json.Marshal(contract.InspectResult{Disks: []contract.DiskReport{{History: &all}}})
	require.NoError(t, err)
	require.Less(t, len(b), 5<<20/4, "with room for the disk's facts")
}

func TestInspectInputHistory(t *testing.T) {
	const disk = contract.DiskID("d-0123456789abcdef0")
	require.NoError(t, contract.InspectInput{Disk: disk, History: true, Since: time.Now()}.Validate())
	require.ErrorContains(t, contract.InspectInput{History: true}.Validate(), "one disk")
	require.ErrorContains(t, contract.InspectInput{Disk: disk, History: true, FactsOnly: true}.Validate(), "node")
}
