package plan_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func prices() price.Table {
	t, _ := price.BuiltIn().In("us-east-1")
	return t
}

func enforce() plan.Rule {
	r := plan.DefaultRule()
	r.Mode = plan.Enforce
	return r
}

func disk(sizeGiB, backingGiB, usedGiB int64) plan.Facts {
	return plan.Facts{
		Disk: "d-00000000000000001", Node: "i-00000001", Zone: "us-east-1a",
		SizeBytes: sizeGiB * gib, UsedBytes: usedGiB * gib, OverheadBytes: plan.OverheadBytes(backingGiB),
		Volumes: []plan.Volume{{ID: "vol-00000001", GiB: backingGiB, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}},
	}
}

func known(peakGiB int64) plan.History {
	return plan.History{Known: 30 * 24 * time.Hour, PeakUsedBytes: peakGiB * gib}
}

func TestDecideShrinksWhatIsMostlyEmpty(t *testing.T) {
	d := plan.Decide(now, disk(1000, 1000, 250), known(300), enforce(), plan.DefaultLimits(), prices())
	require.Equal(t, plan.Shrink, d.Action, "%+v", d)
	require.EqualValues(t, 376, d.GiB)
	require.InDelta(t, 49.92, d.SavingUSDMonth, 0.01)
	t.Logf("%+v", d)
}

func TestDecideGrowsWhatIsNearlyFull(t *testing.T) {
	d := plan.Decide(now, disk(1000, 100, 95), known(95), enforce(), plan.DefaultLimits(), prices())
	require.Equal(t, plan.Grow, d.Action, "%+v", d)
	t.Logf("%+v", d)
}
