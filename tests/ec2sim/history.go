package ec2sim

import (
	"slices"
	"time"
)

// history keeps past versions of what describe calls show, so that an answer
// can be as old as a lagging replica's.
type history struct {
	volumes   versions[Volume]
	snapshots versions[Snapshot]
	instances versions[Instance]
}

type version[T any] struct {
	at    time.Time
	value *T // nil: gone
}

// versions of the things of one kind, by id, oldest first.
type versions[T any] struct {
	by    map[string][]version[T]
	ids   []string // of all things, in order unless mixed
	mixed bool
}

func (h *history) init() {
	h.volumes.by = map[string][]version[Volume]{}
	h.snapshots.by = map[string][]version[Snapshot]{}
	h.instances.by = map[string][]version[Instance]{}
}

// seed records a version that has always been visible.
func (vs *versions[T]) seed(id string, value *T) { vs.put(id, []version[T]{{value: value}}) }

// add records a version (nil when the thing is gone) and forgets those that no
// answer of at most keep behind can need.
func (vs *versions[T]) add(id string, value *T, now time.Time, keep time.Duration) {
	list := vs.by[id]
	list = append(list, version[T]{at: now, value: value})
	cutoff := now.Add(-keep)
	for len(list) > 1 && !list[1].at.After(cutoff) {
		list = list[1:]
	}
	if len(list) == 1 && list[0].value == nil {
		list = nil
	}
	vs.put(id, list)
}

func (vs *versions[T]) put(id string, list []version[T]) {
	_, known := vs.by[id]
	switch {
	case len(list) == 0 && known:
		delete(vs.by, id)
		vs.sort()
		if i, ok := slices.BinarySearch(vs.ids, id); ok {
			vs.ids = slices.Delete(vs.ids, i, i+1)
		}
	case len(list) > 0:
		vs.by[id] = list
		if !known {
			vs.ids, vs.mixed = append(vs.ids, id), true
		}
	}
}

func (vs *versions[T]) sort() {
	if vs.mixed {
		slices.Sort(vs.ids)
		vs.mixed = false
	}
}

// asOf returns what was visible at t, ordered by id: all, or those of the ids
// that there were.
func (vs *versions[T]) asOf(t time.Time, ids ...string) []*T {
	if len(ids) == 0 {
		vs.sort()
		ids = vs.ids
	}
	out := make([]*T, 0, len(ids))
	for _, id := range ids {
		list := vs.by[id]
		for i := len(list) - 1; i >= 0; i-- {
			if list[i].at.After(t) {
				continue
			}
			if list[i].value != nil {
				out = append(out, list[i].value)
			}
			break
		}
	}
	return out
}

// visible is the moment a describe call sees.
func (s *Server) visible() time.Time {
	now := s.clk.Now()
	if s.stale <= 0 {
		return now
	}
	age := s.stale
	if s.jitter {
		age = time.Duration(s.rng.Int64N(int64(s.stale) + 1))
	}
	return now.Add(-age)
}

// touchVolume marks v as changed: saved by the next commit, shown by describe
// calls from now on (or later, see Options.StaleDescribe).
func (s *Server) touchVolume(v *Volume) {
	s.journal.volumes.mark(v.ID)
	s.history.volumes.add(v.ID, v.clone(), s.clk.Now(), s.stale)
}

func (s *Server) forgetVolume(id string) {
	s.journal.volumes.mark(id)
	delete(s.st.Volumes, id)
	s.history.volumes.add(id, nil, s.clk.Now(), s.stale)
}

func (s *Server) touchSnapshot(sn *Snapshot) {
	s.journal.snapshots.mark(sn.ID)
	s.history.snapshots.add(sn.ID, sn.clone(), s.clk.Now(), s.stale)
}

func (s *Server) forgetSnapshot(id string) {
	s.journal.snapshots.mark(id)
	delete(s.st.Snapshots, id)
	s.history.snapshots.add(id, nil, s.clk.Now(), s.stale)
}

func (s *Server) touchInstance(i *Instance) {
	s.journal.instances.mark(i.ID)
	s.history.instances.add(i.ID, i.clone(), s.clk.Now(), s.stale)
}
