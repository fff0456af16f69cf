package ec2sim

import (
	"slices"
	"strconv"
	"strings"
)

type zoneXML struct {
	ZoneName    string `xml:"zoneName"`
	ZoneID      string `xml:"zoneId"`
	ZoneState   string `xml:"zoneState"`
	RegionName  string `xml:"regionName"`
	ZoneType    string `xml:"zoneType"`
	OptInStatus string `xml:"optInStatus"`
	GroupName   string `xml:"groupName"`
}

type describeZonesXML struct {
	meta
	Zones []zoneXML `xml:"availabilityZoneInfo>item"`
}

// zoneID is an id in AWS's style, use1-az2 for us-east-1b; which number a name
// gets differs between real accounts.
func (s *Server) zoneID(zone string) string {
	n := slices.Index(s.opt.Zones, zone)
	if n < 0 {
		return ""
	}
	parts := strings.Split(s.opt.Region, "-")
	short := parts[0]
	for _, p := range parts[1:] {
		short += p[:1]
	}
	return short + "-az" + strconv.Itoa(n+1)
}

func (s *Server) describeAvailabilityZones(r *request) (response, error) {
	var all []zoneXML
	for _, z := range s.opt.Zones {
		all = append(all, zoneXML{z, s.zoneID(z), "available", s.opt.Region, "availability-zone", "opt-in-not-required", s.opt.Region})
	}
	var err error
	bad := func(z string) error { return errValue(z, "availabilityZone", "Invalid availability zone.") }
	if names := r.list("ZoneName"); len(names) > 0 {
		if all, err = pick(all, names, func(z zoneXML) string { return z.ZoneName }, bad); err != nil {
			return nil, err
		}
	}
	if ids := r.list("ZoneId"); len(ids) > 0 {
		if all, err = pick(all, ids, func(z zoneXML) string { return z.ZoneID }, bad); err != nil {
			return nil, err
		}
	}
	all, err = filtered(r, all, func(z zoneXML, name string) ([]string, bool) {
		switch name {
		case "zone-name":
			return one(z.ZoneName)
		case "zone-id":
			return one(z.ZoneID)
		case "zone-type":
			return one(z.ZoneType)
		case "state":
			return one(z.ZoneState)
		case "region-name":
			return one(z.RegionName)
		case "group-name":
			return one(z.GroupName)
		case "opt-in-status":
			return one(z.OptInStatus)
		}
		return nil, false
	})
	return &describeZonesXML{Zones: all}, err
}
