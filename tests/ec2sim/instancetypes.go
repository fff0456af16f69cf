package ec2sim

import (
	"maps"
)

type instanceTypeXML struct {
	InstanceType      string `xml:"instanceType"`
	CurrentGeneration bool   `xml:"currentGeneration"`
	Hypervisor        string `xml:"hypervisor"`
	VCPUs             int    `xml:"vCpuInfo>defaultVCpus"`
	MemoryMiB         int    `xml:"memoryInfo>sizeInMiB"`
	EbsOptimized      string `xml:"ebsInfo>ebsOptimizedSupport"`
	Encryption        string `xml:"ebsInfo>encryptionSupport"`
	Nvme              string `xml:"ebsInfo>nvmeSupport"`
	MaxAttachments    int    `xml:"ebsInfo>maximumEbsAttachments"`
	LimitType         string `xml:"ebsInfo>attachmentLimitType"`
	MaxInterfaces     int    `xml:"networkInfo>maximumNetworkInterfaces"`
}

type describeInstanceTypesXML struct {
	meta
	Types     []instanceTypeXML `xml:"instanceTypeSet>item"`
	NextToken string            `xml:"nextToken,omitempty"`
}

func (s *Server) describeInstanceTypes(r *request) (response, error) {
	pg, err := r.page(pageLimits{min: 5, max: 100})
	if err != nil {
		return nil, err
	}
	names := r.list("InstanceType")
	if err := pg.noIDs("instanceType", names); err != nil {
		return nil, err
	}
	known := maps.Clone(instanceTypes)
	for name := range s.opt.Limits.Attachments {
		known[name], _ = s.typeOf(name)
	}
	var all []instanceTypeXML
	for _, name := range sortedKeys(known) {
		t := known[name]
		all = append(all, instanceTypeXML{
			InstanceType: name, CurrentGeneration: true, Hypervisor: "nitro", VCPUs: t.vCPUs, MemoryMiB: t.memoryMiB,
			EbsOptimized: "default", Encryption: "supported", Nvme: "required",
			MaxAttachments: t.limit.Max, LimitType: t.limit.Type, MaxInterfaces: 3,
		})
	}
	if len(names) > 0 {
		all, err = pick(all, names, func(t instanceTypeXML) string { return t.InstanceType }, func(name string) error {
			return apiErr("InvalidInstanceType", "The following supplied instance types do not exist: [%s]", name)
		})
		if err != nil {
			return nil, err
		}
	}
	all, err = filtered(r, all, func(t instanceTypeXML, name string) ([]string, bool) {
		switch name {
		case "instance-type":
			return one(t.InstanceType)
		case "hypervisor":
			return one(t.Hypervisor)
		case "current-generation":
			return oneBool(t.CurrentGeneration)
		case "ebs-info.attachment-limit-type":
			return one(t.LimitType)
		case "ebs-info.nvme-support":
			return one(t.Nvme)
		}
		return nil, false
	})
	if err != nil {
		return nil, err
	}
	out := &describeInstanceTypesXML{}
	out.Types, out.NextToken = paged(pg, all, func(t instanceTypeXML) string { return t.InstanceType })
	return out, nil
}
