package ec2sim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// state is everything that survives a restart: one JSON file, and a journal of
// what changed since that was written.
type state struct {
	Seed      int64                `json:"seed"`
	Serial    int64                `json:"serial"` // ids given out so far
	Commits   int64                `json:"commits,omitempty"`
	Warp      time.Duration        `json:"warp,omitempty"`
	Volumes   map[string]*Volume   `json:"volumes"`
	Snapshots map[string]*Snapshot `json:"snapshots"`
	Instances map[string]*Instance `json:"instances"`
	Tokens    map[string]*token    `json:"tokens"`
}

// token remembers a client token of CreateVolume.
type token struct {
	Fingerprint string    `json:"fingerprint"`
	VolumeID    string    `json:"volumeId"`
	Time        time.Time `json:"time"`
}

const stateFile = "state.json"

func loadState(dir string, seed int64) (*state, error) {
	st := &state{Seed: seed}
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read state: %w", err)
	default:
		if err := json.Unmarshal(data, st); err != nil {
			return nil, fmt.Errorf("parse %s: %w", filepath.Join(dir, stateFile), err)
		}
	}
	st.fill()
	if err := st.replay(dir); err != nil {
		return nil, err
	}
	return st, nil
}

func (st *state) fill() {
	if st.Volumes == nil {
		st.Volumes = map[string]*Volume{}
	}
	if st.Snapshots == nil {
		st.Snapshots = map[string]*Snapshot{}
	}
	if st.Instances == nil {
		st.Instances = map[string]*Instance{}
	}
	if st.Tokens == nil {
		st.Tokens = map[string]*token{}
	}
}

// save replaces the state file atomically. It survives the death of the
// process, not that of the machine (no fsync).
func (st *state) save(dir string) error {
	data, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	tmp := filepath.Join(dir, stateFile+".tmp")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("replace state: %w", err)
	}
	return nil
}

// newID returns the next id with the prefix; the sequence depends on the seed only.
func (st *state) newID(prefix string) string {
	st.Serial++
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%d", st.Seed, st.Serial))
	return prefix + "-0" + hex.EncodeToString(sum[:])[:16]
}

// VolumePath is the file that holds the volume's contents.
func (s *Server) VolumePath(volumeID string) string {
	return filepath.Join(s.opt.StateDir, "volumes", volumeID+".img")
}

// SnapshotPath is the file that holds the snapshot's contents.
func (s *Server) SnapshotPath(snapshotID string) string {
	return filepath.Join(s.opt.StateDir, "snapshots", snapshotID+".img")
}

// fileBytes is how long the file of a volume of that size is made.
func (s *Server) fileBytes(sizeGiB int32) int64 {
	return int64(max(sizeGiB, s.opt.MaxVolumeGiB)) * s.opt.GiB
}

// Bytes is the true size in bytes of a volume of that many GiB (see Options.GiB).
func (s *Server) Bytes(sizeGiB int32) int64 { return int64(sizeGiB) * s.opt.GiB }

// growFile makes the file at least that long, never shorter.
func growFile(path string, bytes int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open volume file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat volume file: %w", err)
	}
	if fi.Size() >= bytes {
		return nil
	}
	if err := f.Truncate(bytes); err != nil {
		return fmt.Errorf("extend volume file: %w", err)
	}
	return nil
}
