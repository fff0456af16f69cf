package ec2sim

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

type volumeXML struct {
	VolumeID         string          `xml:"volumeId"`
	Size             int32           `xml:"size"`
	SnapshotID       string          `xml:"snapshotId"`
	AvailabilityZone string          `xml:"availabilityZone"`
	ZoneID           string          `xml:"availabilityZoneId,omitempty"`
	Status           string          `xml:"status"`
	CreateTime       string          `xml:"createTime"`
	Attachments      []attachmentXML `xml:"attachmentSet>item"`
	Tags             []tagXML        `xml:"tagSet>item"`
	VolumeType       string          `xml:"volumeType"`
	Iops             *int32          `xml:"iops,omitempty"`
	Throughput       *int32          `xml:"throughput,omitempty"`
	Encrypted        bool            `xml:"encrypted"`
	KmsKeyID         string          `xml:"kmsKeyId,omitempty"`
	SSEType          string          `xml:"sseType,omitempty"`
	MultiAttach      bool            `xml:"multiAttachEnabled"`
}

type createVolumeXML struct {
	meta
	volumeXML
}

type describeVolumesXML struct {
	meta
	Volumes   []volumeXML `xml:"volumeSet>item"`
	NextToken string      `xml:"nextToken,omitempty"`
}

func (s *Server) volumeXML(v *Volume) volumeXML {
	out := volumeXML{
		VolumeID: v.ID, Size: v.SizeGiB, SnapshotID: v.SnapshotID,
		AvailabilityZone: v.Zone, ZoneID: s.zoneID(v.Zone), Status: v.State, CreateTime: timeXML(v.Created),
		Tags: tagsXML(v.Tags), VolumeType: v.Type, Iops: optInt(v.IOPS), Throughput: optInt(v.ThroughputMiB),
		Encrypted: v.Encrypted, KmsKeyID: v.KMSKeyID,
	}
	if v.Encrypted {
		out.SSEType = "sse-kms"
	}
	if v.Attachment != nil {
		out.Attachments = []attachmentXML{newAttachmentXML(v.ID, v.Attachment)}
	}
	return out
}

func (s *Server) createVolume(r *request) (response, error) {
	v, err := s.newVolume(r)
	if err != nil {
		return nil, err
	}
	var out createVolumeXML
	err = s.update(func() error {
		old, err := s.redeemToken(r)
		if err != nil {
			return err
		}
		if old != nil {
			out.volumeXML = s.volumeXML(old)
			return nil
		}
		if err := s.inheritSnapshot(v, r); err != nil {
			return err
		}
		now := s.clk.Now()
		v.ID, v.State, v.Created = s.st.newID("vol"), StateCreating, now
		v.Due = now.Add(s.lag.Create.draw(s.rng))
		v.AsyncFailure = r.failAsync
		if v.Encrypted && !s.keyExists(v.KMSKeyID) {
			v.AsyncFailure = "vanish"
		}
		if err := growFile(s.VolumePath(v.ID), s.fileBytes(v.SizeGiB)); err != nil {
			return err
		}
		if v.SnapshotID != "" && !s.opt.NoSnapshotData {
			if err := s.fillFromSnapshot(v); err != nil {
				return err
			}
		}
		s.st.Volumes[v.ID] = v
		if t := r.str("ClientToken"); t != "" {
			v.Token = t
			s.forgetTokens(now)
			s.st.Tokens[t] = &token{Fingerprint: r.fingerprint(), VolumeID: v.ID, Time: now}
			s.journal.tokens.mark(t)
		}
		out.volumeXML = s.volumeXML(v)
		s.touchVolume(v)
		s.settleVolume(v.ID)
		return nil
	})
	return &out, err
}

// newVolume is the volume the request describes, as far as that needs no state.
func (s *Server) newVolume(r *request) (*Volume, error) {
	v := &Volume{Zone: r.str("AvailabilityZone"), SnapshotID: r.str("SnapshotId")}
	if id := r.str("AvailabilityZoneId"); v.Zone == "" && id != "" {
		for _, z := range s.opt.Zones {
			if s.zoneID(z) == id {
				v.Zone = z
			}
		}
	}
	if v.Zone == "" {
		return nil, errMissing("AvailabilityZone")
	}
	if !slices.Contains(s.opt.Zones, v.Zone) {
		return nil, apiErr("InvalidZone.NotFound", "The zone '%s' does not exist.", v.Zone)
	}
	if v.SnapshotID == "" && !r.has("Size") {
		return nil, apiErr("MissingParameter", "The request must contain the parameter size/snapshotId")
	}
	if t := r.str("ClientToken"); len(t) > 64 {
		return nil, errValue(t, "clientToken", "The client token must be at most 64 ASCII characters.")
	}
	if multi, err := r.bool("MultiAttachEnabled"); err != nil {
		return nil, err
	} else if multi {
		return nil, apiErr("UnsupportedOperation", "Multi-Attach is not simulated.")
	}
	var err error
	if v.Encrypted, err = r.bool("Encrypted"); err != nil {
		return nil, err
	}
	if r.has("KmsKeyId") {
		if !v.Encrypted {
			return nil, apiErr("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
		}
		v.KMSKeyID = s.keyARN(r.str("KmsKeyId"))
	} else if v.Encrypted {
		v.KMSKeyID = s.keyARN("alias/aws/ebs")
	}
	if v.Tags, err = r.tagSpecification("volume", s.opt.Limits.TagsPerResource); err != nil {
		return nil, err
	}
	size, err := r.int32("Size")
	if err != nil {
		return nil, err
	}
	if size == nil {
		return v, nil // the snapshot's size; resolved by inheritSnapshot
	}
	v.SizeGiB = *size
	return v, s.shape(v, r)
}

// shape resolves the volume's type, IOPS and throughput for its size.
func (s *Server) shape(v *Volume, r *request) error {
	typ := r.str("VolumeType")
	if typ == "" {
		typ = "gp2"
	}
	iops, err := r.int32("Iops")
	if err != nil {
		return err
	}
	throughput, err := r.int32("Throughput")
	if err != nil {
		return err
	}
	v.Shape, err = resolve(typ, v.SizeGiB, iops, throughput)
	return err
}

// inheritSnapshot takes size and encryption from the snapshot v is made of.
func (s *Server) inheritSnapshot(v *Volume, r *request) error {
	if v.SnapshotID == "" {
		return nil
	}
	sn, ok := s.st.Snapshots[v.SnapshotID]
	switch {
	case !ok:
		return errSnapshotNotFound(v.SnapshotID)
	case sn.State != StateCompleted:
		return apiErr("IncorrectState", "Snapshot is in invalid state - %s", sn.State)
	case v.SizeGiB == 0:
		v.SizeGiB = sn.SizeGiB
		if err := s.shape(v, r); err != nil {
			return err
		}
	case v.SizeGiB < sn.SizeGiB:
		return apiErr("InvalidParameterValue", "Volume of %dGiB is smaller than snapshot '%s', expect size >= %dGiB", v.SizeGiB, sn.ID, sn.SizeGiB)
	}
	if sn.Encrypted {
		v.Encrypted = true
		if !r.has("KmsKeyId") {
			v.KMSKeyID = sn.KMSKeyID
		}
	}
	return nil
}

// redeemToken returns the volume an equal, earlier request created, nil when
// there was none, or an error for a token that cannot be used any more.
func (s *Server) redeemToken(r *request) (*Volume, error) {
	name := r.str("ClientToken")
	t, ok := s.st.Tokens[name]
	if name == "" || !ok || s.clk.Now().Sub(t.Time) > s.opt.Limits.TokenLife {
		return nil, nil
	}
	if t.Fingerprint != r.fingerprint() {
		return nil, apiErr("IdempotentParameterMismatch",
			"Parameters on this idempotent request are inconsistent with parameters used in previous request(s)")
	}
	v, ok := s.st.Volumes[t.VolumeID]
	if !ok || v.State == StateDeleting {
		return nil, apiErr("IdempotentParameterMismatch",
			"The client token you have provided is associated with a resource that is already deleted. Please use a different client token.")
	}
	return v, nil
}

func (s *Server) forgetTokens(now time.Time) {
	maps.DeleteFunc(s.st.Tokens, func(_ string, t *token) bool { return now.Sub(t.Time) > s.opt.Limits.TokenLife })
}

func (s *Server) deleteVolume(r *request) (response, error) {
	id := r.str("VolumeId")
	if err := checkVolumeID(id); err != nil {
		return nil, err
	}
	return &okXML{Return: true}, s.update(func() error {
		v, err := s.volume(id)
		if err != nil {
			return err
		}
		switch {
		case v.Attachment != nil:
			return apiErr("VolumeInUse", "Volume %s is currently attached to %s", id, v.Attachment.InstanceID)
		case v.State == StateCreating:
			return apiErr("IncorrectState", "The volume '%s' is in the 'creating' state.", id)
		}
		s.beginDelete(v)
		return nil
	})
}

func (s *Server) beginDelete(v *Volume) {
	v.State = StateDeleting
	v.Due = s.clk.Now().Add(s.lag.Delete.draw(s.rng))
	s.touchVolume(v)
	s.settleVolume(v.ID)
}

// volume finds a volume that can be acted upon.
func (s *Server) volume(id string) (*Volume, error) {
	v, ok := s.st.Volumes[id]
	if !ok || v.State == StateDeleting {
		return nil, errVolumeNotFound(id)
	}
	return v, nil
}

func (s *Server) describeVolumes(r *request) (response, error) {
	pg, err := r.page(pageLimits{min: 5, max: 1000})
	if err != nil {
		return nil, err
	}
	vols, err := s.visibleVolumes(r, pg)
	if err != nil {
		return nil, err
	}
	vols, err = filtered(r, vols, s.volumeFilter)
	if err != nil {
		return nil, err
	}
	vols, next := paged(pg, vols, func(v *Volume) string { return v.ID })
	out := &describeVolumesXML{NextToken: next}
	for _, v := range vols {
		out.Volumes = append(out.Volumes, s.volumeXML(v))
	}
	return out, nil
}

// visibleVolumes are the volumes a describe call sees: those it names by id,
// or all.
func (s *Server) visibleVolumes(r *request, pg page) ([]*Volume, error) {
	ids := r.list("VolumeId")
	if err := pg.noIDs("volumeId", ids); err != nil {
		return nil, err
	}
	if len(ids) > 500 {
		return nil, apiErr("InvalidParameterValue", "At most 500 volume IDs can be specified in one request.")
	}
	for _, id := range ids {
		if err := checkVolumeID(id); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	all := s.history.volumes.asOf(s.visible(), ids...)
	s.mu.Unlock()
	if len(ids) == 0 {
		return all, nil
	}
	return pick(all, ids, func(v *Volume) string { return v.ID }, errVolumeNotFound)
}

// pick selects items by id; one missing id fails the whole call, as in EC2.
func pick[T any](all []T, ids []string, key func(T) string, missing func(string) error) ([]T, error) {
	byID := map[string]T{}
	for _, item := range all {
		byID[key(item)] = item
	}
	var out []T
	seen := map[string]bool{}
	for _, id := range ids {
		item, ok := byID[id]
		if !ok {
			return nil, missing(id)
		}
		if !seen[id] {
			out = append(out, item)
		}
		seen[id] = true
	}
	return out, nil
}

func (s *Server) volumeFilter(v *Volume, name string) ([]string, bool) {
	if v == nil {
		v = &Volume{}
	}
	if vals, ok := tagFilter(v.Tags, name); ok {
		return vals, true
	}
	if rest, ok := strings.CutPrefix(name, "attachment."); ok {
		return attachmentFilter(v.Attachment, rest)
	}
	switch name {
	case "volume-id":
		return one(v.ID)
	case "availability-zone":
		return one(v.Zone)
	case "availability-zone-id":
		return one(s.zoneID(v.Zone))
	case "create-time":
		return oneTime(v.Created)
	case "encrypted":
		return oneBool(v.Encrypted)
	case "fast-restored", "multi-attach-enabled":
		return oneBool(false)
	case "size":
		return oneInt(v.SizeGiB)
	case "snapshot-id":
		return one(v.SnapshotID)
	case "status":
		return one(v.State)
	case "volume-type":
		return one(v.Type)
	}
	return nil, false
}

// keyARN is the ARN EC2 reports for a key id, alias or ARN. What an alias
// points to is made up, always the same.
func (s *Server) keyARN(key string) string {
	if strings.HasPrefix(key, "arn:") && !strings.Contains(key, ":alias/") {
		return key
	}
	prefix := fmt.Sprintf("arn:aws:kms:%s:%s:key/", s.opt.Region, s.opt.AccountID)
	key = strings.TrimPrefix(key, fmt.Sprintf("arn:aws:kms:%s:%s:", s.opt.Region, s.opt.AccountID))
	if !strings.HasPrefix(key, "alias/") {
		return prefix + key
	}
	sum := sha256.Sum256([]byte(key))
	return prefix + fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func (s *Server) keyExists(arn string) bool {
	if len(s.opt.KMSKeys) == 0 || arn == s.keyARN("alias/aws/ebs") {
		return true
	}
	return slices.ContainsFunc(s.opt.KMSKeys, func(k string) bool { return s.keyARN(k) == arn })
}
