package contract_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

var largest = contract.HistoryHour{
	Hour: time.Date(2026, 11, 22, 18, 0, 0, 0, time.UTC), UsedMinBytes: math.MaxInt64, UsedMaxBytes: math.MaxInt64, WrittenBytes: math.MaxInt64,
	PeakIOPS: math.MaxInt32, PeakMiBs: math.MaxInt32, BackingBytes: math.MaxInt64, FSUsedMaxBytes: math.MaxInt64,
}

// TestHistoryFitsAPayload: Temporal refuses payloads of more than 2 MiB.
func TestHistoryFitsAPayload(t *testing.T) {
	var all contract.ReadHistoryResult
	for range contract.HistoryHours {
		all.Hours = append(all.Hours, largest)
	}
	b, err := json.Marshal(contract.InspectResult{Disks: []contract.DiskReport{{History: &all}}})
	require.NoError(t, err)
	require.Less(t, len(b), 5<<20/4, "with room for the disk's facts")
}

// TestPastsOfSeveralDisksFitAPayload: so many as InspectedAtOnce allows, each with the
// most that EC2 keeps of tags on a volume: 50.
func TestPastsOfSeveralDisksFitAPayload(t *testing.T) {
	now := time.Date(2026, 11, 22, 18, 30, 0, 0, time.UTC)
	tags := map[string]string{}
	for i := range 50 {
		tags[fmt.Sprintf("%02d%s", i, strings.Repeat("k", 126))] = strings.Repeat("v", 256)
	}
	for _, days := range []int{0, 1, 7, 14, 30, 60, 90, 170, 4000} {
		since := now.AddDate(0, 0, -days)
		if days == 4000 {
			since = time.Time{}
		}
		n := contract.InspectedAtOnce(now, since)
		var out contract.InspectResult
		for range n {
			r := contract.DiskReport{Measurement: &contract.Measurement{}}
			r.Facts.Volumes = []contract.VolumeFacts{{Tags: tags}}
			var hours []contract.HistoryHour
			for i := range min(days*24+2, contract.HistoryHours) {
				hours = append(hours, []contract.HistoryHour{largest, {}}[i%2]) // nothing packs worse
			}
			r.Hours = contract.PackHours(hours)
			out.Disks = append(out.Disks, r)
		}
		b, err := json.Marshal(out)
		require.NoError(t, err)
		require.Less(t, len(b), 2<<20, "%d disks, %d days", n, days)
	}
}

func TestInspectInputHistory(t *testing.T) {
	const disk = contract.DiskID("d-0123456789abcdef0")
	require.NoError(t, contract.InspectInput{Disk: disk, History: true, Since: time.Now()}.Validate())
	require.ErrorContains(t, contract.InspectInput{History: true}.Validate(), "one disk")
	const node = "i-0123456789abcdef0"
	require.NoError(t, contract.InspectInput{Node: node, Disks: []contract.DiskID{disk}, History: true}.Validate())
	require.ErrorContains(t, contract.InspectInput{Disks: []contract.DiskID{disk}}.Validate(), "the node they are on")
	require.ErrorContains(t, contract.InspectInput{Node: node, Disk: disk, Disks: []contract.DiskID{disk}}.Validate(), "no disk beside")
	require.ErrorContains(t, contract.InspectInput{Node: node, Disks: make([]contract.DiskID, 21)}.Validate(), "at most 20")
	require.ErrorContains(t, contract.InspectInput{Node: node, Disks: []contract.DiskID{"x"}}.Validate(), "x")
	require.ErrorContains(t, contract.InspectInput{Disk: disk, History: true, FactsOnly: true}.Validate(), "node")
}
