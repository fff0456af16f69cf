package ec2sim

import (
	"context"
	"fmt"
	"os"
	"time"
)

// fillFromSnapshot starts copying a snapshot's contents into the new volume v,
// which stays "creating" meanwhile. Lock held, so the snapshot is still there.
func (s *Server) fillFromSnapshot(v *Volume) error {
	src, err := os.Open(s.SnapshotPath(v.SnapshotID))
	if err != nil {
		return fmt.Errorf("snapshot contents: %w", err)
	}
	fi, err := src.Stat()
	if err != nil {
		_ = src.Close()
		return fmt.Errorf("snapshot contents: %w", err)
	}
	v.Copying = true
	id := v.ID
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer func() { _ = src.Close() }() // only read
		_, err := copyInto(s.ctx, s.VolumePath(id), src, fi.Size(), sparseCopy)
		s.mu.Lock()
		defer s.mu.Unlock()
		if v, ok := s.st.Volumes[id]; ok && !s.closed {
			v.Copying = false
			if err != nil {
				s.opt.Logger.Error("fill volume", "volume", id, "err", err)
				v.AsyncFailure = StateError
			}
			s.touchVolume(v)
			s.settleVolume(id)
			if err := s.commit(); err != nil {
				s.opt.Logger.Error("commit", "err", err)
			}
		}
	}()
	return nil
}

type copyFunc func(ctx context.Context, dst, src *os.File, limit int64) (int64, error)

func copyInto(ctx context.Context, path string, src *os.File, limit int64, copied copyFunc) (int64, error) {
	dst, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := copied(ctx, dst, src, limit)
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return n, err
}

// takeContents copies the contents of the volumes behind new snapshots, then
// lets them complete. When the plug can pause the instance, most is copied before
// that, and while it is paused only what has changed meanwhile. It returns when
// the contents are taken: what is written later is not in them.
func (s *Server) takeContents(snaps []*Snapshot, instanceID string) {
	s.mu.Lock()
	pauser, _ := s.plug.(Pauser)
	s.mu.Unlock()
	take := sparseCopy
	if instanceID != "" && pauser != nil && !s.opt.NoSnapshotData {
		ahead := true
		for _, sn := range snaps {
			if _, err := s.takeOne(sn, sparseCopy); err != nil {
				ahead = false // the copy that counts tells
			}
		}
		if ahead {
			take = sparseUpdate
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.opt.PlugTimeout)
		defer cancel()
		resume, err := pauser.Pause(ctx, instanceID)
		if err != nil {
			s.opt.Logger.Warn("snapshot of a running instance", "instance", instanceID, "err", err)
		} else {
			defer resume()
		}
	}
	for _, sn := range snaps {
		n, err := s.takeOne(sn, take)
		s.mu.Lock()
		if now, ok := s.st.Snapshots[sn.ID]; ok && !s.closed {
			now.Copying, now.DataBytes = false, n
			now.Fails = now.Fails || err != nil
			s.touchSnapshot(now)
			s.settleSnapshot(sn.ID)
		}
		cerr := s.commit()
		s.mu.Unlock()
		if err != nil || cerr != nil {
			s.opt.Logger.Error("snapshot contents", "snapshot", sn.ID, "err", err, "commit", cerr)
		}
	}
}

func (s *Server) takeOne(sn *Snapshot, take copyFunc) (int64, error) {
	if s.opt.NoSnapshotData {
		return 0, nil
	}
	src, err := os.Open(s.VolumePath(sn.VolumeID))
	if err != nil {
		return 0, err
	}
	defer func() { _ = src.Close() }() // only read
	return copyInto(s.ctx, s.SnapshotPath(sn.ID), src, s.Bytes(sn.SizeGiB), take)
}

// resumeContents deals with copies a former server did not finish. Lock held.
func (s *Server) resumeContents() {
	for _, sn := range s.st.Snapshots {
		if sn.Copying {
			sn.Copying, sn.Fails = false, true // its moment has passed
			sn.Due = later(sn.Due, s.clk.Now())
		}
	}
	for _, v := range s.st.Volumes {
		if !v.Copying {
			continue
		}
		if err := s.fillFromSnapshot(v); err != nil {
			s.opt.Logger.Error("fill volume", "volume", v.ID, "err", err)
			v.Copying, v.AsyncFailure = false, StateError
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
