package disk

import (
	"context"
	"os"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// verifyChunk is how much is read at once from each leg.
const verifyChunk = 4 << 20

// VerifyMove reads every used byte from both legs, past the page cache, and
// compares. It is safe to repeat.
func (m *Manager) VerifyMove(ctx context.Context, in contract.MoveInput, report func(contract.CopyProgress)) (contract.VerifyResult, error) {
	var out contract.VerifyResult
	v, err := m.synced(ctx, in)
	if err != nil || v == nil {
		return out, err
	}
	v = v.still() // it is read without the lock
	old, err := m.DM.Info(stackName(v.active.head))
	if err != nil {
		return out, err
	}
	thin, err := m.DM.Info(stackName(v.incoming.head))
	if err != nil {
		return out, err
	}
	fo, err := openDevice(old, os.O_RDONLY)
	if err != nil {
		return out, err
	}
	defer fo.Close()
	fn, err := openDevice(thin, os.O_RDONLY)
	if err != nil {
		return out, err
	}
	defer fn.Close()
	type run struct{ start, length uint64 }
	var runs []run
	var total int64
	if err := m.mappedLocked(ctx, in.Disk, v.active, func(start, length uint64) error {
		length = min(length, v.active.head.SizeBytes-start)
		runs = append(runs, run{start, length})
		total += int64(length)
		return nil
	}); err != nil {
		return out, err
	}
	c, unchanged, err := m.provenBefore(ctx, in)
	if err != nil {
		return out, err
	}
	t := newTracker(contract.PhaseVerify)
	l := legs{in, v, fo, fn}
	a, b := volume.AlignedBuffer(verifyChunk), volume.AlignedBuffer(verifyChunk)
	for _, r := range runs {
		for off := r.start; off < r.start+r.length; {
			n := min(verifyChunk, r.start+r.length-off)
			if c != nil {
				x := off / c.area
				n = min(n, (x+1)*c.area-off)
				if unchanged[x] && c.holds(off, n, v.incoming.head.RegionBytes) { // compared by the pre-copy
					out.VerifiedBytes += int64(n)
					off += n
					continue
				}
			}
			again, err := m.compare(ctx, l, a[:n], b[:n], int64(off))
			if err != nil {
				return out, err
			}
			out.VerifiedBytes += int64(n)
			out.Retried += int64(again)
			off += n
			report(t.at(out.VerifiedBytes, total))
		}
	}
	_, err = m.synced(ctx, in) // still both legs, all of them
	return out, err
}

// provenBefore is what the pre-copy has compared and nobody has written since; nil
// where this agent made none.
func (m *Manager) provenBefore(ctx context.Context, in contract.MoveInput) (*carried, []bool, error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return nil, nil, err
	}
	defer h.mu.Unlock()
	c := h.carried
	if c == nil || c.move != in.Move {
		return nil, nil, nil
	}
	unchanged, err := m.unchanged(ctx, in.Disk, c)
	if err != nil { // the count has gone, with the device or by a hand: everything is compared again
		m.Logger.Warn("what the pre-copy has proven is not believed any more", "disk", in.Disk, "move", in.Move, "error", err)
		m.stopCounting(in.Disk, h)
		return nil, nil, ctx.Err()
	}
	return c, unchanged, nil
}

// mappedLocked maps under the disk's lock: a pool has one metadata snapshot.
func (m *Manager) mappedLocked(ctx context.Context, d contract.DiskID, b *backing, fn func(start, length uint64) error) error {
	h, err := m.lock(ctx, d)
	if err != nil {
		return err
	}
	defer h.mu.Unlock()
	return m.mapped(b, fn)
}
