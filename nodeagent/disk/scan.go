package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// find is one attached volume with what its header says.
type find struct {
	volume.Candidate
	head *format.Header
	err  error           // why head is nil
	was  contract.DiskID // of a volume that does not answer: whose it was when it last did, or nobodys; "": not known
}

// headerPatience is how long a look at the node's volumes waits for one that
// neither answers nor fails, as an EBS volume whose I/O is impaired or paused may for
// hours. The other disks must not wait with it.
const headerPatience = 5 * time.Second

// nobodys is a volume without a disk's data, or with what it has replaced.
const nobodys = contract.DiskID("-")

// errMute is of a volume whose header could not be read in time. It may have anything
// on it, and may answer yet: what depends on it is to be tried again.
var errMute = errors.New("it does not answer; check the volume's status in EC2")

// mute says that a volume does not answer.
func mute(f find) bool { return errors.Is(f.err, errMute) }

// scan reads the headers of all attached volumes.
func (m *Manager) scan(ctx context.Context) ([]find, error) {
	cands, err := m.Locator.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("find volumes: %w", err)
	}
	out := make([]find, len(cands))
	var reads sync.WaitGroup
	for i, c := range cands {
		out[i].Candidate = c
		reads.Go(func() { out[i].head, out[i].err = m.askHeader(ctx, c.ID) })
	}
	reads.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.owners.note(out)
	return out, nil
}

// askHeader is readHeader for a volume that may not answer: then it ends with
// errMute, at once when an earlier read has not ended yet.
func (m *Manager) askHeader(ctx context.Context, id string) (*format.Header, error) {
	mute := fmt.Errorf("volume %s: %w", id, errMute)
	if m.owners.mute(id) {
		return nil, mute
	}
	type answer struct {
		head *format.Header
		err  error
	}
	done := make(chan answer, 1)
	go func() { // ends with the read, which nothing else can end
		late := time.AfterFunc(headerPatience, func() { m.owners.late(id, 1) })
		head, err := m.readHeader(ctx, id)
		if !late.Stop() {
			m.owners.late(id, -1)
		}
		done <- answer{head, err}
	}()
	patience := time.NewTimer(headerPatience)
	defer patience.Stop()
	select {
	case a := <-done:
		return a.head, a.err
	case <-patience.C:
		return nil, mute
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// owners knows of the attached volumes which disk each belonged to when its header
// was last read, and how many reads of it take too long.
type owners struct {
	mu    sync.Mutex
	disks map[string]contract.DiskID
	reads map[string]int
}

func (o *owners) mute(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reads[id] > 0
}

func (o *owners) late(id string, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.reads == nil {
		o.reads = map[string]int{}
	}
	if o.reads[id] += n; o.reads[id] == 0 {
		delete(o.reads, id)
	}
}

// note remembers what was found of all volumes, and says whose those are that do not
// answer.
func (o *owners) note(finds []find) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := make(map[string]contract.DiskID, len(finds))
	for i := range finds {
		f := &finds[i]
		switch {
		case f.head != nil && f.head.Role == format.Retired:
			now[f.ID] = nobodys
		case f.head != nil:
			now[f.ID] = contract.DiskID(f.head.Disk)
		case errors.Is(f.err, format.ErrBlank), errors.Is(f.err, format.ErrForeign):
			now[f.ID] = nobodys
		case mute(*f):
			f.was = o.disks[f.ID]
			now[f.ID] = f.was
		}
	}
	o.disks = now
}

// readHeader reads a volume's newest header.
func (m *Manager) readHeader(ctx context.Context, id string) (*format.Header, error) {
	dev, err := m.Locator.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	return readHeader(dev)
}

func readHeader(dev *volume.Device) (*format.Header, error) {
	a, b := volume.AlignedBuffer(format.HeaderBytes), volume.AlignedBuffer(format.HeaderBytes)
	if _, err := dev.ReadAt(a, format.HeaderOffset0); err != nil {
		return nil, fmt.Errorf("read header of %s: %w", dev.ID(), err)
	}
	if _, err := dev.ReadAt(b, format.HeaderOffset1); err != nil {
		return nil, fmt.Errorf("read header of %s: %w", dev.ID(), err)
	}
	return format.Newest(a, b)
}
