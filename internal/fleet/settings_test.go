package fleet_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// TestSettingsOfRoundToTheSafeSide: an operation takes whole percent.
func TestSettingsOfRoundToTheSafeSide(t *testing.T) {
	for target, want := range map[float64]int{.824: 83, .80: 80, .55: 55, .57: 57, .951: 95, .945: 95, .121: 13} {
		require.Equal(t, want, fleet.SettingsOf(plan.Rule{Target: target}, contract.Settings{}).UtilizationPercent, "%g", target)
	}
	for step, want := range map[float64]int{0: 1, .004: 1, .011: 1, .05: 5, .125: 13} {
		require.Equal(t, want, fleet.SettingsOf(plan.Rule{Target: .8, MinStep: step}, contract.Settings{}).MinGrowPercent, "%g", step)
	}
}

// TestTheSizeOfATargetWithAFraction: 486 GiB is what the planner asks for, and what the
// workflow takes.
func TestTheSizeOfATargetWithAFraction(t *testing.T) {
	r := plan.DefaultRule()
	r.Mode, r.Target, r.HeadroomPercent = plan.Enforce, .824, 0
	f := plan.Facts{
		Disk: "d-00000000000000001", SizeBytes: 1000 << 30, UsedBytes: 400 << 30, OverheadBytes: plan.OverheadBytes(1000),
		Volumes: []plan.Volume{{ID: "vol-00000001", GiB: 1000, Type: "gp3", IOPS: 3000, ThroughputMiBs: 125}},
	}
	h := plan.History{Known: 30 * 24 * time.Hour, PeakUsedBytes: 400 << 30}
	d := plan.Decide(noon, f, h, r, plan.DefaultLimits(), plan.Prices{Types: map[string]plan.TypePrices{"gp3": {GiB: .08}}})
	_, in, why := fleet.Operation(d, r, contract.Settings{})
	require.Empty(t, why, "%v", d.Reasons)
	got := in.(contract.ShrinkInput)
	u := plan.Usage{SizeBytes: f.SizeBytes, BackingBytes: 1000 << 30, OverheadBytes: f.OverheadBytes, UsedBytes: f.UsedBytes}
	_, err := plan.ShrinkTarget(u, plan.PolicyOf(got.Settings), 1, u.UsedBytes, got.ToGiB, false)
	require.NoError(t, err)
}
