package plan_test

import (
	"math"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/plan"
)

const aDay = 24 * time.Hour

// drawn is everything Decide looks at.
type drawn struct {
	f plan.Facts
	h plan.History
	r plan.Rule
	l plan.Limits
}

func (in drawn) decide(at time.Time) plan.Decision {
	return plan.Decide(at, in.f, in.h, in.r, in.l, prices())
}

func drawRule(t *rapid.T) plan.Rule {
	r := enforce()
	r.Name = "drawn"
	r.Target = rapid.Float64Range(0.3, 0.95).Draw(t, "target")
	r.HeadroomBytes = rapid.Int64Range(0, 20*gib).Draw(t, "headroomBytes")
	r.HeadroomPercent = rapid.Float64Range(0, 1/r.Target-1).Draw(t, "headroomPercent")
	r.HeadroomTime = time.Duration(rapid.Int64Range(0, 7200).Draw(t, "headroomSeconds")) * time.Second
	r.FloorGiB = rapid.SampledFrom([]int64{0, 0, 0, 10, 500}).Draw(t, "floor")
	r.CeilingGiB = rapid.SampledFrom([]int64{0, 0, 0, 500, 2000}).Draw(t, "ceiling")
	r.MinStepGiB = rapid.Int64Range(0, 50).Draw(t, "minStepGiB")
	r.MinStep = rapid.Float64Range(0, 0.5).Draw(t, "minStep")
	r.MaxStepGiB = rapid.SampledFrom([]int64{0, 0, 60, 1000}).Draw(t, "maxStep")
	r.MinShrinkGiB = rapid.Int64Range(1, 20).Draw(t, "minShrinkGiB")
	r.MinShrink = rapid.Float64Range(0, 0.3).Draw(t, "minShrink")
	r.Payback = time.Duration(rapid.Int64Range(1, 60).Draw(t, "paybackDays")) * aDay
	r.Snapshot = rapid.Bool().Draw(t, "snapshot")
	r.ThrottleMiBs = rapid.SampledFrom([]int64{0, 0, 20}).Draw(t, "throttle")
	r.MinIOPS = rapid.SampledFrom([]int32{0, 0, 5000, 20000}).Draw(t, "minIOPS")
	r.MinMiBs = rapid.SampledFrom([]int32{0, 0, 300, 1000}).Draw(t, "minMiBs")
	r.FollowPeak = rapid.Bool().Draw(t, "followPeak")
	r.Types = rapid.SampledFrom([][]string{nil, nil, {"gp3"}, {"gp3", "io2"}, {"io1", "io2", "gp2", "gp3"}}).Draw(t, "types")
	r.MaxStripes = rapid.IntRange(1, 4).Draw(t, "stripes")
	return r
}

func drawVolume(t *rapid.T, gib int64) plan.Volume {
	v := plan.Volume{GiB: gib, Type: rapid.SampledFrom([]string{"gp3", "gp3", "gp3", "gp2", "io2"}).Draw(t, "type")}
	switch v.Type {
	case "gp3":
		v.IOPS = rapid.Int32Range(3000, max(3000, min(80000, int32(gib*500)))).Draw(t, "iops")
		v.ThroughputMiBs = rapid.Int32Range(125, max(125, min(2000, v.IOPS/4))).Draw(t, "mibs")
	case "io2":
		v.GiB = max(gib, 4)
		v.IOPS = rapid.Int32Range(100, min(64000, int32(v.GiB*1000))).Draw(t, "iops")
	}
	return v
}

// draw makes facts that agree with each other. Disks have at most 12 TiB, so that
// each fits one volume of any type.
func draw(t *rapid.T) drawn {
	in := drawn{r: drawRule(t), l: plan.DefaultLimits()}
	in.f = disk(rapid.Int64Range(1, 12000).Draw(t, "sizeGiB"), 1, 0)
	total := rapid.Int64Range(1, 12000).Draw(t, "backingGiB")
	in.f.Volumes = nil
	for n := rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "volumes"); n > 0; n-- {
		v := drawVolume(t, max(total/int64(n), 1))
		v.ID = "vol-0000000" + string(rune('0'+n))
		for range rapid.IntRange(0, 4).Draw(t, "modifications") {
			v.Modified = append(v.Modified, now.Add(-time.Duration(rapid.Int64Range(1, 90000).Draw(t, "ago"))*time.Second))
		}
		if rapid.IntRange(0, 3).Draw(t, "optimizing") == 0 {
			v.OptimizingUntil = now.Add(time.Duration(rapid.Int64Range(1, 20000).Draw(t, "for")) * time.Second)
		}
		in.f.Volumes = append(in.f.Volumes, v)
		total -= v.GiB
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 4, 5}).Draw(t, "ofDisk") {
		in.f.Modified = append(in.f.Modified, now.Add(-time.Duration(rapid.Int64Range(1, 90000).Draw(t, "diskAgo"))*time.Second))
	}
	in.f.OverheadBytes = plan.OverheadBytes(in.f.BackingGiB())
	in.f.UsedBytes = rapid.Int64Range(0, min(in.f.PoolBytes(), in.f.SizeBytes)).Draw(t, "used")
	in.f.FillRate = rapid.SampledFrom([]float64{0, 0, 1e3, 1e5, 1e7, 1e9, 1e30, math.Inf(1), math.NaN(), -1e9}).Draw(t, "rate")
	in.h = plan.History{
		Known:          time.Duration(rapid.Int64Range(0, 20).Draw(t, "knownDays")) * aDay,
		PeakUsedBytes:  rapid.Int64Range(0, in.f.SizeBytes).Draw(t, "peak"),
		PeakFillRate:   rapid.SampledFrom([]float64{0, 0, 1e4, 1e6}).Draw(t, "peakRate"),
		DayGrowthBytes: rapid.SampledFrom([]int64{0, 0, gib, 100 * gib}).Draw(t, "dayGrowth"),
		PeakIOPS:       rapid.Int32Range(0, 100000).Draw(t, "peakIOPS"),
		PeakMiBs:       rapid.Int32Range(0, 3000).Draw(t, "peakMiBs"),
	}
	in.r.LookBack = rapid.SampledFrom([]time.Duration{0, 3 * time.Hour, 7 * aDay, 7 * aDay}).Draw(t, "lookBack")
	in.f.DayPeakBytes = rapid.SampledFrom([]int64{0, in.f.UsedBytes, in.h.PeakUsedBytes, in.f.SizeBytes}).Draw(t, "dayPeak")
	if rapid.Bool().Draw(t, "changed") {
		in.h.LastShrink = now.Add(-time.Duration(rapid.Int64Range(0, 72).Draw(t, "hours")) * time.Hour)
	}
	return in
}

// after is the disk once a decision was carried out, as EBS and the node do it.
func (in drawn) after(at time.Time, d plan.Decision) drawn {
	in.f.Volumes = slices.Clone(in.f.Volumes)
	if d.Action == plan.Grow || d.Action == plan.Append || d.Action == plan.Retype {
		in.f.Modified = append(slices.Clone(in.f.Modified), at) // and a move carries them over
	}
	switch d.Action {
	case plan.Grow:
		i := slices.IndexFunc(in.f.Volumes, func(v plan.Volume) bool { return v.ID == d.Volume })
		v := &in.f.Volumes[i]
		in.f.OverheadBytes += (d.VolumeGiB - v.GiB) * gib / 1000
		v.GiB = d.VolumeGiB
		v.Modified = append(slices.Clone(v.Modified), at)
		v.OptimizingUntil = at.Add(2 * time.Hour)
		in.h.LastGrow = at
	case plan.Retype:
		i := slices.IndexFunc(in.f.Volumes, func(v plan.Volume) bool { return v.ID == d.Volume })
		v := &in.f.Volumes[i]
		v.Type, v.IOPS, v.ThroughputMiBs = d.Type, d.IOPS, d.ThroughputMiBs
		v.Modified = append(slices.Clone(v.Modified), at)
		v.OptimizingUntil = at.Add(2 * time.Hour)
	case plan.Append:
		in.f.Volumes = append(in.f.Volumes, plan.Volume{ID: "vol-a" + at.Format("150405"), GiB: d.VolumeGiB, Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs})
		in.f.OverheadBytes += d.VolumeGiB*gib/1000 + 4<<20
		in.h.LastGrow = at
	case plan.Shrink:
		in.f.Volumes = nil
		for i := range d.Stripes {
			in.f.Volumes = append(in.f.Volumes, plan.Volume{ID: "vol-b" + string(rune('0'+i)), GiB: d.VolumeGiB, Type: d.Type, IOPS: d.IOPS, ThroughputMiBs: d.ThroughputMiBs})
		}
		in.f.Striped = d.Stripes > 1
		in.f.OverheadBytes = plan.OverheadBytes(d.GiB) + int64(d.Stripes-1)*(8<<20)
		in.h.LastShrink = at
	}
	return in
}

// burst is what the recorded throughput brings in each second, as far as the volumes
// can give it.
func (in drawn) burst() float64 {
	var all int32
	for _, v := range in.f.Volumes {
		_, mibs := given(v)
		all += mibs
	}
	return float64(min(in.h.PeakMiBs, all)) * (1 << 20)
}

// spent are the disk's modifications in the 24 hours before a moment.
func (in drawn) spent(at time.Time) []time.Time {
	in.f.Modified = slices.Clone(in.f.Modified)
	var volumes []time.Time
	for _, v := range in.f.Volumes {
		volumes = append(volumes, v.Modified...)
	}
	old := func(m time.Time) bool { return !m.After(at.Add(-aDay)) }
	disk, volumes := slices.DeleteFunc(in.f.Modified, old), slices.DeleteFunc(volumes, old)
	if len(volumes) > len(disk) {
		disk = volumes
	}
	slices.SortFunc(disk, time.Time.Compare)
	return disk
}

func afterwards(d plan.Decision) int64 {
	if d.Action == plan.None {
		return d.FromGiB
	}
	return d.GiB
}

// given is what a volume gives by the EBS guide.
func given(v plan.Volume) (iops, mibs int32) {
	switch v.Type {
	case "gp3":
		return v.IOPS, v.ThroughputMiBs
	case "gp2":
		iops = int32(min(max(v.GiB*3, 100), 16000))
		if v.GiB < 1000 {
			iops = max(iops, 3000)
		}
		if v.GiB <= 170 {
			return iops, 128
		}
		return iops, 250
	case "io1":
		return v.IOPS, min(v.IOPS/4, 500)
	}
	return v.IOPS, min(v.IOPS/4, 4000)
}
