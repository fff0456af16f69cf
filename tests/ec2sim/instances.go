package ec2sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// instanceType is what the simulator knows of an instance type.
type instanceType struct {
	vCPUs, memoryMiB int
	limit            AttachmentLimit
}

// instanceTypes holds a few common types of each kind of attachment limit:
// shared with network interfaces (28 on most Nitro types up to generation 6)
// and dedicated to volumes (from generation 7 on).
var instanceTypes = map[string]instanceType{
	"t3.medium":    {2, 4 << 10, AttachmentLimit{"shared", 28}},
	"t3.large":     {2, 8 << 10, AttachmentLimit{"shared", 28}},
	"m5.large":     {2, 8 << 10, AttachmentLimit{"shared", 28}},
	"m5.xlarge":    {4, 16 << 10, AttachmentLimit{"shared", 28}},
	"m6i.large":    {2, 8 << 10, AttachmentLimit{"shared", 28}},
	"m6i.4xlarge":  {16, 64 << 10, AttachmentLimit{"shared", 28}},
	"r6i.xlarge":   {4, 32 << 10, AttachmentLimit{"shared", 28}},
	"m7i.large":    {2, 8 << 10, AttachmentLimit{"dedicated", 32}},
	"m7i.24xlarge": {96, 384 << 10, AttachmentLimit{"dedicated", 64}},
	"m7i.48xlarge": {192, 768 << 10, AttachmentLimit{"dedicated", 128}},
	"r7i.large":    {2, 16 << 10, AttachmentLimit{"dedicated", 32}},
}

// typeOf returns the instance type with the configured limits; false when
// neither the table nor Options.Limits knows it.
func (s *Server) typeOf(name string) (instanceType, bool) {
	t, known := instanceTypes[name]
	if l, ok := s.opt.Limits.Attachments[name]; ok {
		t.limit, known = l, true
		def(&t.vCPUs, 2)
		def(&t.memoryMiB, 8<<10)
	}
	return t, known
}

// slots is how many volumes beside the root volume fit on the instance.
func (s *Server) slots(i *Instance) int {
	t, ok := s.typeOf(i.Type)
	if !ok {
		t.limit = AttachmentLimit{"shared", 28}
	}
	if t.limit.Type == "dedicated" {
		return t.limit.Max - 1
	}
	return t.limit.Max - 1 - i.NetworkInterfaces
}

// AddInstance makes an instance exist; one that is known already is left as it
// is, so it is safe to repeat after a restart.
func (s *Server) AddInstance(i Instance) error {
	if err := checkInstanceID(i.ID); err != nil {
		return fmt.Errorf("ec2sim: instance id %q: %w", i.ID, err)
	}
	def(&i.Type, "m5.large")
	def(&i.Zone, s.opt.Zones[0])
	def(&i.State, StateRunning)
	def(&i.NetworkInterfaces, 1)
	if !slices.Contains(s.opt.Zones, i.Zone) {
		return fmt.Errorf("ec2sim: instance %s: no zone %q", i.ID, i.Zone)
	}
	return s.update(func() error {
		if _, ok := s.st.Instances[i.ID]; ok {
			return nil
		}
		if i.Launched.IsZero() {
			i.Launched = s.clk.Now()
		}
		if err := s.openIMDS(&i); err != nil {
			return err
		}
		s.st.Instances[i.ID] = i.clone()
		s.touchInstance(&i)
		return nil
	})
}

// alwaysThere shows an instance to describe calls however stale they are.
func (s *Server) alwaysThere(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.instances.seed(id, s.st.Instances[id].clone())
}

// SetInstanceState makes an instance running or stopped. Attachments stay.
func (s *Server) SetInstanceState(id, state string) error {
	return s.update(func() error {
		i, ok := s.st.Instances[id]
		if !ok {
			return errInstanceNotFound(id)
		}
		i.State = state
		s.touchInstance(i)
		return nil
	})
}

// Terminate ends an instance as TerminateInstances does: its volumes are
// detached by force, and those to be deleted on termination are deleted.
func (s *Server) Terminate(id string) error {
	return s.update(func() error { return s.terminate(id) })
}

func (s *Server) terminate(id string) error {
	i, ok := s.st.Instances[id]
	if !ok {
		return errInstanceNotFound(id)
	}
	i.State = StateTerminated
	s.touchInstance(i)
	s.detachAll(id, true)
	return nil
}

// DetachAll detaches every volume of an instance by force, for a node that is dead.
func (s *Server) DetachAll(id string) error {
	return s.update(func() error {
		if _, ok := s.st.Instances[id]; !ok {
			return errInstanceNotFound(id)
		}
		s.detachAll(id, false)
		return nil
	})
}

func (s *Server) detachAll(id string, terminated bool) {
	for _, volID := range sortedKeys(s.st.Volumes) {
		v := s.st.Volumes[volID]
		if v.Attachment == nil || v.Attachment.InstanceID != id {
			continue
		}
		v.Attachment.DeleteAfterDetach = terminated && v.Attachment.DeleteOnTermination
		s.beginDetach(v, true)
		s.touchVolume(v)
		s.settleVolume(volID)
	}
}

// SetDeleteOnTermination changes the flag of a volume's attachment.
func (s *Server) SetDeleteOnTermination(volumeID string, on bool) error {
	return s.update(func() error {
		v, ok := s.st.Volumes[volumeID]
		switch {
		case !ok:
			return errVolumeNotFound(volumeID)
		case v.Attachment == nil:
			return apiErr("IncorrectState", "Volume '%s' is in the '%s' state.", volumeID, v.State)
		}
		v.Attachment.DeleteOnTermination = on
		s.touchVolume(v)
		return nil
	})
}

type instanceStateXML struct {
	Code int32  `xml:"code"`
	Name string `xml:"name"`
}

var stateCodes = map[string]int32{
	StatePending: 0, StateRunning: 16, "shutting-down": 32, StateTerminated: 48, "stopping": 64, StateStopped: 80,
}

type blockDeviceXML struct {
	DeviceName string `xml:"deviceName"`
	Ebs        struct {
		VolumeID            string `xml:"volumeId"`
		Status              string `xml:"status"`
		AttachTime          string `xml:"attachTime"`
		DeleteOnTermination bool   `xml:"deleteOnTermination"`
	} `xml:"ebs"`
}

type instanceXML struct {
	InstanceID     string           `xml:"instanceId"`
	ImageID        string           `xml:"imageId"`
	State          instanceStateXML `xml:"instanceState"`
	PrivateDNSName string           `xml:"privateDnsName"`
	InstanceType   string           `xml:"instanceType"`
	LaunchTime     string           `xml:"launchTime"`
	Zone           string           `xml:"placement>availabilityZone"`
	Tenancy        string           `xml:"placement>tenancy"`
	Architecture   string           `xml:"architecture"`
	RootDeviceType string           `xml:"rootDeviceType"`
	RootDeviceName string           `xml:"rootDeviceName"`
	Devices        []blockDeviceXML `xml:"blockDeviceMapping>item"`
	Hypervisor     string           `xml:"hypervisor"`
	Tags           []tagXML         `xml:"tagSet>item"`
	EbsOptimized   bool             `xml:"ebsOptimized"`
	tags           map[string]string
}

type reservationXML struct {
	ReservationID string        `xml:"reservationId"`
	OwnerID       string        `xml:"ownerId"`
	Instances     []instanceXML `xml:"instancesSet>item"`
}

type describeInstancesXML struct {
	meta
	Reservations []reservationXML `xml:"reservationSet>item"`
	NextToken    string           `xml:"nextToken,omitempty"`
}

func (s *Server) describeInstances(r *request) (response, error) {
	pg, err := r.page(pageLimits{min: 5, max: 1000})
	if err != nil {
		return nil, err
	}
	ids := r.list("InstanceId")
	if err := pg.noIDs("instancesSet", ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := checkInstanceID(id); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	at := s.visible()
	insts, vols := s.history.instances.asOf(at, ids...), s.history.volumes.asOf(at)
	s.mu.Unlock()
	attached := map[string][]*Volume{}
	for _, v := range vols {
		if v.Attachment != nil {
			attached[v.Attachment.InstanceID] = append(attached[v.Attachment.InstanceID], v)
		}
	}
	var all []instanceXML
	for _, i := range insts {
		all = append(all, s.instanceXML(i, attached[i.ID]))
	}
	if len(ids) > 0 {
		all, err = pick(all, ids, func(i instanceXML) string { return i.InstanceID }, errInstanceNotFound)
		if err != nil {
			return nil, err
		}
	}
	all, err = filtered(r, all, instanceFilter)
	if err != nil {
		return nil, err
	}
	all, next := paged(pg, all, func(i instanceXML) string { return i.InstanceID })
	out := &describeInstancesXML{NextToken: next}
	for _, i := range all {
		out.Reservations = append(out.Reservations, reservationXML{
			ReservationID: "r-" + strings.TrimPrefix(i.InstanceID, "i-"), OwnerID: s.opt.AccountID, Instances: []instanceXML{i},
		})
	}
	return out, nil
}

// instanceXML is an instance with the volumes attached to it.
func (s *Server) instanceXML(i *Instance, attached []*Volume) instanceXML {
	out := instanceXML{
		InstanceID: i.ID, ImageID: imageID, State: instanceStateXML{stateCodes[i.State], i.State},
		PrivateDNSName: privateDNSName(i.ID), InstanceType: i.Type, LaunchTime: timeXML(i.Launched),
		Zone: i.Zone, Tenancy: "default", Architecture: "x86_64", RootDeviceType: "ebs", RootDeviceName: "/dev/xvda",
		Hypervisor: "xen", Tags: tagsXML(i.Tags), EbsOptimized: true, tags: i.Tags,
	}
	for _, v := range attached {
		a := v.Attachment
		d := blockDeviceXML{DeviceName: a.Device}
		d.Ebs.VolumeID, d.Ebs.Status = v.ID, a.State
		d.Ebs.AttachTime, d.Ebs.DeleteOnTermination = timeXML(a.Time), a.DeleteOnTermination
		out.Devices = append(out.Devices, d)
	}
	return out
}

func instanceFilter(i instanceXML, name string) ([]string, bool) {
	if vals, ok := tagFilter(i.tags, name); ok {
		return vals, true
	}
	if rest, ok := strings.CutPrefix(name, "block-device-mapping."); ok {
		var vals []string
		for _, d := range i.Devices {
			switch rest {
			case "volume-id":
				vals = append(vals, d.Ebs.VolumeID)
			case "status":
				vals = append(vals, d.Ebs.Status)
			case "device-name":
				vals = append(vals, d.DeviceName)
			case "delete-on-termination":
				vals = append(vals, strconv.FormatBool(d.Ebs.DeleteOnTermination))
			}
		}
		return vals, slices.Contains([]string{"volume-id", "status", "device-name", "delete-on-termination"}, rest)
	}
	switch name {
	case "instance-id":
		return one(i.InstanceID)
	case "instance-type":
		return one(i.InstanceType)
	case "availability-zone":
		return one(i.Zone)
	case "instance-state-name":
		return one(i.State.Name)
	case "instance-state-code":
		return oneInt(i.State.Code)
	case "private-dns-name":
		return one(i.PrivateDNSName)
	}
	return nil, false
}

type stateChangeXML struct {
	InstanceID string           `xml:"instanceId"`
	Current    instanceStateXML `xml:"currentState"`
	Previous   instanceStateXML `xml:"previousState"`
}

type terminateInstancesXML struct {
	meta
	Instances []stateChangeXML `xml:"instancesSet>item"`
}

func (s *Server) terminateInstances(r *request) (response, error) {
	ids := r.list("InstanceId")
	if len(ids) == 0 {
		return nil, errMissing("InstanceId")
	}
	var out terminateInstancesXML
	return &out, s.update(func() error {
		for _, id := range ids {
			if _, ok := s.st.Instances[id]; !ok {
				return errInstanceNotFound(id)
			}
		}
		for _, id := range ids {
			was := s.st.Instances[id].State
			if err := s.terminate(id); err != nil {
				return err
			}
			out.Instances = append(out.Instances, stateChangeXML{
				InstanceID: id,
				Current:    instanceStateXML{stateCodes[StateTerminated], StateTerminated},
				Previous:   instanceStateXML{stateCodes[was], was},
			})
		}
		return nil
	})
}

// modifyInstanceAttribute knows the one attribute that concerns volumes:
// whether they are deleted with the instance.
func (s *Server) modifyInstanceAttribute(r *request) (response, error) {
	id := r.str("InstanceId")
	return &okXML{Return: true}, s.update(func() error {
		if _, ok := s.st.Instances[id]; !ok {
			return errInstanceNotFound(id)
		}
		for _, n := range r.indices("BlockDeviceMapping") {
			p := "BlockDeviceMapping." + strconv.Itoa(n)
			on, err := r.bool(p + ".Ebs.DeleteOnTermination")
			if err != nil {
				return err
			}
			if err := s.setDeleteOnTermination(id, r.str(p+".DeviceName"), on); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Server) setDeleteOnTermination(instanceID, device string, on bool) error {
	for _, volID := range sortedKeys(s.st.Volumes) {
		v := s.st.Volumes[volID]
		if a := v.Attachment; a != nil && a.InstanceID == instanceID && a.Device == device {
			a.DeleteOnTermination = on
			s.touchVolume(v)
			return nil
		}
	}
	return apiErr("InvalidInstanceAttributeValue", "No device is currently mapped at %s", device)
}
