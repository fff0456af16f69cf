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

// resized is the same with another size in all: what it saves then is not the
// size's doing.
func (s shape) resized(gib int64) shape {
	s.GiB = (gib + int64(s.count) - 1) / int64(s.count)
	return s
}

// need is the performance a new backing must have, in all: the recorded peak, the
// policy's least, and unless the policy follows the peak what there is now. A peak
// above what the volumes can give was not theirs (holes are read for nothing).
func (c *weighing) need() performance {
	surely, together := c.l.delivered(c.f)
	return performance{
		c.needed(c.h.PeakIOPS, surely.iops, together.iops, c.r.MinIOPS),
		c.needed(c.h.PeakMiBs, surely.mibs, together.mibs, c.r.MinMiBs),
	}
}

func (c *weighing) needed(peak, surely, together, least int32) int32 {
	if together > 0 {
		peak = min(peak, together)
	}
	// What is lacking is not waited for, and nothing is given up for it that a peak
	// which is not known yet may want.
	if !c.r.FollowPeak || c.lacks() && c.h.Known < c.r.LookBack {
		return max(surely, peak, least)
	}
	// What runs into its limit is not given more each time: the headroom ends at
	// what the volumes deliver now.
	lifted := min(int32(math.Ceil(float64(peak)*(1+c.r.PeakHeadroom))), together)
	return max(peak, lifted, least)
}

// choose is the cheapest backing of at least gib that the rule allows and that
// gives the needed performance. In place it is one volume of just that size, of a type
// that EBS changes the present one into.
func (c *weighing) choose(gib int64, inPlace bool) (shape, bool) {
	need := c.need()
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
		// What has no price is not free: it is only kept, never chosen.
		if _, priced := c.p.Types[t]; !priced && len(c.p.Types) > 0 && t != c.f.Volumes[0].Type {
			continue
		}
		if inPlace && !elastic[t] {
			continue
		}
		stripes := c.stripes()
		if inPlace {
			stripes = 1
		}
		for n := 1; n <= stripes; n++ {
			size := gib
			if n > 1 {
				size++ // each volume has headers of its own
			}
			s, ok := c.l.shaped(t, size, need, n)
			if !ok || inPlace && s.GiB != gib {
				continue
			}
			if usd := c.p.VolumeMonth(s.Volume) * float64(n); !found || usd < cheapest-1e-9 {
				best, cheapest, found = s, usd, true
			}
		}
	}
	return best, found
}

// stripes is how many volumes a new backing may have.
func (c *weighing) stripes() int {
	n := max(c.r.MaxStripes, 1)
	if c.f.Striped {
		n = max(n, len(c.f.Volumes))
	}
	return n
}

// shaped is the least backing of n volumes of a type that has gib and the needed
// performance, together.
func (l Limits) shaped(typ string, gib int64, need performance, n int) (shape, bool) {
	t, ok := l.Types[typ]
	if !ok {
		return shape{}, false
	}
	k := int32(n)
	s := shape{Volume: Volume{Type: typ, GiB: max((gib+int64(n)-1)/int64(n), t.MinGiB)}, count: n}
	iops, mibs := (need.iops+k-1)/k, (need.mibs+k-1)/k
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
		if t.CarriedMiBs > 0 {
			s.IOPS = max(s.IOPS, mibs*t.IOPSPerMiBs)
		}
		if s.IOPS > t.BaseIOPS && t.IOPSPerGiB > 0 {
			s.GiB = max(s.GiB, (int64(s.IOPS)+t.IOPSPerGiB-1)/t.IOPSPerGiB)
		}
		if s.IOPS > t.MaxIOPS || t.MaxMiBs > 0 && s.ThroughputMiBs > t.MaxMiBs || t.CarriedMiBs > 0 && mibs > t.CarriedMiBs {
			return shape{}, false
		}
	}
	return s, s.GiB <= t.MaxGiB
}

// Gives tells whether a type can give a performance at all, with up to so many
// volumes.
func (l Limits) Gives(typ string, iops, mibs int32, stripes int) bool {
	for n := 1; n <= max(stripes, 1); n++ {
		if _, ok := l.shaped(typ, 1, performance{iops, mibs}, n); ok {
			return true
		}
	}
	return false
}
