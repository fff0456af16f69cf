package ec2sim

// fillFromSnapshot copies a snapshot's contents into a new volume.
func (s *Server) fillFromSnapshot(volumeID, snapshotID string) {}
