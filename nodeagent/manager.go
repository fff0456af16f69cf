package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ebb-storage/ebb/nodeagent/agent"
	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

var _ agent.Disks = (*disk.Manager)(nil)

// kernel is the node's device-mapper, opened at first use: the preflight must
// be able to say that there is none.
type kernel struct {
	log *slog.Logger

	mu sync.Mutex
	dm *dm.Client
}

func newKernel(log *slog.Logger) *kernel { return &kernel{log: log} }

func (k *kernel) client() (*dm.Client, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dm != nil {
		return k.dm, nil
	}
	c, err := dm.Open()
	if err != nil {
		return nil, err
	}
	k.dm = c
	return c, nil
}

// Close closes the control device; devices stay.
func (k *kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dm == nil {
		return nil
	}
	err := k.dm.Close()
	k.dm = nil
	return err
}

// open answers the preflight.
func (k *kernel) open() error {
	_, err := k.client()
	return err
}

// Targets implements agent.TargetProber. Missing modules are loaded.
func (k *kernel) Targets(ctx context.Context, names []string) (map[string]string, error) {
	c, err := k.client()
	if err != nil {
		return nil, err
	}
	why := c.EnsureTargets(ctx, names...)
	have, err := c.Targets()
	if err != nil {
		return nil, errors.Join(err, why)
	}
	out := make(map[string]string, len(have))
	for name, v := range have {
		out[name] = fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
	}
	return out, why
}

// disks opens the node's disks.
func (k *kernel) disks(node string) (agent.Disks, error) {
	c, err := k.client()
	if err != nil {
		return nil, err
	}
	return disk.NewManager(disk.Options{Node: node, DM: c, Locator: volume.Auto(c), Logger: k.log.With("component", "disk")})
}
