package ec2sim

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// journal notes what changed since the state was last written in whole, so that
// a commit costs what it changes and not what there is.
type journal struct {
	dirty                                 bool
	volumes, snapshots, instances, tokens marks
	file                                  *os.File // nil: the state is to be written in whole
	lines                                 int
}

type marks map[string]bool

func (m *marks) mark(id string) {
	if *m == nil {
		*m = marks{}
	}
	(*m)[id] = true
}

// entry is one commit. A nil value is gone.
type entry struct {
	Commit    int64                `json:"commit"`
	Serial    int64                `json:"serial"`
	Warp      time.Duration        `json:"warp,omitempty"`
	Volumes   map[string]*Volume   `json:"volumes,omitempty"`
	Snapshots map[string]*Snapshot `json:"snapshots,omitempty"`
	Instances map[string]*Instance `json:"instances,omitempty"`
	Tokens    map[string]*token    `json:"tokens,omitempty"`
}

const journalFile = "state.journal"

// minLines is how long the journal of a small state may get.
const minLines = 200

// commit makes what was marked durable.
func (j *journal) commit(st *state, dir string) error {
	if !j.dirty && len(j.volumes)+len(j.snapshots)+len(j.instances)+len(j.tokens) == 0 {
		return nil
	}
	st.Commits++
	if j.file == nil || j.lines >= minLines+len(st.Volumes)+len(st.Snapshots) {
		if err := j.whole(st, dir); err != nil {
			return err
		}
	} else if err := j.append(st); err != nil {
		return err
	}
	j.dirty, j.volumes, j.snapshots, j.instances, j.tokens = false, nil, nil, nil, nil
	return nil
}

// whole writes all the state and begins an empty journal.
func (j *journal) whole(st *state, dir string) error {
	if err := errors.Join(st.save(dir), j.close()); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, journalFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.file, j.lines = f, 0
	return nil
}

func (j *journal) append(st *state) error {
	data, err := json.Marshal(entry{
		Commit: st.Commits, Serial: st.Serial, Warp: st.Warp,
		Volumes: marked(j.volumes, st.Volumes), Snapshots: marked(j.snapshots, st.Snapshots),
		Instances: marked(j.instances, st.Instances), Tokens: marked(j.tokens, st.Tokens),
	})
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if _, err := j.file.Write(append(data, '\n')); err != nil {
		return errors.Join(fmt.Errorf("journal: %w", err), j.close()) // whole next time
	}
	j.lines++
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	f := j.file
	j.file = nil
	return f.Close()
}

func marked[T any](ids marks, all map[string]*T) map[string]*T {
	out := make(map[string]*T, len(ids))
	for id := range ids {
		out[id] = all[id]
	}
	return out
}

// replay applies the commits that are younger than the state. A last line that
// was not finished is a commit that was never answered.
func (st *state) replay(dir string) error {
	f, err := os.Open(filepath.Join(dir, journalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		var e entry
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		if e.Commit <= st.Commits {
			continue
		}
		st.Commits, st.Serial, st.Warp = e.Commit, e.Serial, e.Warp
		apply(st.Volumes, e.Volumes)
		apply(st.Snapshots, e.Snapshots)
		apply(st.Instances, e.Instances)
		apply(st.Tokens, e.Tokens)
	}
}

func apply[T any](to, from map[string]*T) {
	for id, v := range from {
		if v == nil {
			delete(to, id)
		} else {
			to[id] = v
		}
	}
}
