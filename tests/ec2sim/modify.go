package ec2sim

import (
	"strings"
	"time"
)

type modificationXML struct {
	VolumeID           string `xml:"volumeId"`
	State              string `xml:"modificationState"`
	StatusMessage      string `xml:"statusMessage,omitempty"`
	TargetSize         int32  `xml:"targetSize"`
	TargetIops         *int32 `xml:"targetIops,omitempty"`
	TargetVolumeType   string `xml:"targetVolumeType"`
	TargetThroughput   *int32 `xml:"targetThroughput,omitempty"`
	OriginalSize       int32  `xml:"originalSize"`
	OriginalIops       *int32 `xml:"originalIops,omitempty"`
	OriginalVolumeType string `xml:"originalVolumeType"`
	OriginalThroughput *int32 `xml:"originalThroughput,omitempty"`
	Progress           int64  `xml:"progress"`
	StartTime          string `xml:"startTime"`
	EndTime            string `xml:"endTime,omitempty"`
}

type modifyVolumeXML struct {
	meta
	Modification modificationXML `xml:"volumeModification"`
}

type describeModificationsXML struct {
	meta
	Modifications []modificationXML `xml:"volumeModificationSet>item"`
	NextToken     string            `xml:"nextToken,omitempty"`
}

func newModificationXML(volumeID string, m *Modification, now time.Time) modificationXML {
	return modificationXML{
		VolumeID: volumeID, State: m.State, StatusMessage: m.StatusMessage,
		TargetSize: m.To.SizeGiB, TargetIops: optInt(m.To.IOPS), TargetVolumeType: m.To.Type, TargetThroughput: optInt(m.To.ThroughputMiB),
		OriginalSize: m.From.SizeGiB, OriginalIops: optInt(m.From.IOPS), OriginalVolumeType: m.From.Type, OriginalThroughput: optInt(m.From.ThroughputMiB),
		Progress: m.progress(now), StartTime: timeXML(m.Start), EndTime: optTime(m.End),
	}
}

// progress in percent: 0 while modifying, then by the time optimizing took so far.
func (m *Modification) progress(now time.Time) int64 {
	switch m.State {
	case StateCompleted:
		return 100
	case StateOptimizing:
		total := m.Due.Sub(m.Since)
		if total <= 0 {
			return 99
		}
		return min(max(int64(100*now.Sub(m.Since)/total), 0), 99)
	}
	return 0
}

func (s *Server) modifyVolume(r *request) (response, error) {
	id := r.str("VolumeId")
	if err := checkVolumeID(id); err != nil {
		return nil, err
	}
	size, err := r.int32("Size")
	if err != nil {
		return nil, err
	}
	iops, err := r.int32("Iops")
	if err != nil {
		return nil, err
	}
	throughput, err := r.int32("Throughput")
	if err != nil {
		return nil, err
	}
	typ := r.str("VolumeType")
	if size == nil && iops == nil && throughput == nil && typ == "" {
		return nil, apiErr("InvalidParameterCombination", "At least one of size, volumeType, iops or throughput must be specified.")
	}
	var out modifyVolumeXML
	return &out, s.update(func() error {
		v, err := s.volume(id)
		if err != nil {
			return err
		}
		if v.State != StateAvailable && v.State != StateInUse {
			return apiErr("IncorrectState", "Volume '%s' is in the '%s' state.", id, v.State)
		}
		if err := s.canModify(v); err != nil {
			return err
		}
		to, err := resolveModify(v.Shape, typ, size, iops, throughput)
		if err != nil {
			return err
		}
		now := s.clk.Now()
		m := Modification{
			State: StateModifying, From: v.Shape, To: to, Start: now, Since: now,
			Due: now.Add(s.lag.Modify.draw(s.rng)),
		}
		if r.failAsync != "" {
			m.Failure = r.failMessage
		}
		v.Modifications = append(v.Modifications, m)
		out.Modification = newModificationXML(id, v.modification(), now)
		s.touchVolume(v)
		s.settleVolume(id)
		return nil
	})
}

// canModify applies the rule of four modifications in 24 hours, each after the
// one before has completed. A modification that changes nothing counts too.
func (s *Server) canModify(v *Volume) error {
	if m := v.modification(); m.running() {
		return apiErr("IncorrectModificationState", "Volume %s cannot be modified in modification state %s", v.ID, strings.ToUpper(m.State))
	}
	since := s.clk.Now().Add(-s.opt.Limits.ModificationWindow)
	n := 0
	for _, m := range v.Modifications {
		if m.Start.After(since) && m.State != StateFailed {
			n++
		}
	}
	if n >= s.opt.Limits.Modifications {
		return apiErr("VolumeModificationRateExceeded",
			"You've reached the maximum modification rate per volume limit. Wait until fewer than %d modifications were started within the last %s.",
			s.opt.Limits.Modifications, s.opt.Limits.ModificationWindow)
	}
	return nil
}

func (s *Server) describeVolumesModifications(r *request) (response, error) {
	pg, err := r.page(pageLimits{min: 1, max: 500})
	if err != nil {
		return nil, err
	}
	vols, err := s.visibleVolumes(r, pg)
	if err != nil {
		return nil, err
	}
	var all []modificationXML
	now := s.clk.Now()
	for _, v := range vols {
		m := v.modification()
		if m == nil {
			if len(r.list("VolumeId")) > 0 {
				return nil, apiErr("InvalidVolumeModification.NotFound", "Modification for volume '%s' does not exist.", v.ID)
			}
			continue
		}
		all = append(all, newModificationXML(v.ID, m, now))
	}
	all, err = filtered(r, all, modificationFilter)
	if err != nil {
		return nil, err
	}
	out := &describeModificationsXML{}
	out.Modifications, out.NextToken = paged(pg, all, func(m modificationXML) string { return m.VolumeID })
	return out, nil
}

func modificationFilter(m modificationXML, name string) ([]string, bool) {
	opt := func(n *int32) ([]string, bool) {
		if n == nil {
			return nil, true
		}
		return oneInt(*n)
	}
	switch name {
	case "volume-id":
		return one(m.VolumeID)
	case "modification-state":
		return one(m.State)
	case "multi-attach-enabled", "original-multi-attach-enabled", "target-multi-attach-enabled":
		return oneBool(false)
	case "original-iops":
		return opt(m.OriginalIops)
	case "original-size":
		return oneInt(m.OriginalSize)
	case "original-throughput":
		return opt(m.OriginalThroughput)
	case "original-volume-type":
		return one(m.OriginalVolumeType)
	case "start-time":
		return one(m.StartTime)
	case "target-iops":
		return opt(m.TargetIops)
	case "target-size":
		return oneInt(m.TargetSize)
	case "target-throughput":
		return opt(m.TargetThroughput)
	case "target-volume-type":
		return one(m.TargetVolumeType)
	}
	return nil, false
}
