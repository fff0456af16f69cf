package plan

import (
	"fmt"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Volume types and their limits, from the EBS user guide.
const (
	gp2 = "gp2"
	gp3 = "gp3"
	io1 = "io1"
	io2 = "io2"

	gp3BaseIOPS       = 3000
	gp3MaxIOPS        = 80000
	gp3IOPSPerGiB     = 500
	gp3BaseThroughput = 125
	gp3MaxThroughput  = 2000
	gp2MinIOPS        = 100
	gp2MaxIOPS        = 16000
	gp2IOPSPerGiB     = 3
	gp2BurstIOPS      = 3000
	gp2BurstGiB       = 1000 // below it gp2 bursts to gp2BurstIOPS
	gp2MaxThroughput  = 250
	gp2LowThroughput  = 128 // up to gp2LowGiB
	gp2LowGiB         = 170
	gp2FullGiB        = 334 // from here on gp2MaxThroughput
)

// Performance is what a volume is created with.
type Performance struct {
	Type           string
	IOPS           int32 // 0: the type has no provisioned IOPS
	ThroughputMiBs int32 // 0: the type has no provisioned throughput
	Reason         string
}

// SizeLimits of a volume type, in GiB.
func SizeLimits(volumeType string) (least, most int64) {
	switch volumeType {
	case io1:
		return 4, 16384
	case io2:
		return 4, 65536
	case gp2:
		return 1, 16384
	case "st1", "sc1":
		return 125, 16384
	case "standard":
		return 1, 1024
	default:
		return 1, 65536
	}
}

// Delivered is what a volume gives its user, whether provisioned or derived
// from its size.
func Delivered(v contract.VolumeFacts) (iops, throughputMiBs int32) {
	switch v.Type {
	case gp2:
		iops = int32(min(max(v.SizeGiB*gp2IOPSPerGiB, gp2MinIOPS), gp2MaxIOPS))
		if v.SizeGiB < gp2BurstGiB {
			iops = max(iops, gp2BurstIOPS)
		}
		throughputMiBs = gp2LowThroughput
		if v.SizeGiB > gp2LowGiB {
			throughputMiBs = gp2MaxThroughput
		}
		return iops, throughputMiBs
	case gp3:
		return max(v.IOPS, gp3BaseIOPS), max(v.ThroughputMiBs, gp3BaseThroughput)
	default:
		return v.IOPS, v.ThroughputMiBs
	}
}

// KeepPerformance says what a new volume of newGiB is asked for, so that it is
// never slower than old unless spec says so. A nil old means gp3 with its
// baseline. A gp2 volume becomes gp3: its IOPS come from its size and would
// shrink with it.
//
// What the wanted type cannot give at that size is a SizeLimit refusal: growing
// is the way out, not silence.
func KeepPerformance(old *contract.VolumeFacts, newGiB int64, spec contract.VolumeSpec) (Performance, error) {
	if old == nil {
		old = &contract.VolumeFacts{Type: gp3}
	}
	iops, tput := Delivered(*old)
	p := Performance{Type: old.Type, Reason: "as the old volume"}
	if spec.Type != "" {
		p.Type = spec.Type
		p.Reason = "type as asked for"
	} else if old.Type == gp2 {
		p.Type = gp3
		p.Reason = fmt.Sprintf("gp2's %d IOPS of %d GiB kept by gp3", iops, old.SizeGiB)
	}
	if spec.IOPS != 0 {
		iops = spec.IOPS
	}
	if spec.ThroughputMiBs != 0 {
		tput = spec.ThroughputMiBs
	}
	if least, most := SizeLimits(p.Type); newGiB < least || newGiB > most {
		return Performance{}, contract.Refuse(contract.SizeLimit,
			"a %s volume has %d to %d GiB, %d GiB were asked for", p.Type, least, most, newGiB).
			WithNext("ask for another size or volume type")
	}
	switch p.Type {
	case gp3:
		return keepGP3(p, iops, tput, newGiB)
	case io1, io2:
		return keepIO(p, iops, newGiB)
	default: // gp2, st1, sc1, standard: nothing to provision
		return p, nil
	}
}

func keepGP3(p Performance, iops, tput int32, gib int64) (Performance, error) {
	p.ThroughputMiBs = max(tput, gp3BaseThroughput)
	// Every provisioned IOPS carries 0.25 MiB/s.
	p.IOPS = max(iops, gp3BaseIOPS, p.ThroughputMiBs*4)
	most := int32(min(max(gib*gp3IOPSPerGiB, gp3BaseIOPS), gp3MaxIOPS))
	if p.IOPS > most || p.ThroughputMiBs > gp3MaxThroughput {
		return Performance{}, contract.Refuse(contract.SizeLimit,
			"a gp3 volume of %d GiB gives at most %d IOPS and %d MiB/s, %d IOPS and %d MiB/s are to be kept",
			gib, most, gp3MaxThroughput, p.IOPS, p.ThroughputMiBs).
			WithNext("choose a larger size, or ask for less performance in the volume's specification")
	}
	return p, nil
}

func keepIO(p Performance, iops int32, gib int64) (Performance, error) {
	perGiB, limit := int64(50), int64(64000)
	if p.Type == io2 {
		perGiB, limit = 1000, 256000
	}
	p.IOPS = max(iops, 100)
	if most := min(gib*perGiB, limit); int64(p.IOPS) > most {
		return Performance{}, contract.Refuse(contract.SizeLimit,
			"an %s volume of %d GiB gives at most %d IOPS, %d are to be kept", p.Type, gib, most, p.IOPS).
			WithNext("choose a larger size, or ask for less performance in the volume's specification")
	}
	return p, nil
}

// LeastGiB is the smallest volume that keeps the performance of old (see
// KeepPerformance), and 1 where no size does: creating it will say why.
func LeastGiB(old *contract.VolumeFacts, spec contract.VolumeSpec) int64 {
	// Up to each type's greatest size KeepPerformance is monotonic in the size:
	// search between what fails and what keeps.
	lo, hi := int64(0), int64(0)
	for _, most := range []int64{65536, 16384, 1024} {
		if keeps(old, most, spec) {
			hi = most
			break
		}
	}
	if hi == 0 {
		return 1
	}
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; keeps(old, mid, spec) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return hi
}

func keeps(old *contract.VolumeFacts, gib int64, spec contract.VolumeSpec) bool {
	_, err := KeepPerformance(old, gib, spec)
	return err == nil
}
