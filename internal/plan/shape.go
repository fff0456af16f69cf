package plan

import "math"

// shape is a backing to be made: count equal volumes.
type shape struct {
	Volume
	count int
}

func (s shape) total() int64 { return s.GiB * int64(s.count) }

func (s shape) volumes() []Volume {
	out := make([]Volume, s.count)
	for i := range out {
		out[i] = s.Volume
	}
	return out
}

// need is the performance a new backing must have, in all.
func (c *weighing) need() (iops, mibs int32) {
	haveIOPS, haveMiBs := c.f.delivered()
	if !c.r.FollowPeak {
		return max(haveIOPS, c.h.PeakIOPS, c.r.MinIOPS), max(haveMiBs, c.h.PeakMiBs, c.r.MinMiBs)
	}
	return max(lifted(c.h.PeakIOPS, haveIOPS, c.r.PeakHeadroom), c.r.MinIOPS), max(lifted(c.h.PeakMiBs, haveMiBs, c.r.PeakHeadroom), c.r.MinMiBs)
}

// lifted is a peak with headroom, but no more than the volume delivers now: what
// runs into its limit would otherwise be given more each time.
func lifted(peak, have int32, headroom float64) int32 {
	return max(peak, min(int32(math.Ceil(float64(peak)*(1+headroom))), have))
}

// choose is the cheapest backing of at least gib that the rule allows and that
// gives the needed performance.
func (c *weighing) choose(gib int64) (shape, bool) {
	iops, mibs := c.need()
	types := c.r.Types
	if len(types) == 0 {
		types = []string{c.f.Volumes[0].Type}
		if types[0] == gp2 {
			types = []string{gp3}
		}
	}
	var best shape
	found, cheapest := false, 0.0
	for _, t := range types {
		for n := 1; n <= max(c.r.MaxStripes, 1); n++ {
			s, ok := c.l.shaped(t, gib, iops, mibs, n)
			if !ok {
				continue
			}
			if usd := c.p.VolumeMonth(s.Volume) * float64(n); !found || usd < cheapest-1e-9 {
				best, cheapest, found = s, usd, true
			}
		}
	}
	return best, found
}

// shaped is the least backing of n volumes of a type that gives gib, iops and
// mibs together.
func (l Limits) shaped(typ string, gib int64, iops, mibs int32, n int) (shape, bool) {
	t, ok := l.Types[typ]
	if !ok {
		return shape{}, false
	}
	k := int32(n)
	s := shape{Volume: Volume{Type: typ, GiB: max((gib+int64(n)-1)/int64(n), t.MinGiB)}, count: n}
	iops, mibs = (iops+k-1)/k, (mibs+k-1)/k
	switch {
	case typ == gp2:
		if iops > gp2BurstIOPS {
			s.GiB = max(s.GiB, int64(iops+gp2IOPSPerGiB-1)/gp2IOPSPerGiB)
		}
		if mibs > gp2LowThroughput {
			s.GiB = max(s.GiB, gp2FullGiB)
		}
		if iops > gp2MaxIOPS || mibs > gp2MaxThroughput {
			return shape{}, false
		}
	case t.MaxIOPS > 0:
		s.IOPS = max(iops, t.BaseIOPS, 100)
		if t.MaxMiBs > 0 {
			s.ThroughputMiBs = max(mibs, t.BaseMiBs)
			s.IOPS = max(s.IOPS, s.ThroughputMiBs*t.IOPSPerMiBs)
		}
		if s.IOPS > t.BaseIOPS && t.IOPSPerGiB > 0 {
			s.GiB = max(s.GiB, (int64(s.IOPS)+t.IOPSPerGiB-1)/t.IOPSPerGiB)
		}
		if s.IOPS > t.MaxIOPS || t.MaxMiBs > 0 && s.ThroughputMiBs > t.MaxMiBs {
			return shape{}, false
		}
	}
	return s, s.GiB <= t.MaxGiB
}

// Gives tells whether a type can give a performance at all, with up to so many
// volumes.
func (l Limits) Gives(typ string, iops, mibs int32, stripes int) bool {
	for n := 1; n <= max(stripes, 1); n++ {
		if _, ok := l.shaped(typ, 1, iops, mibs, n); ok {
			return true
		}
	}
	return false
}
