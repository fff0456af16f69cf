package fleet_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// TestOperationKeepsThePeak: two volumes that gave 5000 IOPS together are folded into
// one that gives as much, and the policy's least is brought along by any move.
func TestOperationKeepsThePeak(t *testing.T) {
	r := plan.DefaultRule()
	r.Mode, r.MinMiBs = plan.Enforce, 250
	f := plan.Facts{Disk: "d-00000000000000001", SizeBytes: 1000 << 30, UsedBytes: 60 << 30, OverheadBytes: plan.OverheadBytes(100)}
	for _, id := range []string{"vol-00000001", "vol-00000002"} {
		f.Volumes = append(f.Volumes, plan.Volume{ID: id, GiB: 50, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125})
	}
	h := plan.History{Known: 30 * 24 * time.Hour, PeakUsedBytes: 60 << 30, PeakIOPS: 5000, PeakMiBs: 200}
	d := plan.Decide(time.Now(), f, h, r, plan.DefaultLimits(), plan.Prices{})
	require.True(t, d.Fold, "%v", d.Reasons)
	_, in, why := fleet.Operation(d, r, contract.Settings{})
	require.Empty(t, why)
	require.Equal(t, []any{r.HeadroomBytes, r.HeadroomPercent}, []any{in.(contract.ShrinkInput).HeadroomBytes, in.(contract.ShrinkInput).HeadroomPercent})
	require.Equal(t, contract.VolumeSpec{Type: "gp3", IOPS: 5000, ThroughputMiBs: 250}, in.(contract.ShrinkInput).Volume)
}

func TestOperationTakesUpAMoveAsItIs(t *testing.T) {
	r := plan.DefaultRule()
	r.FollowPeak, r.SnapshotRetention = true, 36*time.Hour
	name, in, why := fleet.Operation(plan.Decision{Disk: "d-00000000000000001", Wanted: plan.Shrink, GiB: 500, Resume: true, Type: "gp3"}, r, contract.Settings{})
	require.Empty(t, why)
	require.Equal(t, contract.ShrinkWorkflow, name)
	got := in.(contract.ShrinkInput)
	require.True(t, got.ResumeOnly)
	require.Zero(t, got.ToGiB)
	require.Empty(t, got.Volume)
	require.Equal(t, 36*time.Hour, got.Retention)
}
