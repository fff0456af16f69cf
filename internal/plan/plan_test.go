package plan_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
)

const gib = contract.GiB

func usage(t *rapid.T) plan.Usage {
	size := rapid.Int64Range(1, 4096).Draw(t, "sizeGiB") * gib
	overhead := rapid.Int64Range(16<<20, 2*gib).Draw(t, "overhead")
	backing := rapid.Int64Range(overhead/gib+1, 6000).Draw(t, "backingGiB") * gib
	pool := backing - overhead
	return plan.Usage{
		SizeBytes: size, BackingBytes: backing, OverheadBytes: overhead,
		UsedBytes: rapid.Int64Range(0, min(pool, size)).Draw(t, "used"),
		FillRate:  rapid.Float64Range(0, 2e9).Draw(t, "rate"),
	}
}

func policy() plan.Policy { return plan.PolicyOf(contract.Settings{}) }

func TestGrowTargetGrowsWithinTheCeiling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u, forced := usage(t), rapid.Bool().Draw(t, "forced")
		d, err := plan.GrowTarget(u, policy(), forced)
		if err != nil {
			r, ok := contract.AsRefusal(err)
			require.True(t, ok)
			require.Equal(t, contract.AtCeiling, r.Code)
			require.GreaterOrEqual(t, u.BackingBytes, plan.CeilingGiB(u)*gib)
			return
		}
		require.NotEmpty(t, d.Reason)
		if d.Enough {
			require.False(t, forced)
			require.Equal(t, u.BackingBytes, d.GiB*gib)
			return
		}
		require.Greater(t, d.GiB*gib, u.BackingBytes)
		require.LessOrEqual(t, d.GiB, plan.CeilingGiB(u))

		// What was grown is enough, unless it stands at the ceiling: no growth
		// asks for another one at once.
		u.BackingBytes = d.GiB * gib
		again, err := plan.GrowTarget(u, policy(), false)
		require.True(t, err != nil || again.Enough || d.GiB == plan.CeilingGiB(u))
	})
}

func TestShrinkTargetHoldsWhatIsUsed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := usage(t)
		floor := rapid.Int64Range(1, 130).Draw(t, "floor")
		ask := rapid.Int64Range(0, 6000).Draw(t, "to")
		cp := rapid.Int64Range(0, 2*u.UsedBytes).Draw(t, "copy")
		d, err := plan.ShrinkTarget(u, policy(), floor, cp, ask, false)
		if err != nil {
			r, ok := contract.AsRefusal(err)
			require.True(t, ok)
			require.Contains(t, []contract.RefusalCode{contract.NoRoomToShrink, contract.BelowUsed}, r.Code)
			return
		}
		require.Less(t, d.GiB*gib, u.BackingBytes, "a shrink makes it smaller")
		require.GreaterOrEqual(t, d.GiB, floor)
		// The new backing is made in one piece: of the overhead, at most what that needs.
		pool := d.GiB*gib - min(u.OverheadBytes, plan.OverheadBytes(d.GiB))
		if pool < u.SizeBytes {
			require.GreaterOrEqual(t, float64(pool)*0.8, float64(u.UsedBytes)-1)
		}
		require.GreaterOrEqual(t, pool, min(cp, u.SizeBytes))

		// Nothing is left to do by usage alone after it, and no growth either.
		if ask == 0 {
			u.BackingBytes, u.FillRate = d.GiB*gib, 0
			_, err = plan.ShrinkTarget(u, policy(), floor, cp, 0, false)
			require.Error(t, err)
			g, err := plan.GrowTarget(u, policy(), false)
			require.NoError(t, err)
			require.True(t, g.Enough)
		}
	})
}

func TestShrinkTargetRefusals(t *testing.T) {
	u := plan.Usage{SizeBytes: 64 * gib, BackingBytes: 20 * gib, OverheadBytes: 256 << 20, UsedBytes: 4 * gib}
	for _, tt := range []struct {
		name  string
		to    int64
		other bool
		want  int64
		code  contract.RefusalCode
	}{
		{name: "chosen", want: 6},
		{name: "asked", to: 10, want: 10},
		{name: "too small", to: 5, code: contract.BelowUsed},
		{name: "same", to: 20, code: contract.NoRoomToShrink},
		{name: "larger", to: 21, code: contract.NoRoomToShrink},
		{name: "same, other volume", to: 20, other: true, want: 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := plan.ShrinkTarget(u, policy(), 1, 0, tt.to, tt.other)
			if tt.code != "" {
				r, ok := contract.AsRefusal(err)
				require.True(t, ok, "%v", err)
				require.Equal(t, tt.code, r.Code)
				require.NotEmpty(t, r.Next)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, d.GiB)
		})
	}
}

func TestGrowTargetReasons(t *testing.T) {
	u := plan.Usage{SizeBytes: 64 * gib, BackingBytes: 4 * gib, UsedBytes: 3 * gib}
	d, err := plan.GrowTarget(u, policy(), false)
	require.NoError(t, err)
	require.True(t, d.Enough)

	d, err = plan.GrowTarget(u, policy(), true)
	require.NoError(t, err)
	require.EqualValues(t, 5, d.GiB)

	u.FillRate = 10 * float64(gib) / (10 * time.Minute).Seconds()
	d, err = plan.GrowTarget(u, policy(), false)
	require.NoError(t, err)
	require.EqualValues(t, 6, d.GiB)
	require.Contains(t, d.Reason, "filling at")
}

func TestKeepPerformanceIsNeverSlower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := contract.VolumeFacts{Type: rapid.SampledFrom([]string{"gp2", "gp3", "io1", "io2"}).Draw(t, "type")}
		switch old.Type {
		case "gp2":
			old.SizeGiB = rapid.Int64Range(1, 16384).Draw(t, "size")
		case "gp3":
			old.SizeGiB = rapid.Int64Range(1, 65536).Draw(t, "size")
			old.IOPS = int32(rapid.Int64Range(3000, max(3000, min(80000, old.SizeGiB*500))).Draw(t, "iops"))
			old.ThroughputMiBs = int32(rapid.Int64Range(125, min(2000, int64(old.IOPS)/4)).Draw(t, "tput"))
		default:
			old.SizeGiB = rapid.Int64Range(4, 16384).Draw(t, "size")
			old.IOPS = int32(rapid.Int64Range(100, max(100, min(64000, old.SizeGiB*50))).Draw(t, "iops"))
		}
		iops, tput := plan.Delivered(old)
		least := plan.LeastGiB(&old, contract.VolumeSpec{})
		require.LessOrEqual(t, least, max(old.SizeGiB, 32), "the old size always does")
		for _, size := range []int64{least, old.SizeGiB} {
			if size < least {
				continue
			}
			p, err := plan.KeepPerformance(&old, size, contract.VolumeSpec{})
			require.NoError(t, err)
			require.GreaterOrEqual(t, p.IOPS, iops)
			if p.Type == "gp3" {
				require.GreaterOrEqual(t, p.ThroughputMiBs, tput)
			}
		}
		if least > 1 {
			_, err := plan.KeepPerformance(&old, least-1, contract.VolumeSpec{})
			require.Error(t, err)
		}
	})
}

func TestKeepPerformanceOfGP2(t *testing.T) {
	p, err := plan.KeepPerformance(&contract.VolumeFacts{Type: "gp2", SizeGiB: 2000}, 100, contract.VolumeSpec{})
	require.NoError(t, err)
	require.Equal(t, plan.Performance{Type: "gp3", IOPS: 6000, ThroughputMiBs: 250, Reason: p.Reason}, p)
	require.Contains(t, p.Reason, "6000 IOPS")
}

func TestGrowTargetStopsAtThePolicysCeiling(t *testing.T) {
	u := plan.Usage{SizeBytes: 100 * gib, BackingBytes: 10 * gib, OverheadBytes: 64 << 20, UsedBytes: 9 * gib}
	p := plan.PolicyOf(contract.Settings{CeilingGiB: 11})
	d, err := plan.GrowTarget(u, p, true)
	require.NoError(t, err)
	require.EqualValues(t, 11, d.GiB)
	require.Contains(t, d.Reason, "ceiling")
	u.BackingBytes = 11 * gib
	_, err = plan.GrowTarget(u, p, true)
	r, _ := contract.AsRefusal(err)
	require.Equal(t, contract.AtCeiling, r.Code)
	require.Contains(t, r.Next, "raise the ceiling")
	// A person may ask for more.
	d, err = plan.GrowTo(u, 20)
	require.NoError(t, err)
	require.EqualValues(t, 20, d.GiB)
}

// TestGrowTargetPacesADay: a disk that grows to four times its size in a day needs
// four growths for it at most, whatever it starts with; one that grows faster does
// not need many more.
func TestGrowTargetPacesADay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(64, 16384).Draw(t, "size") * gib
		u := plan.Usage{SizeBytes: size, BackingBytes: rapid.Int64Range(4, 32).Draw(t, "backing") * gib, OverheadBytes: 64 << 20}
		growth := rapid.Float64Range(0, 12).Draw(t, "growth") // times the first backing, in a day
		day := float64(u.BackingBytes) * growth
		p := plan.PolicyOf(contract.Settings{})
		var modified []time.Time
		start := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
		used := float64(u.BackingBytes) * .8
		for at := time.Duration(0); at < 24*time.Hour; at += time.Minute {
			used = min(used+day/(24*60), float64(size))
			u.UsedBytes, u.FillRate = int64(used), day/86400
			if float64(u.BackingBytes-u.OverheadBytes)*.9 > used {
				continue
			}
			d, err := plan.GrowTarget(u.WithModified(start.Add(at), modified), p, true)
			if err != nil {
				break // at the ceiling
			}
			u.BackingBytes = d.GiB * gib
			modified = append(modified, start.Add(at))
		}
		most := 4
		if growth > 3 {
			most = 6
		}
		require.LessOrEqual(t, len(modified), most)
	})
}

func TestModificationsToComeAreDamage(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	u := plan.Usage{}.WithModified(now, []time.Time{now.Add(-time.Hour), now.Add(time.Minute), now.AddDate(5, 0, 0)})
	require.Equal(t, 2, u.Spent)
	require.LessOrEqual(t, u.FreeIn, 24*time.Hour)
}

// TestShrinkTargetKeepsTheHeadroom: what is approved later than it was planned may find
// more in use.
func TestShrinkTargetKeepsTheHeadroom(t *testing.T) {
	u := plan.Usage{SizeBytes: 1000 * gib, BackingBytes: 500 * gib, OverheadBytes: 512 << 20, UsedBytes: 60 * gib}
	for _, tt := range []struct {
		bytes       int64
		percent     float64
		to, atLeast int64
	}{{to: 76}, {bytes: 40 * gib, to: 90, atLeast: 101}, {bytes: 40 * gib, to: 101}, {percent: 1, to: 120, atLeast: 121}, {percent: 1, to: 121}} {
		p := policy()
		p.HeadroomBytes, p.HeadroomPercent = tt.bytes, tt.percent
		d, err := plan.ShrinkTarget(u, p, 1, 0, tt.to, false)
		if tt.atLeast == 0 {
			require.NoError(t, err)
			require.Equal(t, tt.to, d.GiB)
			continue
		}
		r, _ := contract.AsRefusal(err)
		require.Equal(t, contract.BelowUsed, r.Code)
		require.Contains(t, r.Next, fmt.Sprint(tt.atLeast))
		d, err = plan.ShrinkTarget(u, p, 1, 0, 0, false)
		require.NoError(t, err)
		require.Equal(t, tt.atLeast, d.GiB, "what it chooses itself")
	}
	// No more than the whole disk is wanted.
	u.SizeBytes = 64 * gib
	p := policy()
	p.HeadroomBytes = 40 * gib
	_, err := plan.ShrinkTarget(u, p, 1, 0, 65, false)
	require.NoError(t, err)
}
