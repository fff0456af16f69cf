package ec2sim

import "time"

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
type versions[T any] map[string][]version[T]

func (h *history) init() {
	h.volumes = versions[Volume]{}
	h.snapshots = versions[Snapshot]{}
	h.instances = versions[Instance]{}
}

// seed records a version that has always been visible.
func (vs versions[T]) seed(id string, value *T) {
	vs[id] = []version[T]{{value: value}}
}

// add records a version (nil when the thing is gone) and forgets those that no
// answer of at most keep behind can need.
func (vs versions[T]) add(id string, value *T, now time.Time, keep time.Duration) {
	list := vs[id]
	list = append(list, version[T]{at: now, value: value})
	cutoff := now.Add(-keep)
	for len(list) > 1 && !list[1].at.After(cutoff) {
		list = list[1:]
	}
	if len(list) == 1 && list[0].value == nil {
		delete(vs, id)
		return
	}
	vs[id] = list
}

// asOf returns what was visible at t, ordered by id.
func (vs versions[T]) asOf(t time.Time) []*T {
	var out []*T
	for _, id := range sortedKeys(vs) {
		list := vs[id]
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
	s.dirty = true
	s.history.volumes.add(v.ID, v.clone(), s.clk.Now(), s.stale)
}

func (s *Server) forgetVolume(id string) {
	s.dirty = true
	delete(s.st.Volumes, id)
	s.history.volumes.add(id, nil, s.clk.Now(), s.stale)
}

func (s *Server) touchSnapshot(sn *Snapshot) {
	s.dirty = true
	s.history.snapshots.add(sn.ID, sn.clone(), s.clk.Now(), s.stale)
}

func (s *Server) forgetSnapshot(id string) {
	s.dirty = true
	delete(s.st.Snapshots, id)
	s.history.snapshots.add(id, nil, s.clk.Now(), s.stale)
}

func (s *Server) touchInstance(i *Instance) {
	s.dirty = true
	s.history.instances.add(i.ID, i.clone(), s.clk.Now(), s.stale)
}
