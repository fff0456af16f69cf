package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Fleet plugs volumes into nodes by instance id, as an EC2 emulator wants it. The zero value is an empty
// fleet.
type Fleet struct {
	mu     sync.Mutex
	nodes  map[string]Node
	pauses []*Pause
}

// Add makes a node known under its id, in place of one that had the same.
func (f *Fleet) Add(nodes ...Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes == nil {
		f.nodes = map[string]Node{}
	}
	for _, n := range nodes {
		f.nodes[n.ID()] = n
	}
}

// Get returns the node of an instance id.
func (f *Fleet) Get(instanceID string) (Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.nodes[instanceID]
	if !ok {
		return nil, fmt.Errorf("node: no instance %q", instanceID)
	}
	return n, nil
}

// Attach plugs a volume into an instance; see Node.Attach.
func (f *Fleet) Attach(ctx context.Context, instanceID, volumeID, device, path string, sizeBytes int64) error {
	n, err := f.Get(instanceID)
	if err != nil {
		return err
	}
	return n.Attach(ctx, volumeID, device, path, sizeBytes)
}

// Detach unplugs a volume from an instance; see Node.Detach. A volume or an instance that is not there is
// success.
func (f *Fleet) Detach(ctx context.Context, instanceID, volumeID string) error {
	n, err := f.Get(instanceID)
	if err != nil {
		return nil //nolint:nilerr // nothing is plugged into it
	}
	if err := n.Detach(ctx, volumeID); !errors.Is(err, ErrNotAttached) {
		return err
	}
	return nil
}

// Pause stops an instance's writes until resume is called; see Node.Pause.
func (f *Fleet) Pause(ctx context.Context, instanceID string) (resume func(), err error) {
	n, err := f.Get(instanceID)
	if err != nil {
		return nil, err
	}
	goOn, err := n.Pause(ctx)
	if err != nil {
		return nil, err
	}
	p := &Pause{Instance: instanceID, Begin: time.Now()}
	f.mu.Lock()
	f.pauses = append(f.pauses, p)
	f.mu.Unlock()
	return func() {
		goOn()
		f.mu.Lock()
		defer f.mu.Unlock()
		p.End = time.Now()
	}, nil
}

// Pause is a time in which an instance stood still. End is zero while it does.
type Pause struct {
	Instance   string
	Begin, End time.Time
}

// Pauses lists the pauses there were, oldest first.
func (f *Fleet) Pauses() []Pause {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Pause, len(f.pauses))
	for i, p := range f.pauses {
		out[i] = *p
	}
	return out
}

// Resize shows an instance the new size of a volume; see Node.Resize.
func (f *Fleet) Resize(ctx context.Context, instanceID, volumeID string, sizeBytes int64) error {
	n, err := f.Get(instanceID)
	if err != nil {
		return err
	}
	return n.Resize(ctx, volumeID, sizeBytes)
}
