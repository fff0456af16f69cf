package trace

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestFleetIsWhatWasAskedFor(t *testing.T) {
	f, err := NewFleet(Fleet{Shape: "ai-platform", Disks: 10000, Days: 90, Seed: 1})
	require.NoError(t, err)
	var capacity, used int64
	classes := map[string]int{}
	for i := range f.Disks {
		b := f.births[i]
		capacity += b.capacity
		used += b.used
		classes[b.class]++
	}
	require.InEpsilon(t, 2e15, capacity, 1e-6)
	require.InDelta(t, .25, float64(used)/float64(capacity), .001)
	require.Len(t, classes, len(Classes()))
}

func TestFleetIsRepeatable(t *testing.T) {
	spec := Fleet{Shape: "ai-platform", Disks: 50, Days: 30, Seed: 7}
	a, err := NewFleet(spec)
	require.NoError(t, err)
	b, err := NewFleet(spec)
	require.NoError(t, err)
	require.Equal(t, collect(t, a.Play), collect(t, b.Play))
	spec.Seed = 8
	c, err := NewFleet(spec)
	require.NoError(t, err)
	require.NotEqual(t, a.Disk(0).Samples, c.Disk(0).Samples)
}

func TestEveryGeneratedDiskIsPossible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, err := NewFleet(Fleet{
			Shape: rapid.SampledFrom([]string{"ai-platform", "training", "steady"}).Draw(t, "shape"),
			Disks: 3, Days: rapid.IntRange(1, 120).Draw(t, "days"), Seed: rapid.Uint64().Draw(t, "seed"),
			Utilization: rapid.Float64Range(.01, .9).Draw(t, "utilization"),
		})
		require.NoError(t, err)
		for i := range f.Disks {
			d := f.Disk(i)
			rate := max(int64(d.Volume.ThroughputMiBs), 125) * MiB
			require.Equal(t, f.Start.Unix(), d.Samples[0].At)
			require.Equal(t, f.Start.Unix()+int64(f.Days)*day, d.Samples[len(d.Samples)-1].At)
			for k, s := range d.Samples {
				require.GreaterOrEqual(t, s.Used, int64(0))
				require.LessOrEqual(t, s.Used, s.Capacity)
				if k > 0 {
					last := d.Samples[k-1]
					require.Greater(t, s.At, last.At)
					require.LessOrEqual(t, s.Used-last.Used, rate*(s.At-last.At), "faster than the volume")
				}
			}
		}
	})
}

// What makes a fleet hard to follow must be in it.
func TestFleetHasBursts(t *testing.T) {
	f, err := NewFleet(Fleet{Shape: "ai-platform", Disks: 400, Days: 90, Seed: 1})
	require.NoError(t, err)
	doubled, checkpoints, drops := 0, 0, 0
	for i := range f.Disks {
		d := f.Disk(i)
		for k := 1; k < len(d.Samples); k++ {
			a, b := d.Samples[k-1], d.Samples[k]
			switch {
			case b.Used > a.Used*19/10 && b.Used-a.Used > 5*GiB:
				doubled++
			case d.Class == classTraining && b.Used > a.Used+GiB:
				checkpoints++
			case b.Used < a.Used/2:
				drops++
			}
		}
	}
	require.Greater(t, doubled, 100)
	require.Greater(t, checkpoints, 10000)
	require.Greater(t, drops, 100)
	t.Logf("%d sudden doublings, %d checkpoints, %d drops to less than half", doubled, checkpoints, drops)
}

func TestBadFleet(t *testing.T) {
	for want, f := range map[string]Fleet{
		`no shape "x"; shapes are ai-platform, training, steady`: {Shape: "x", Disks: 1, Days: 1},
		"0 disks; want 1 to 1,000,000":                           {Shape: "steady", Days: 1},
		"0 days; want 1 to 3660":                                 {Shape: "steady", Disks: 1},
		"a utilization of 0.95; want 0.01 to 0.9":                {Shape: "steady", Disks: 1, Days: 1, Utilization: .95},
		"1000 bytes over 1 disks; want 10 GiB":                   {Shape: "steady", Disks: 1, Days: 1, ProvisionedBytes: 1000},
	} {
		_, err := NewFleet(f)
		require.ErrorContains(t, err, want)
	}
}
