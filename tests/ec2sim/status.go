package ec2sim

import "strings"

type statusDetailXML struct {
	Name   string `xml:"name"`
	Status string `xml:"status"`
}

type volumeStatusXML struct {
	VolumeID string            `xml:"volumeId"`
	Zone     string            `xml:"availabilityZone"`
	ZoneID   string            `xml:"availabilityZoneId,omitempty"`
	Status   string            `xml:"volumeStatus>status"`
	Details  []statusDetailXML `xml:"volumeStatus>details>item"`
}

type describeVolumeStatusXML struct {
	meta
	Statuses  []volumeStatusXML `xml:"volumeStatusSet>item"`
	NextToken string            `xml:"nextToken,omitempty"`
}

// SetVolumeHealth makes DescribeVolumeStatus answer "impaired", "warning" or
// "insufficient-data" for a volume; "ok" or "" heals it.
func (s *Server) SetVolumeHealth(volumeID, health string) error {
	return s.update(func() error {
		v, ok := s.st.Volumes[volumeID]
		if !ok {
			return errVolumeNotFound(volumeID)
		}
		v.Health = health
		s.touchVolume(v)
		return nil
	})
}

func (s *Server) volumeStatusXML(v *Volume) volumeStatusXML {
	x := volumeStatusXML{VolumeID: v.ID, Zone: v.Zone, ZoneID: s.zoneID(v.Zone), Status: "ok"}
	enabled := "passed"
	switch {
	case v.Health != "":
		x.Status = v.Health
	case v.State == StateCreating:
		x.Status = "insufficient-data"
	}
	switch x.Status {
	case "impaired":
		enabled = "failed"
	case "insufficient-data":
		enabled = "insufficient-data"
	}
	x.Details = []statusDetailXML{{"io-enabled", enabled}, {"io-performance", "not-applicable"}}
	return x
}

func (s *Server) describeVolumeStatus(r *request) (response, error) {
	pg, err := r.page(pageLimits{min: 5, max: 1000})
	if err != nil {
		return nil, err
	}
	vols, err := s.visibleVolumes(r, pg)
	if err != nil {
		return nil, err
	}
	var all []volumeStatusXML
	for _, v := range vols {
		all = append(all, s.volumeStatusXML(v))
	}
	all, err = filtered(r, all, func(x volumeStatusXML, name string) ([]string, bool) {
		if detail, ok := strings.CutPrefix(name, "volume-status.details-"); ok {
			var vals []string
			for _, d := range x.Details {
				vals = append(vals, map[string]string{"name": d.Name, "status": d.Status}[detail])
			}
			return vals, detail == "name" || detail == "status"
		}
		switch name {
		case "availability-zone":
			return one(x.Zone)
		case "volume-status.status":
			return one(x.Status)
		}
		return nil, false
	})
	if err != nil {
		return nil, err
	}
	out := &describeVolumeStatusXML{}
	out.Statuses, out.NextToken = paged(pg, all, func(x volumeStatusXML) string { return x.VolumeID })
	return out, nil
}
