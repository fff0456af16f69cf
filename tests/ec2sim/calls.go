package ec2sim

import (
	"sync"
	"time"
)

// Call is one API call the server got.
type Call struct {
	N         int               `json:"n"` // from 1, over all actions
	Action    string            `json:"action"`
	Time      time.Time         `json:"time"`
	Params    map[string]string `json:"params,omitempty"`
	RequestID string            `json:"requestId"`
	// Code of the error answered, "" for success.
	Code string `json:"code,omitempty"`
	// Effect is false when the action did not run, or failed by itself.
	Effect bool `json:"effect"`
	// Lost answers never reached the client.
	Lost bool `json:"lost,omitempty"`
	// Faults that took part, by id.
	Faults []string `json:"faults,omitempty"`
}

// maxCalls bounds the log; the oldest calls are forgotten first.
const maxCalls = 100_000

type callLog struct {
	mu    sync.Mutex
	n     int
	calls []Call
	count map[string]int
}

func (l *callLog) add(c Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	c.N = l.n
	l.calls = append(l.calls, c)
	if len(l.calls) > maxCalls {
		l.calls = append([]Call(nil), l.calls[maxCalls/10:]...)
	}
	if l.count == nil {
		l.count = map[string]int{}
	}
	l.count[c.Action]++
}

// Calls returns what was called, oldest first: of one action, or of all when
// action is "".
func (s *Server) Calls(action string) []Call {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	var out []Call
	for _, c := range s.calls.calls {
		if action == "" || c.Action == action {
			out = append(out, c)
		}
	}
	return out
}

// Count returns how often an action was called since the start or the last
// ResetCalls, throttled and failed calls included.
func (s *Server) Count(action string) int {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	return s.calls.count[action]
}

// Counts returns Count of every action called.
func (s *Server) Counts() map[string]int {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	out := map[string]int{}
	for a, n := range s.calls.count {
		out[a] = n
	}
	return out
}

// ResetCalls forgets all calls.
func (s *Server) ResetCalls() {
	s.calls.mu.Lock()
	defer s.calls.mu.Unlock()
	s.calls.calls, s.calls.count = nil, nil
}
