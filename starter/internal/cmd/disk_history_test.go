package cmd

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
)

func TestHistoryTable(t *testing.T) {
	begin := time.Date(2026, 11, 20, 22, 0, 0, 0, time.UTC)
	hour := func(n int, used, backing int64) contract.HistoryHour {
		return contract.HistoryHour{
			Hour: begin.Add(time.Duration(n) * time.Hour), UsedMinBytes: (used - 1) * contract.GiB, UsedMaxBytes: used * contract.GiB,
			WrittenBytes: contract.GiB, PeakIOPS: int32(100 * used), BackingBytes: backing * contract.GiB,
		}
	}
	early := hour(2, 6, 8) // 00:00 of the next day
	early.PeakMiBs, early.FSUsedMaxBytes = 90, 5*contract.GiB
	var out bytes.Buffer
	require.NoError(t, historyTable(&out, []contract.HistoryHour{hour(0, 4, 0), hour(1, 3, 0), early, hour(20, 4, 16), hour(100, 2, 16)}))
	require.Equal(t, `DAY          HOURS   USED MIN   USED MAX   FILES MAX   WRITTEN   PEAK IOPS   PEAK MIB/S   BACKING   USED%
2026-11-20       2      2 GiB      4 GiB           -     2 GiB         400            -         -       -
2026-11-21       2      3 GiB      6 GiB       5 GiB     2 GiB         600           90    16 GiB     75%
2026-11-25       1      1 GiB      2 GiB           -     1 GiB         200            -    16 GiB     12%
`, out.String())

	out.Reset()
	require.NoError(t, historyTable(&out, nil))
	require.Empty(t, out.String())
}
