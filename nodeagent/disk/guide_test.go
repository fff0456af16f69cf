package disk_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/disk"
)

func TestLowWater(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	low := func(g *contract.Guide, size, pool, used int64, rate float64) int64 {
		return disk.LowWater(g, now, size, pool, used, rate)
	}
	// Without a policy.
	require.Equal(t, 15*gib, low(nil, 1000*gib, 100*gib, 50*gib, 0))
	require.Equal(t, 256*mib, low(nil, 64*gib, gib, 0, 0))
	require.Equal(t, 100*mib, low(nil, 64*gib, 300*mib, 0, 0))
	require.Equal(t, 30*gib, low(nil, 1000*gib, 100*gib, 0, float64(gib)))
	// By policy: the greatest counts.
	g := &contract.Guide{HeadroomBytes: 3 * gib, HeadroomPercent: .1, HeadroomTime: 10 * time.Minute}
	require.Equal(t, 3*gib, low(g, 1000*gib, 100*gib, 20*gib, 0))
	require.Equal(t, 8*gib, low(g, 1000*gib, 100*gib, 80*gib, 0))
	require.Equal(t, 600*64*mib, low(g, 1000*gib, 100*gib, 20*gib, float64(64*mib)))
	// And what somebody wants for a while comes on top.
	g.ExtraBytes, g.ExtraUntil = 50*gib, now.Add(time.Second)
	require.Equal(t, 53*gib, low(g, 1000*gib, 100*gib, 20*gib, 0))
	g.ExtraUntil = now
	require.Equal(t, 3*gib, low(g, 1000*gib, 100*gib, 20*gib, 0))
	// A policy without headroom cannot make a pool run full before it asks.
	require.Equal(t, 64*mib, low(&contract.Guide{}, 1000*gib, 100*gib, 20*gib, 0))
	require.Equal(t, 30*gib, low(&contract.Guide{}, 1000*gib, 100*gib, 20*gib, float64(gib)))
	// Never more than the disk can still come to use, and never nothing.
	require.Equal(t, 2*gib, low(&contract.Guide{HeadroomBytes: 500 * gib}, 100*gib, 100*gib, 98*gib, 0))
	require.Equal(t, int64(1), low(g, 100*gib, 100*gib, 100*gib, 0))
	// Absurd figures do not overflow.
	require.Positive(t, low(&contract.Guide{HeadroomTime: 1 << 62, HeadroomPercent: 10, ExtraBytes: contract.MaxDiskBytes, ExtraUntil: now.Add(1)}, contract.MaxDiskBytes, gib, contract.MaxDiskBytes/2, 1e18))
}
