package disk

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// Reconcile brings the node into order at start: whatever a dead agent left
// suspended is resumed, a mirror whose headers do not know it is swapped back to
// the old generation, half-built stacks are removed, and every disk whose
// volumes are attached is assembled. It returns the disks that are up; those
// that could not be brought up are logged with the reason and left untouched. Disks
// of volumes that do not answer come up when those do, until ctx ends.
func (m *Manager) Reconcile(ctx context.Context) ([]contract.DiskID, error) {
	list, err := m.DM.List()
	if err != nil {
		return nil, err
	}
	for _, i := range list {
		if !strings.HasPrefix(i.Name, "ebb-") || i.UUID != uuidOf(i.Name) {
			continue
		}
		is, err := m.DM.Info(i.Name) // the list does not say it
		if err == nil && is.Suspended {
			_, err = m.DM.Resume(i.Name, dm.ResumeFlags{NoFlush: true, Internal: true})
		}
		if err != nil {
			m.Logger.Error("resume a suspended device", "device", i.Name, "error", err)
		}
	}
	finds, err := m.scan(ctx)
	if err != nil {
		return nil, err
	}
	disks := disksOf(finds)
	silent := slices.ContainsFunc(finds, mute)
	m.setUntidy(true)
	// A disk that is slow to come up (a swap that waits for a full pool to grow, a
	// large pool to check) keeps neither the other disks nor the agent waiting.
	var mu sync.Mutex
	var up, late []contract.DiskID // late: a volume does not answer
	var waiting sync.WaitGroup
	slots := make(chan struct{}, reconcileAtOnce)
	for _, d := range disks {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		waiting.Add(1)
		pass := sync.OnceFunc(func() {
			<-slots
			waiting.Done()
		})
		slow := time.AfterFunc(reconcilePatience, func() {
			m.Logger.Warn("the disk takes long to come up; going on without it", "disk", d)
			pass()
		})
		go func() { // ends with the disk's assembly, or its last ioctl
			defer pass()
			defer slow.Stop()
			err := m.reconcile(ctx, d)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, errMute) {
				late = append(late, d)
			}
			if err != nil {
				m.Logger.Error("assemble disk", "disk", d, "error", err)
				return
			}
			up = append(up, d)
		}()
	}
	waiting.Wait()
	mu.Lock()
	defer mu.Unlock()
	if silent {
		tried := slices.DeleteFunc(disks, func(d contract.DiskID) bool { return slices.Contains(late, d) })
		go m.reconcileLater(ctx, tried) // ends with ctx at the latest
	} else {
		m.setUntidy(false)
	}
	slices.Sort(up)
	return slices.Clone(up), ctx.Err()
}

// reconcileAtOnce is how many disks are brought up at the same time: checking a
// pool's metadata is mostly waiting for its volume.
const reconcileAtOnce = 4

// reconcilePatience is how long Reconcile waits for one disk. It goes on coming
// up after that.
const reconcilePatience = 20 * time.Second

// reconcile brings one disk into order, unless an operation has brought it up or taken
// it down before.
func (m *Manager) reconcile(ctx context.Context, d contract.DiskID) error {
	h, err := m.lockAny(ctx, d)
	if err != nil {
		return err
	}
	defer h.mu.Unlock()
	if !h.untidy.Load() && (h.down || m.standing(d) == nil) {
		return nil
	}
	v, err := m.look(ctx, d)
	h.untidy.Store(errors.Is(err, errMute) && m.standing(d) == nil)
	m.stopCounting(d, h) // what a dead agent counted proves nothing
	if err != nil {
		return err
	}
	if _, err := m.DM.Info(topName(d)); err == nil && v.active != nil {
		h.view = v
		if err := m.dropIfFailed(ctx, d, h); err != nil {
			return err
		}
		v = h.view
	}
	if _, err := m.assembleView(ctx, d, h, v, ""); err != nil && (h.view == nil || !errors.Is(err, os.ErrNotExist)) {
		return err
	}
	keep := []*format.Header{h.view.active.head}
	if h.view.moving() {
		keep = append(keep, h.view.incoming.head)
	}
	return m.takeDownAll(d, keep...)
}

// disksOf are the disks that volumes say they belong to, by id.
func disksOf(finds []find) (disks []contract.DiskID) {
	for _, f := range finds {
		if f.head == nil {
			continue
		}
		if d := contract.DiskID(f.head.Disk); d.Validate() == nil && !slices.Contains(disks, d) {
			disks = append(disks, d)
		}
	}
	slices.Sort(disks)
	return disks
}

// reconcileLater brings up the disks of volumes that did not answer, when they do: all
// but those that Reconcile has tried.
func (m *Manager) reconcileLater(ctx context.Context, tried []contract.DiskID) {
	for again := true; again; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(headerPatience):
		}
		finds, err := m.scan(ctx)
		if err != nil {
			m.Logger.Error("look for volumes that did not answer", "error", err)
			continue
		}
		again = slices.ContainsFunc(finds, mute)
		for _, d := range disksOf(finds) {
			if slices.Contains(tried, d) {
				continue
			}
			err := m.reconcile(ctx, d)
			if err != nil {
				m.Logger.Error("assemble disk", "disk", d, "error", err)
			}
			if !errors.Is(err, errMute) {
				tried = append(tried, d)
			}
		}
	}
	m.setUntidy(false) // what is left has no headers to wait for
}

// setUntidy says of the disks that are up whether what a dead agent left of them is
// still to be brought into order.
func (m *Manager) setUntidy(is bool) {
	for _, d := range m.Disks() {
		m.handle(d).untidy.Store(is)
	}
}
