package ec2sim

// volumeType holds the documented limits of one EBS volume type. Sizes in GiB,
// throughput in MiB/s.
type volumeType struct {
	minGiB, maxGiB                         int32
	minIOPS, maxIOPS, baseIOPS, iopsPerGiB int32 // settable IOPS; maxIOPS 0: not settable
	needIOPS                               bool
	minThroughput, maxThroughput           int32 // settable throughput; 0: not settable
}

var volumeTypes = map[string]volumeType{
	"gp2": {minGiB: 1, maxGiB: 16384},
	"gp3": {
		minGiB: 1, maxGiB: 65536,
		minIOPS: 3000, maxIOPS: 80000, baseIOPS: 3000, iopsPerGiB: 500,
		minThroughput: 125, maxThroughput: 2000,
	},
	"io1":      {minGiB: 4, maxGiB: 16384, minIOPS: 100, maxIOPS: 64000, iopsPerGiB: 50, needIOPS: true},
	"io2":      {minGiB: 4, maxGiB: 65536, minIOPS: 100, maxIOPS: 256000, iopsPerGiB: 1000, needIOPS: true},
	"st1":      {minGiB: 125, maxGiB: 16384},
	"sc1":      {minGiB: 125, maxGiB: 16384},
	"standard": {minGiB: 1, maxGiB: 1024},
}

// gp2IOPS is 3 per GiB between 100 and 16,000.
func gp2IOPS(sizeGiB int32) int32 { return min(max(3*sizeGiB, 100), 16000) }

// gp2Throughput is 128 MiB/s up to 170 GiB, rising to 250 from 334 GiB on.
func gp2Throughput(sizeGiB int32) int32 {
	switch {
	case sizeGiB <= 170:
		return 128
	case sizeGiB >= 334:
		return 250
	}
	return min(sizeGiB*3/4, 250)
}

// resolve checks a wanted shape and fills in what the type gives by itself.
// iops and throughput are nil when the caller did not set them.
func resolve(typ string, sizeGiB int32, iops, throughput *int32) (Shape, error) {
	t, ok := volumeTypes[typ]
	if !ok {
		return Shape{}, apiErr("UnknownVolumeType", "Unsupported volume type '%s' for volume creation.", typ)
	}
	sh := Shape{SizeGiB: sizeGiB, Type: typ}
	switch {
	case sizeGiB < t.minGiB:
		return sh, apiErr("InvalidParameterValue", "Volume of %dGiB is too small for volume type %s; minimum is %dGiB.", sizeGiB, typ, t.minGiB)
	case sizeGiB > t.maxGiB:
		return sh, apiErr("InvalidParameterValue", "Volume of %dGiB is too large for volume type %s; maximum is %dGiB.", sizeGiB, typ, t.maxGiB)
	}
	if err := t.resolveIOPS(&sh, iops); err != nil {
		return sh, err
	}
	return sh, t.resolveThroughput(&sh, throughput)
}

func (t volumeType) resolveIOPS(sh *Shape, iops *int32) error {
	switch {
	case iops != nil && t.maxIOPS == 0:
		return apiErr("InvalidParameterCombination", "The parameter iops is not supported for %s volumes.", sh.Type)
	case iops == nil && t.needIOPS:
		return errMissing("iops")
	case sh.Type == "gp2":
		sh.IOPS = gp2IOPS(sh.SizeGiB)
		return nil
	case iops == nil:
		sh.IOPS = t.baseIOPS
		return nil
	}
	sh.IOPS = *iops
	switch {
	case *iops < t.minIOPS:
		return apiErr("InvalidParameterValue", "Volume iops of %d is too low; minimum is %d.", *iops, t.minIOPS)
	case *iops > t.maxIOPS:
		return apiErr("InvalidParameterValue", "Volume iops of %d is too high; maximum is %d.", *iops, t.maxIOPS)
	case *iops > t.baseIOPS && int64(*iops) > int64(sh.SizeGiB)*int64(t.iopsPerGiB):
		return apiErr("InvalidParameterValue", "Iops to volume size ratio of %f is too high; maximum is %d.",
			float64(*iops)/float64(sh.SizeGiB), t.iopsPerGiB)
	}
	return nil
}

func (t volumeType) resolveThroughput(sh *Shape, throughput *int32) error {
	if t.maxThroughput == 0 {
		if throughput != nil {
			return apiErr("InvalidParameterCombination", "The parameter throughput is not supported for %s volumes.", sh.Type)
		}
		return nil
	}
	sh.ThroughputMiB = t.minThroughput
	if throughput == nil {
		return nil
	}
	sh.ThroughputMiB = *throughput
	switch {
	case *throughput < t.minThroughput:
		return apiErr("InvalidParameterValue", "Throughput (MiBps) of %d is too low; minimum is %d.", *throughput, t.minThroughput)
	case *throughput > t.maxThroughput:
		return apiErr("InvalidParameterValue", "Throughput (MiBps) of %d is too high; maximum is %d.", *throughput, t.maxThroughput)
	case *throughput*4 > sh.IOPS:
		return apiErr("InvalidParameterValue", "Throughput (MiBps) to iops ratio of %f is too high; maximum is 0.250000 MiBps per iops.",
			float64(*throughput)/float64(sh.IOPS))
	}
	return nil
}

// resolveModify is resolve for a volume that has a shape already: what is not
// given is kept where the new type allows it, and a gp2 volume that becomes
// gp3 keeps at least its performance.
func resolveModify(from Shape, typ string, size, iops, throughput *int32) (Shape, error) {
	to := from
	if typ != "" {
		to.Type = typ
	}
	if size != nil {
		to.SizeGiB = *size
	}
	if to.SizeGiB < from.SizeGiB {
		return to, apiErr("InvalidParameterValue", "New size cannot be smaller than existing size")
	}
	t := volumeTypes[to.Type]
	if iops == nil && t.maxIOPS > 0 {
		switch {
		case to.Type == from.Type, from.Type == "io1" || from.Type == "io2":
			kept := min(max(from.IOPS, t.minIOPS), t.maxIOPS)
			iops = &kept
		case from.Type == "gp2" && to.Type == "gp3":
			kept := max(t.baseIOPS, from.IOPS)
			iops = &kept
		}
	}
	if throughput == nil && t.maxThroughput > 0 {
		switch {
		case to.Type == from.Type:
			throughput = &from.ThroughputMiB
		case from.Type == "gp2":
			kept := max(t.minThroughput, gp2Throughput(from.SizeGiB))
			throughput = &kept
		}
	}
	return resolve(to.Type, to.SizeGiB, iops, throughput)
}
