package ec2sim

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Fault changes what happens to calls of an action. A call that matches
// several gets the effects of all of them.
type Fault struct {
	// ID names the fault; AddFault makes one when empty.
	ID string `json:"id,omitempty"`
	// Action it is for; "" or "*" is every action.
	Action string `json:"action,omitempty"`
	// Match restricts it to calls with these parameters, as in the request's
	// form, e.g. {"VolumeId": "vol-..."}.
	Match map[string]string `json:"match,omitempty"`
	// Skip lets that many matching calls pass first: Skip 2 begins with the third.
	Skip int `json:"skip,omitempty"`
	// Count is how many calls it hits after that; 0 means 1, -1 all.
	Count int `json:"count,omitempty"`

	// Code makes the call fail with this EC2 error code. After makes it do so
	// when the action has had its effect; otherwise there is no effect.
	Code    string `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
	Status  int    `json:"status,omitempty"` // HTTP status; the code's own when 0
	After   bool   `json:"after,omitempty"`
	// LoseAnswer closes the connection instead of answering, after the effect
	// (or, with Before, without one).
	LoseAnswer bool `json:"loseAnswer,omitempty"`
	Before     bool `json:"before,omitempty"`
	// DelayBefore and DelayAfter hold the call up before and after its
	// effect, in real time.
	DelayBefore Duration `json:"delayBefore,omitempty"`
	DelayAfter  Duration `json:"delayAfter,omitempty"`
	// Hang leaves an AttachVolume attaching until it is detached, and a
	// DetachVolume busy until it is forced.
	Hang bool `json:"hang,omitempty"`
	// FailAsync accepts the call and lets what it creates fail afterwards.
	// For CreateVolume "vanish" (the volume disappears, its token is burned)
	// or "error" (it ends in that state); for snapshots "error"; for
	// ModifyVolume "failed", with Message as the modification's.
	FailAsync string `json:"failAsync,omitempty"`

	seen int
}

// Duration is a time.Duration that JSON writes as "1.5s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

type faultSet struct {
	mu     sync.Mutex
	serial int
	list   []*Fault
}

// AddFault arms a fault and returns its id; one with the same id is replaced.
func (s *Server) AddFault(f Fault) string {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	if f.ID == "" {
		s.faults.serial++
		f.ID = fmt.Sprintf("fault-%d", s.faults.serial)
	}
	if f.Count == 0 {
		f.Count = 1
	}
	f.seen = 0
	s.faults.list = slices.DeleteFunc(s.faults.list, func(o *Fault) bool { return o.ID == f.ID })
	s.faults.list = append(s.faults.list, &f)
	return f.ID
}

// RemoveFault disarms a fault; false when it is not (or no longer) armed.
func (s *Server) RemoveFault(id string) bool {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	n := len(s.faults.list)
	s.faults.list = slices.DeleteFunc(s.faults.list, func(f *Fault) bool { return f.ID == id })
	return len(s.faults.list) < n
}

// ClearFaults disarms all faults.
func (s *Server) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = nil
}

// Faults returns those still armed.
func (s *Server) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	out := make([]Fault, 0, len(s.faults.list))
	for _, f := range s.faults.list {
		out = append(out, *f)
	}
	return out
}

// take returns the faults that hit this call and disarms those used up.
func (fs *faultSet) take(action string, form url.Values) []Fault {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var hit []Fault
	fs.list = slices.DeleteFunc(fs.list, func(f *Fault) bool {
		if !f.matches(action, form) {
			return false
		}
		f.seen++
		if f.seen <= f.Skip {
			return false
		}
		hit = append(hit, *f)
		return f.Count > 0 && f.seen >= f.Skip+f.Count
	})
	return hit
}

func (f *Fault) matches(action string, form url.Values) bool {
	if f.Action != "" && f.Action != "*" && f.Action != action {
		return false
	}
	for k, v := range f.Match {
		if form.Get(k) != v {
			return false
		}
	}
	return true
}

func (f *Fault) err() *apiError {
	if f.Code == "" {
		return nil
	}
	e := apiErr(f.Code, "%s", f.reason())
	if f.Status != 0 {
		e.Status = f.Status
	}
	return e
}

// reason is the fault's message, or one that names the fault.
func (f *Fault) reason() string {
	if f.Message == "" {
		return "Injected by fault " + f.ID + "."
	}
	return f.Message
}

// pause waits in real time, unless ctx ends first.
func pause(ctx context.Context, d Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(time.Duration(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
