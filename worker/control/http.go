package control

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// state is why the worker is not ready; empty means it is.
type state struct {
	ready prometheus.Gauge

	mu  sync.Mutex
	why string
}

func newState(ready prometheus.Gauge) *state {
	return &state{ready: ready, why: "not started yet"}
}

func (s *state) set(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
	if why == "" {
		s.ready.Set(1)
	} else {
		s.ready.Set(0)
	}
}

func (s *state) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// describe is the text of /readyz.
func (s *state) describe() (ready bool, text string) {
	if why := s.get(); why != "" {
		return false, "not ready: " + why + "\n"
	}
	return true, "ready\n"
}
