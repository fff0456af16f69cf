package ui

import (
	"bytes"
	"encoding/json"
)

// Changes filters a stream of values: only what differs from the one before.
// The zero value is ready.
type Changes struct{ last []byte }

// New says whether v differs, as JSON, from the last value it was asked about.
func (c *Changes) New(v any) bool {
	b, err := json.Marshal(v)
	if err != nil || bytes.Equal(b, c.last) {
		return false
	}
	c.last = b
	return true
}
