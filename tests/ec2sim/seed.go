package ec2sim

import (
	"fmt"
	"maps"
	"slices"
)

// Seed is what [Server.Seed] makes exist.
type Seed struct {
	Instances []Instance `json:"instances,omitempty"`
	Volumes   []Volume   `json:"volumes,omitempty"`
	Snapshots []Snapshot `json:"snapshots,omitempty"`
}

// Seed makes a whole fleet exist at once, without calls, lags and attachment
// limits: ten thousand volumes take less than a second. It is for tests of
// scale. What is left zero is filled in: an id, the zone (of the instance it is
// attached to, or the first), gp3 with its free performance, created now, and of
// an attachment the next free device name, "attached", now; a volume's state
// follows from its attachment. A snapshot is completed, and has no contents.
// Several things with the same id, or an id that exists, are an error, and
// nothing is changed then. Volumes get no file unless there is a Plug.
//
// It returns the volumes' ids in their order.
func (s *Server) Seed(in Seed) ([]string, error) {
	ids := make([]string, len(in.Volumes))
	for _, i := range in.Instances {
		if err := s.AddInstance(i); err != nil {
			return nil, err
		}
		s.alwaysThere(i.ID)
	}
	return ids, s.update(func() error {
		taken := map[string]map[string]bool{} // device names by instance
		for _, v := range s.st.Volumes {
			take(taken, v.Attachment)
		}
		for _, v := range in.Volumes {
			take(taken, v.Attachment)
		}
		vols := map[string]*Volume{}
		for n := range in.Volumes {
			v := in.Volumes[n].clone()
			if err := s.complete(v, taken); err != nil {
				return fmt.Errorf("ec2sim: seed: volume %d: %w", n, err)
			}
			if vols[v.ID] != nil || s.st.Volumes[v.ID] != nil {
				return fmt.Errorf("ec2sim: seed: volume %d: %s exists", n, v.ID)
			}
			vols[v.ID], ids[n] = v, v.ID
		}
		snaps := map[string]*Snapshot{}
		for n := range in.Snapshots {
			sn := in.Snapshots[n].clone()
			s.completeSnapshot(sn)
			if snaps[sn.ID] != nil || s.st.Snapshots[sn.ID] != nil {
				return fmt.Errorf("ec2sim: seed: snapshot %d: %s exists", n, sn.ID)
			}
			snaps[sn.ID] = sn
		}
		for id, v := range vols {
			if s.plug != nil {
				if err := growFile(s.VolumePath(id), s.fileBytes(v.SizeGiB)); err != nil {
					return err
				}
			}
		}
		for _, id := range slices.Sorted(maps.Keys(vols)) {
			s.st.Volumes[id] = vols[id]
			s.journal.volumes.mark(id)
			s.history.volumes.seed(id, vols[id].clone())
			s.settleVolume(id)
		}
		for id, sn := range snaps {
			s.st.Snapshots[id] = sn
			s.journal.snapshots.mark(id)
			s.history.snapshots.seed(id, sn.clone())
			s.settleSnapshot(id)
		}
		return nil
	})
}

func take(taken map[string]map[string]bool, a *Attachment) {
	if a == nil || a.Device == "" {
		return
	}
	if taken[a.InstanceID] == nil {
		taken[a.InstanceID] = map[string]bool{}
	}
	taken[a.InstanceID][a.Device] = true
}

// complete fills in what a seeded volume leaves out.
func (s *Server) complete(v *Volume, taken map[string]map[string]bool) error {
	if v.ID == "" {
		v.ID = s.st.newID("vol")
	}
	if err := checkVolumeID(v.ID); err != nil {
		return err
	}
	if v.Created.IsZero() {
		v.Created = s.clk.Now()
	}
	state := StateAvailable
	if a := v.Attachment; a != nil {
		inst, ok := s.st.Instances[a.InstanceID]
		if !ok {
			return errInstanceNotFound(a.InstanceID)
		}
		def(&v.Zone, inst.Zone)
		def(&a.State, StateAttached)
		if a.Time.IsZero() {
			a.Time = s.clk.Now()
		}
		if a.Device == "" {
			a.Device = freeDevice(taken[a.InstanceID])
			take(taken, a)
		}
		state = StateInUse
	}
	def(&v.State, state)
	def(&v.Zone, s.opt.Zones[0])
	if !slices.Contains(s.opt.Zones, v.Zone) {
		return apiErr("InvalidZone.NotFound", "The zone '%s' does not exist.", v.Zone)
	}
	def(&v.Type, "gp3")
	var err error
	v.Shape, err = resolve(v.Type, v.SizeGiB, optInt(v.IOPS), optInt(v.ThroughputMiB))
	return err
}

func (s *Server) completeSnapshot(sn *Snapshot) {
	if sn.ID == "" {
		sn.ID = s.st.newID("snap")
	}
	if sn.Start.IsZero() {
		sn.Start = s.clk.Now()
	}
	def(&sn.State, StateCompleted)
	def(&sn.SizeGiB, 1)
	if sn.State == StateCompleted && sn.Completed.IsZero() {
		sn.Completed = sn.Start
	}
}

// freeDevice is a device name that is not taken; when all 125 are, one is used
// twice.
func freeDevice(taken map[string]bool) string {
	name := ""
	for c := 'f'; c <= 'z'; c++ {
		if name = "/dev/sd" + string(c); !taken[name] {
			return name
		}
	}
	for x := 'a'; x <= 'd'; x++ {
		for c := 'a'; c <= 'z'; c++ {
			if name = "/dev/xvd" + string(x) + string(c); !taken[name] {
				return name
			}
		}
	}
	return name
}
