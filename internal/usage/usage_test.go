package usage_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/usage"
)

const (
	gib  = contract.GiB
	aDay = 24 * time.Hour
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestRecordsOf(t *testing.T) {
	require.Empty(t, usage.RecordsOf(nil))
	require.Equal(t, []usage.Record{{
		Hour: 500_000, UsedMin: 1, UsedMax: 2, Written: 3, PeakIOPS: 4, PeakMiBs: 5, BackingBytes: 6, FSUsedMax: 7,
	}}, usage.RecordsOf([]contract.HistoryHour{{
		Hour: time.Unix(500_000*3600, 0).UTC(), UsedMinBytes: 1, UsedMaxBytes: 2, WrittenBytes: 3, PeakIOPS: 4, PeakMiBs: 5, BackingBytes: 6, FSUsedMaxBytes: 7,
	}}))
}

func TestSummarize(t *testing.T) {
	h0 := now.Unix() / 3600
	rec := func(ago, used, backing int64) usage.Record {
		return usage.Record{Hour: h0 - ago, UsedMin: used * gib, UsedMax: used * gib, BackingBytes: backing * gib}
	}
	require.Zero(t, usage.Summarize(now, nil, aDay))

	records := []usage.Record{rec(100, 90, 100), rec(50, 40, 100), rec(49, 40, 60), rec(20, 45, 60), rec(3, 48, 60), rec(2, 52, 80), rec(0, 51, 80)}
	records[1].PeakIOPS, records[3].PeakIOPS, records[4].PeakMiBs = 9000, 700, 90
	h := usage.Summarize(now, records, aDay)
	require.Equal(t, contract.UsageSummary{
		Known: 16 * time.Hour, PeakUsedBytes: 52 * gib, DayPeakBytes: 52 * gib, PeakFillRate: 4 * float64(gib) / 3600, DayGrowthBytes: 6 * gib,
		PeakIOPS: 700, PeakMiBs: 90, LastGrow: now.Add(-2 * time.Hour), LastShrink: now.Add(-49 * time.Hour),
	}, h)
	h = usage.Summarize(now, records, 5*aDay)
	require.Equal(t, 90*gib, h.PeakUsedBytes)
	require.Equal(t, int32(9000), h.PeakIOPS)

	require.Zero(t, usage.Summarize(now, records, 0).PeakUsedBytes, "no past counts")
	require.Equal(t, 100*time.Hour, usage.Summarize(now, records, 0).Known)

	// The future is not known, whatever a wrong clock wrote.
	require.Equal(t, usage.Summarize(now, records, aDay), usage.Summarize(now, append(records, rec(-5, 99, 10)), aDay))

	// What a trim gives back is no need.
	records = []usage.Record{{Hour: h0, UsedMax: 100 * gib, FSUsedMax: 8 * gib}}
	require.Equal(t, 9*gib, usage.Summarize(now, records, aDay).PeakUsedBytes)
	records[0].FSUsedMax = 99 * gib
	require.Equal(t, 100*gib, usage.Summarize(now, records, aDay).PeakUsedBytes)
}

// TestKnownIsWhatIsOnRecord: a window is known when a quarter of its hours is.
func TestKnownIsWhatIsOnRecord(t *testing.T) {
	end := now.Unix() / 3600
	const lookBack = 7 * aDay
	known := func(recorded func(ago int64, at time.Time) bool) time.Duration {
		var records []usage.Record
		for ago := int64(30 * 24); ago >= 0; ago-- {
			if recorded(ago, now.Add(-time.Duration(ago)*time.Hour)) {
				records = append(records, usage.Record{Hour: end - ago, UsedMax: gib})
			}
		}
		return usage.Summarize(now, records, lookBack).Known
	}
	require.Equal(t, 30*aDay, known(func(int64, time.Time) bool { return true }))
	require.Equal(t, 3*aDay, known(func(ago int64, _ time.Time) bool { return ago <= 3*24 }), "a new disk")
	require.Equal(t, 30*aDay, known(func(ago int64, _ time.Time) bool { return ago%9 < 6 }), "hours are missing now and then")
	require.Equal(t, 30*aDay, known(func(_ int64, at time.Time) bool {
		return at.Hour() >= 8 && at.Hour() < 18 && at.Weekday() != time.Saturday && at.Weekday() != time.Sunday
	}), "up in office hours")
	require.Zero(t, known(func(ago int64, _ time.Time) bool { return ago > 8*24 }), "nothing in the window")
	require.Equal(t, 8*time.Hour, known(func(ago int64, _ time.Time) bool { return ago > 8*24 || ago < 2 }), "up again since an hour")
	require.Less(t, known(func(ago int64, _ time.Time) bool { return ago > 8*24 || ago < 41 }), lookBack)
	require.GreaterOrEqual(t, known(func(ago int64, _ time.Time) bool { return ago > 8*24 || ago < 42 }), lookBack)
}

func TestSummarizeFindsThePeak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lookBack := time.Duration(rapid.Int64Range(1, 200).Draw(t, "lookBack")) * time.Hour
		hour := now.Unix()/3600 - 300
		var records []usage.Record
		var want int64
		var wantIOPS int32
		for hour < now.Unix()/3600 {
			hour += rapid.Int64Range(1, 20).Draw(t, "gap")
			r := usage.Record{Hour: hour, UsedMax: rapid.Int64Range(0, 1<<40).Draw(t, "used"), PeakIOPS: rapid.Int32Range(0, 90000).Draw(t, "iops")}
			records = append(records, r)
			if hour <= now.Unix()/3600 && hour >= now.Add(-lookBack).Unix()/3600 {
				want, wantIOPS = max(want, r.UsedMax), max(wantIOPS, r.PeakIOPS)
			}
		}
		h := usage.Summarize(now, records, lookBack)
		require.Equal(t, want, h.PeakUsedBytes)
		require.Equal(t, wantIOPS, h.PeakIOPS)
		require.GreaterOrEqual(t, h.DayGrowthBytes, int64(0))
	})
}
