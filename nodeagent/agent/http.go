package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// state is why the agent is not ready: an empty map means it is.
type state struct {
	ready prometheus.Gauge

	mu    sync.Mutex
	not   map[string]string // what is missing -> in words
	notes []string          // problems that do not make it unready
}

func newState(ready prometheus.Gauge) *state {
	return &state{ready: ready, not: map[string]string{
		"preflight": "not done yet", "reconcile": "not done yet", "worker": "not started yet",
	}}
}

// set says why a part is not ready; an empty reason says that it is.
func (s *state) set(part, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason == "" {
		delete(s.not, part)
	} else {
		s.not[part] = reason
	}
	s.ready.Set(flag(len(s.not) == 0))
}

func (s *state) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, text)
}

// describe is the text of /readyz.
func (s *state) describe() (ready bool, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	if len(s.not) == 0 {
		fmt.Fprintln(&b, "ready")
	} else {
		fmt.Fprintln(&b, "not ready")
	}
	for _, part := range slices.Sorted(maps.Keys(s.not)) {
		fmt.Fprintf(&b, "%s: %s\n", part, s.not[part])
	}
	for _, n := range s.notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return len(s.not) == 0, b.String()
}
