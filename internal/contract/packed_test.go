package contract_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
)

func TestPackedHoursAreTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hours := []contract.HistoryHour{}
		at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
		for range rapid.IntRange(0, 50).Draw(t, "hours") {
			at = at.Add(time.Duration(rapid.IntRange(1, 30).Draw(t, "later")) * time.Hour)
			hours = append(hours, contract.HistoryHour{
				Hour: at, UsedMinBytes: rapid.Int64().Draw(t, "min"), UsedMaxBytes: rapid.Int64().Draw(t, "max"), WrittenBytes: rapid.Int64().Draw(t, "written"),
				PeakIOPS: rapid.Int32().Draw(t, "iops"), PeakMiBs: rapid.Int32().Draw(t, "mibs"), BackingBytes: rapid.Int64().Draw(t, "backing"), FSUsedMaxBytes: rapid.Int64().Draw(t, "fs"),
			})
		}
		b, err := json.Marshal(contract.DiskReport{Hours: contract.PackHours(hours)})
		require.NoError(t, err)
		var r contract.DiskReport
		require.NoError(t, json.Unmarshal(b, &r))
		require.NotNil(t, r.Hours, "no hours are an answer, too")
		got, err := r.Hours.Hours()
		require.NoError(t, err)
		require.Equal(t, hours, got)
	})
}

func TestPackedHoursRefuseRubbish(t *testing.T) {
	one := contract.PackHours([]contract.HistoryHour{{Hour: time.Unix(3600, 0), UsedMaxBytes: contract.GiB}})
	for n := 1; n < len(one); n++ {
		_, err := one[:n].Hours()
		require.ErrorContains(t, err, "cut off")
	}
	_, err := contract.PackedHours("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").Hours()
	require.ErrorContains(t, err, "cut off")
	_, err = contract.PackHours(make([]contract.HistoryHour, contract.HistoryHours+1)).Hours()
	require.ErrorContains(t, err, "more than a disk remembers")
	b, err := json.Marshal(contract.DiskReport{})
	require.NoError(t, err)
	require.NotContains(t, string(b), "hours")
}
