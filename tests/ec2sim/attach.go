package ec2sim

import "regexp"

type attachmentXML struct {
	VolumeID            string `xml:"volumeId"`
	InstanceID          string `xml:"instanceId"`
	Device              string `xml:"device"`
	Status              string `xml:"status"`
	AttachTime          string `xml:"attachTime"`
	DeleteOnTermination bool   `xml:"deleteOnTermination"`
}

type attachmentResponseXML struct {
	meta
	attachmentXML
}

func newAttachmentXML(volumeID string, a *Attachment) attachmentXML {
	return attachmentXML{volumeID, a.InstanceID, a.Device, a.State, timeXML(a.Time), a.DeleteOnTermination}
}

var deviceName = regexp.MustCompile(`^(/dev/)?(sd[a-z][1-9]?[0-9]?|xvd[a-c]?[a-z]|xvdd[a-x])$`)

func (s *Server) attachVolume(r *request) (response, error) {
	volID, instID, device := r.str("VolumeId"), r.str("InstanceId"), r.str("Device")
	if err := checkVolumeID(volID); err != nil {
		return nil, err
	}
	if err := checkInstanceID(instID); err != nil {
		return nil, err
	}
	if !deviceName.MatchString(device) {
		return nil, errValue(device, "device", device+" is not a valid EBS device name.")
	}
	var out attachmentResponseXML
	return &out, s.update(func() error {
		v, err := s.volume(volID)
		if err != nil {
			return err
		}
		inst, ok := s.st.Instances[instID]
		if !ok {
			return errInstanceNotFound(instID)
		}
		if err := s.canAttach(v, inst, device); err != nil {
			return err
		}
		now := s.clk.Now()
		v.State = StateInUse
		v.Attachment = &Attachment{
			InstanceID: instID, Device: device, State: StateAttaching, Time: now,
			Due: now.Add(s.lag.Attach.draw(s.rng)), Hung: r.hang,
		}
		if r.hang {
			v.Attachment.Reason = "fault"
		}
		out.attachmentXML = newAttachmentXML(volID, v.Attachment)
		s.touchVolume(v)
		s.settleVolume(volID)
		return nil
	})
}

func (s *Server) canAttach(v *Volume, inst *Instance, device string) error {
	switch {
	case v.Attachment != nil:
		return apiErr("VolumeInUse", "%s is already attached to an instance", v.ID)
	case v.State != StateAvailable:
		return apiErr("IncorrectState", "%s is not 'available'.", v.ID)
	case inst.State != StateRunning && inst.State != StateStopped:
		return apiErr("IncorrectState", "Instance '%s' is not 'running'.", inst.ID)
	case v.Zone != inst.Zone:
		return apiErr("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", v.ID, inst.ID)
	}
	if m := v.modification(); m != nil && m.State == StateModifying {
		return apiErr("OperationNotPermitted", "Cannot attach volume %s when it is in modification state: MODIFYING", v.ID)
	}
	used := 0
	for _, o := range s.st.Volumes {
		if o.Attachment == nil || o.Attachment.InstanceID != inst.ID {
			continue
		}
		used++
		if o.Attachment.Device == device {
			return apiErr("InvalidParameterValue", "Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
		}
	}
	if slots := s.slots(inst); used >= slots {
		return apiErr("AttachmentLimitExceeded", "The maximum number of attached volumes (%d) has been reached for the instance '%s' of type %s.", slots, inst.ID, inst.Type)
	}
	return nil
}

func (s *Server) detachVolume(r *request) (response, error) {
	volID := r.str("VolumeId")
	if err := checkVolumeID(volID); err != nil {
		return nil, err
	}
	force, err := r.bool("Force")
	if err != nil {
		return nil, err
	}
	if r.has("InstanceId") {
		if err := checkInstanceID(r.str("InstanceId")); err != nil {
			return nil, err
		}
	}
	var out attachmentResponseXML
	return &out, s.update(func() error {
		v, err := s.volume(volID)
		if err != nil {
			return err
		}
		a := v.Attachment
		if a == nil {
			return apiErr("IncorrectState", "Volume '%s' is in the '%s' state.", volID, v.State)
		}
		instID, device := r.str("InstanceId"), r.str("Device")
		if instID != "" && instID != a.InstanceID || device != "" && device != a.Device {
			return apiErr("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s' as device '%s'", volID, instID, device)
		}
		if a.State == StateDetaching && !force {
			return apiErr("IncorrectState", "Volume '%s' is in the 'detaching' state.", volID)
		}
		s.beginDetach(v, force)
		if r.hang {
			a.State, a.Reason = StateBusy, "fault"
			a.Due = farFuture
		}
		out.attachmentXML = newAttachmentXML(volID, a)
		s.touchVolume(v)
		s.settleVolume(volID)
		return nil
	})
}

// beginDetach starts (or, when busy or forced, speeds up) a detach; the caller
// touches and settles the volume.
func (s *Server) beginDetach(v *Volume, force bool) {
	a := v.Attachment
	a.State, a.Hung, a.Reason = StateDetaching, false, ""
	a.Force = a.Force || force
	a.Due = s.clk.Now().Add(s.lag.Detach.draw(s.rng))
}

func attachmentFilter(a *Attachment, name string) ([]string, bool) {
	none := a == nil
	if none {
		a = &Attachment{}
	}
	var vals []string
	switch name {
	case "attach-time":
		vals = []string{timeXML(a.Time)}
	case "delete-on-termination":
		vals, _ = oneBool(a.DeleteOnTermination)
	case "device":
		vals = []string{a.Device}
	case "instance-id":
		vals = []string{a.InstanceID}
	case "status":
		vals = []string{a.State}
	default:
		return nil, false
	}
	if none {
		vals = nil
	}
	return vals, true
}
