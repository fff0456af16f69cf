package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

func TestTimeToFull(t *testing.T) {
	require.Equal(t, 10*time.Second, timeToFull(1000, 100))
	require.EqualValues(t, never, timeToFull(1000, 0))
	require.EqualValues(t, never, timeToFull(contract.MaxDiskBytes, 1e-9))
	require.Zero(t, timeToFull(0, 0))
	require.Zero(t, timeToFull(-1, 5))
}

// A growth that the agent starts follows the policy, and waits for EBS only as
// long as the pool has room.
func TestGrowSettings(t *testing.T) {
	const mib = 1 << 20
	c, u := newClock(), NewUsage()
	u.now = c.now
	m := contract.Measurement{
		Disk: testDisk, Generation: 1, SizeBytes: 64 * contract.GiB, BackingBytes: 10 * contract.GiB, OverheadBytes: contract.GiB,
		PoolBytes: 9 * contract.GiB, PoolUsedBytes: 8 * contract.GiB,
	}
	u.Observe(&m)
	settings := func(kind disk.EventKind, rate float64) contract.Settings {
		s := u.growSettings(disk.Event{Disk: testDisk, Kind: kind, Pressure: contract.Pressure{
			Generation: 1, UsedBytes: 8 * contract.GiB, BackingBytes: 10 * contract.GiB, FillRate: rate,
		}})
		require.NoError(t, s.Validate())
		return s
	}
	// No policy: the defaults, but for the patience.
	require.Zero(t, settings(disk.EventPressure, 0))
	require.Zero(t, settings(disk.EventPressure, mib), "17 minutes are left")
	require.Equal(t, contract.Settings{ModifyPatience: 34 * time.Second}, settings(disk.EventPressure, 10*mib), "102 seconds are left")
	require.Equal(t, leastPatience, settings(disk.EventPressure, 100*mib).ModifyPatience)
	require.Equal(t, leastPatience, settings(disk.EventFull, 0).ModifyPatience)

	u.setGuide(testDisk, contract.Guide{
		HeadroomBytes: 4 * contract.GiB, CeilingGiB: 40,
		Settings: contract.Settings{UtilizationPercent: 70, FillHorizon: time.Minute, MinGrowGiB: 2, ModifyPatience: time.Minute},
	})
	got := settings(disk.EventPressure, 0)
	require.Equal(t, contract.Settings{UtilizationPercent: 70, FillHorizon: time.Minute, MinGrowGiB: 4, ModifyPatience: time.Minute, CeilingGiB: 40}, got,
		"3 GiB of the headroom are missing")
	require.Equal(t, 34*time.Second, settings(disk.EventPressure, 10*mib).ModifyPatience)
	require.Equal(t, time.Minute, settings(disk.EventPressure, 2*mib).ModifyPatience)
	moving := m
	moving.Move = &contract.MoveState{Generation: 2, PoolBytes: 3 * contract.GiB, PoolUsedBytes: 2 * contract.GiB}
	u.Observe(&moving)
	require.EqualValues(t, 4, u.growSettings(disk.Event{Disk: testDisk, Kind: disk.EventPressure, Pressure: contract.Pressure{
		Generation: 2, UsedBytes: 2 * contract.GiB, BackingBytes: 3 * contract.GiB,
	}}).MinGrowGiB, "of the new backing's as well: it has one growth, and not one after the other")
	u.Observe(&m)
	u.setGuide(testDisk, contract.Guide{CeilingGiB: 40, Settings: contract.Settings{CeilingGiB: 30, ModifyPatience: 5 * time.Second}})
	got = settings(disk.EventFull, 0)
	require.EqualValues(t, 30, got.CeilingGiB, "the lower one counts")
	require.Equal(t, 5*time.Second, got.ModifyPatience, "never longer than the policy's")
}
