package ec2sim

import (
	"maps"
	"strings"
	"sync"
	"time"
)

// throttle holds the token buckets of the account.
type throttle struct {
	mu      sync.Mutex
	buckets map[string]Bucket
	level   map[string]float64
	last    map[string]time.Time
}

func (t *throttle) set(b map[string]Bucket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buckets = maps.Clone(b)
	t.level, t.last = map[string]float64{}, map[string]time.Time{}
	for name, b := range t.buckets {
		t.level[name] = float64(b.Burst)
	}
}

// bucket finds the most exact entry for an action.
func (t *throttle) bucket(action string) string {
	if _, ok := t.buckets[action]; ok {
		return action
	}
	best := ""
	for name := range t.buckets {
		prefix, wild := strings.CutSuffix(name, "*")
		if wild && strings.HasPrefix(action, prefix) && len(name) > len(best) {
			best = name
		}
	}
	return best
}

// take spends a token, or refuses the call.
func (t *throttle) take(action string, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := t.bucket(action)
	if name == "" {
		return nil
	}
	b := t.buckets[name]
	if last, ok := t.last[name]; ok {
		t.level[name] = min(float64(b.Burst), t.level[name]+now.Sub(last).Seconds()*b.Rate)
	}
	t.last[name] = now
	if t.level[name] < 1 {
		return apiErr("RequestLimitExceeded", "Request limit exceeded.")
	}
	t.level[name]--
	return nil
}
