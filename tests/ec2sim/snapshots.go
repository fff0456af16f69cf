package ec2sim

import (
	"fmt"
	"slices"
	"time"
)

type snapshotXML struct {
	SnapshotID       string   `xml:"snapshotId"`
	VolumeID         string   `xml:"volumeId"`
	Status           string   `xml:"status"`
	StatusMessage    string   `xml:"statusMessage,omitempty"`
	StartTime        string   `xml:"startTime"`
	CompletionTime   string   `xml:"completionTime,omitempty"`
	Progress         string   `xml:"progress"`
	OwnerID          string   `xml:"ownerId"`
	VolumeSize       int32    `xml:"volumeSize"`
	Description      string   `xml:"description"`
	Encrypted        bool     `xml:"encrypted"`
	KmsKeyID         string   `xml:"kmsKeyId,omitempty"`
	SSEType          string   `xml:"sseType,omitempty"`
	StorageTier      string   `xml:"storageTier"`
	FullSnapshotSize int64    `xml:"fullSnapshotSizeInBytes,omitempty"`
	Tags             []tagXML `xml:"tagSet>item"`
	tags             map[string]string
}

// snapshotInfoXML is how CreateSnapshots answers: "state", not "status".
type snapshotInfoXML struct {
	SnapshotID  string   `xml:"snapshotId"`
	VolumeID    string   `xml:"volumeId"`
	State       string   `xml:"state"`
	StartTime   string   `xml:"startTime"`
	Progress    string   `xml:"progress"`
	OwnerID     string   `xml:"ownerId"`
	VolumeSize  int32    `xml:"volumeSize"`
	Description string   `xml:"description"`
	Encrypted   bool     `xml:"encrypted"`
	SSEType     string   `xml:"sseType,omitempty"`
	Tags        []tagXML `xml:"tagSet>item"`
}

type createSnapshotXML struct {
	meta
	snapshotXML
}

type createSnapshotsXML struct {
	meta
	Snapshots []snapshotInfoXML `xml:"snapshotSet>item"`
}

type describeSnapshotsXML struct {
	meta
	Snapshots []snapshotXML `xml:"snapshotSet>item"`
	NextToken string        `xml:"nextToken,omitempty"`
}

func (s *Server) snapshotXML(sn *Snapshot, now time.Time) snapshotXML {
	out := snapshotXML{
		SnapshotID: sn.ID, VolumeID: sn.VolumeID, Status: sn.State, StartTime: timeXML(sn.Start),
		CompletionTime: optTime(sn.Completed), Progress: fmt.Sprintf("%d%%", sn.progress(now)), OwnerID: s.opt.AccountID,
		VolumeSize: sn.SizeGiB, Description: sn.Description, Encrypted: sn.Encrypted, KmsKeyID: sn.KMSKeyID,
		StorageTier: "standard", FullSnapshotSize: sn.DataBytes, Tags: tagsXML(sn.Tags), tags: sn.Tags,
	}
	if sn.Encrypted {
		out.SSEType = "sse-kms"
	}
	if sn.State == StateError {
		out.StatusMessage = "The snapshot could not be completed."
	}
	return out
}

func (sn *Snapshot) progress(now time.Time) int64 {
	switch total := sn.Due.Sub(sn.Start); {
	case sn.State == StateCompleted:
		return 100
	case sn.State == StateError || total <= 0:
		return 0
	default:
		return min(max(int64(100*now.Sub(sn.Start)/total), 0), 99)
	}
}

func (s *Server) createSnapshot(r *request) (response, error) {
	id := r.str("VolumeId")
	if err := checkVolumeID(id); err != nil {
		return nil, err
	}
	tags, err := r.tagSpecification("snapshot", s.opt.Limits.TagsPerResource)
	if err != nil {
		return nil, err
	}
	var out createSnapshotXML
	var snaps []*Snapshot
	var inst string
	err = s.update(func() error {
		v, err := s.volume(id)
		if err != nil {
			return err
		}
		if err := s.canSnapshot(v); err != nil {
			return err
		}
		if v.Attachment != nil {
			inst = v.Attachment.InstanceID
		}
		sn := s.beginSnapshot(v, r, tags)
		out.snapshotXML = s.snapshotXML(sn, sn.Start)
		snaps = append(snaps, sn.clone())
		return nil
	})
	s.takeContents(snaps, inst)
	return &out, err
}

func (s *Server) canSnapshot(v *Volume) error {
	if v.State != StateAvailable && v.State != StateInUse {
		return apiErr("IncorrectState", "Volume '%s' is in the '%s' state.", v.ID, v.State)
	}
	pending := 0
	for _, sn := range s.st.Snapshots {
		if sn.VolumeID == v.ID && sn.State == StatePending {
			pending++
		}
	}
	if pending >= s.opt.Limits.PendingSnapshots {
		return apiErr("ConcurrentSnapshotLimitExceeded", "Maximum allowed in-progress snapshots for volume %s exceeded.", v.ID)
	}
	return nil
}

// beginSnapshot makes the snapshot's record; its contents are still to be taken.
func (s *Server) beginSnapshot(v *Volume, r *request, tags map[string]string) *Snapshot {
	now := s.clk.Now()
	sn := &Snapshot{
		ID: s.st.newID("snap"), VolumeID: v.ID, SizeGiB: v.SizeGiB, State: StatePending, Description: r.str("Description"),
		Start: now, Due: now.Add(s.lag.Snapshot.draw(s.rng)), Encrypted: v.Encrypted, KMSKeyID: v.KMSKeyID,
		Tags: tags, Fails: r.failAsync != "", Copying: true,
	}
	s.st.Snapshots[sn.ID] = sn
	s.touchSnapshot(sn)
	return sn
}

func (s *Server) createSnapshots(r *request) (response, error) {
	inst := r.str("InstanceSpecification.InstanceId")
	if inst == "" {
		return nil, errMissing("instanceSpecification.instanceId")
	}
	if err := checkInstanceID(inst); err != nil {
		return nil, err
	}
	own, err := r.tagSpecification("snapshot", s.opt.Limits.TagsPerResource)
	if err != nil {
		return nil, err
	}
	copyTags := r.str("CopyTagsFromSource")
	if copyTags != "" && copyTags != "volume" {
		return nil, errValue(copyTags, "copyTagsFromSource", "Expected: 'volume'.")
	}
	excluded := r.list("InstanceSpecification.ExcludeDataVolumeId")
	if len(excluded) > 40 { // its reference says so, and not with which error
		return nil, apiErr("InvalidParameterValue", "You can specify up to 40 volume IDs to exclude per request.")
	}
	var out createSnapshotsXML
	var snaps []*Snapshot
	err = s.update(func() error {
		if _, ok := s.st.Instances[inst]; !ok {
			return errInstanceNotFound(inst)
		}
		vols, err := s.snapshotSources(inst, excluded)
		if err != nil {
			return err
		}
		for _, v := range vols {
			tags := map[string]string{}
			if copyTags != "" {
				for k, val := range v.Tags {
					tags[k] = val
				}
			}
			for k, val := range own {
				tags[k] = val
			}
			sn := s.beginSnapshot(v, r, tags)
			snaps = append(snaps, sn.clone())
			x := s.snapshotXML(sn, sn.Start)
			out.Snapshots = append(out.Snapshots, snapshotInfoXML{
				SnapshotID: x.SnapshotID, VolumeID: x.VolumeID, State: x.Status, StartTime: x.StartTime, Progress: x.Progress,
				OwnerID: x.OwnerID, VolumeSize: x.VolumeSize, Description: x.Description, Encrypted: x.Encrypted,
				SSEType: x.SSEType, Tags: x.Tags,
			})
		}
		return nil
	})
	s.takeContents(snaps, inst)
	return &out, err
}

// snapshotSources are the volumes CreateSnapshots takes of an instance.
func (s *Server) snapshotSources(inst string, excluded []string) ([]*Volume, error) {
	var vols []*Volume
	found := 0
	for _, id := range sortedKeys(s.st.Volumes) {
		v := s.st.Volumes[id]
		if v.Attachment == nil || v.Attachment.InstanceID != inst {
			continue
		}
		if slices.Contains(excluded, id) {
			found++
			continue
		}
		if err := s.canSnapshot(v); err != nil {
			return nil, err
		}
		vols = append(vols, v)
	}
	switch {
	case found < len(excluded):
		return nil, apiErr("InvalidParameterValue", "A volume in ExcludeDataVolumeIds is not attached to instance %s as a data volume", inst)
	case len(vols) == 0:
		return nil, apiErr("InvalidParameterValue", "Instance %s has no volumes to snapshot", inst)
	}
	return vols, nil
}

func (s *Server) deleteSnapshot(r *request) (response, error) {
	id := r.str("SnapshotId")
	if err := checkSnapshotID(id); err != nil {
		return nil, err
	}
	return &okXML{Return: true}, s.update(func() error {
		if _, ok := s.st.Snapshots[id]; !ok {
			return errSnapshotNotFound(id)
		}
		s.forgetSnapshot(id)
		s.disarm(id)
		s.removeFile(s.SnapshotPath(id))
		return nil
	})
}

func (s *Server) describeSnapshots(r *request) (response, error) {
	pg, err := r.page(pageLimits{min: 5, max: 1000})
	if err != nil {
		return nil, err
	}
	ids := r.list("SnapshotId")
	if err := pg.noIDs("snapshotId", ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		if err := checkSnapshotID(id); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	snaps := s.history.snapshots.asOf(s.visible(), ids...)
	s.mu.Unlock()
	if owners := r.list("Owner"); len(owners) > 0 && !slices.Contains(owners, "self") && !slices.Contains(owners, s.opt.AccountID) {
		snaps = nil // all snapshots here are the account's own
	}
	if len(ids) > 0 {
		snaps, err = pick(snaps, ids, func(sn *Snapshot) string { return sn.ID }, errSnapshotNotFound)
		if err != nil {
			return nil, err
		}
	}
	now := s.clk.Now()
	var all []snapshotXML
	for _, sn := range snaps {
		all = append(all, s.snapshotXML(sn, now))
	}
	all, err = filtered(r, all, snapshotFilter)
	if err != nil {
		return nil, err
	}
	out := &describeSnapshotsXML{}
	out.Snapshots, out.NextToken = paged(pg, all, func(sn snapshotXML) string { return sn.SnapshotID })
	return out, nil
}

func snapshotFilter(sn snapshotXML, name string) ([]string, bool) {
	if vals, ok := tagFilter(sn.tags, name); ok {
		return vals, true
	}
	switch name {
	case "snapshot-id":
		return one(sn.SnapshotID)
	case "volume-id":
		return one(sn.VolumeID)
	case "volume-size":
		return oneInt(sn.VolumeSize)
	case "status":
		return one(sn.Status)
	case "start-time":
		return one(sn.StartTime)
	case "progress":
		return one(sn.Progress)
	case "owner-id":
		return one(sn.OwnerID)
	case "owner-alias":
		return nil, true
	case "description":
		return one(sn.Description)
	case "encrypted":
		return oneBool(sn.Encrypted)
	case "storage-tier":
		return one(sn.StorageTier)
	}
	return nil, false
}
