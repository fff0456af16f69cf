package disk

import (
	"context"
	"errors"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Trim gives the filesystem's free blocks back to the pool, except during a move:
// a discard passes the mirror's copy of the same region, and may leave the legs
// different in blocks that nobody owns, which the verification would have to
// refuse. It does not hold the disk's lock: a trim can take minutes.
func (m *Manager) Trim(ctx context.Context, d contract.DiskID) (contract.TrimDiskResult, error) {
	var out contract.TrimDiskResult
	top, err := m.DM.Info(topName(d))
	if err != nil {
		return out, err
	}
	mnt, ok, err := mountOf(top.Dev)
	if err != nil {
		return out, err
	}
	if ok && !m.copying(d) {
		if out.TrimmedBytes, _, err = m.trim(ctx, d, mnt, 0, false); err != nil {
			return out, err
		}
	}
	h, err := m.lock(ctx, d)
	if err != nil {
		return out, err
	}
	defer h.mu.Unlock()
	v, err := m.open(ctx, d, h)
	if err != nil {
		return out, err
	}
	if v.incoming == nil {
		// Mapping makes the pool commit first, and only then does it count what
		// the trim freed as free.
		regionBytes, copies, err := m.planMove(v.active)
		if err != nil {
			return out, err
		}
		out.CopyBytes = int64(regionBytes * copies)
	}
	out.Measurement, err = m.measure(ctx, d, h)
	return out, err
}

// Reclaim is a trim beside everything else: it gives way to growth, goes on where
// the last one ended when that had no time for the whole disk, and does nothing
// during a move or beside another one. TrimmedBytes are those of the pool.
func (m *Manager) Reclaim(ctx context.Context, d contract.DiskID) (contract.TrimDiskResult, error) {
	var out contract.TrimDiskResult
	h := m.handle(d)
	if !h.reclaiming.TryLock() {
		return out, contract.Refuse(contract.DiskBusy, "a trim is running").WithDisk(d).WithNext("wait until it has ended")
	}
	defer h.reclaiming.Unlock()
	before, err := m.Measure(ctx, d)
	if err != nil {
		return out, err
	}
	out.Measurement = before
	top, err := m.DM.Info(topName(d))
	if err != nil {
		return out, err
	}
	mnt, ok, err := mountOf(top.Dev)
	if err != nil || !ok || before.Move != nil {
		return out, err
	}
	if err := m.step(ctx, "reclaim"); err != nil {
		return out, err
	}
	_, next, err := m.trim(ctx, d, mnt, h.trimAt, true)
	h.trimAt = next // of the one Reclaim there is
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return out, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countPatience) // what was freed is to be counted
	defer cancel()
	h, err = m.lockLive(ctx, d)
	if err != nil {
		return out, err
	}
	defer h.mu.Unlock()
	if h.view == nil || h.lent() {
		return out, errMoving
	}
	if err := m.commitPool(h.view.active); err != nil {
		return out, err
	}
	if out.Measurement, err = m.measure(ctx, d, h); err != nil {
		return out, err
	}
	if out.Measurement.Generation == before.Generation {
		out.TrimmedBytes = max(0, before.PoolUsedBytes-out.Measurement.PoolUsedBytes)
	}
	return out, nil
}

// commitPool makes a pool count what discards freed as free.
func (m *Manager) commitPool(b *backing) error {
	pool := stackName(b.head) + partPool
	_, err := m.DM.Message(pool, 0, "reserve_metadata_snap")
	_, e := m.DM.Message(pool, 0, "release_metadata_snap")
	return errors.Join(err, e)
}

// copying tells whether a disk's mirror runs, or may: a trim beside one is worse
// than none.
func (m *Manager) copying(d contract.DiskID) bool {
	_, mirrored, err := m.mirrorState(d)
	return err != nil || mirrored
}

// countPatience is how long Reclaim waits for the disk's lock at its end.
const countPatience = 10 * time.Second

// Reasons for which a Reclaim ends before it has seen the whole disk.
var (
	errGiveWay = errors.New("a growth comes first")
	errMoving  = errors.New("a move has begun")
	errClosing = errors.New("the disk is being taken down")
)

// gaveWay tells that a trim ended for one of them.
func gaveWay(err error) bool {
	return errors.Is(err, errGiveWay) || errors.Is(err, errMoving) || errors.Is(err, errClosing)
}

// trim trims where the pool has anything to give back, from first on. One that
// gives way ends when a growth waits for the disk's lock.
func (m *Manager) trim(ctx context.Context, d contract.DiskID, mnt mount, first int64, givesWay bool) (sum, next int64, err error) {
	h, err := m.lock(ctx, d)
	if err != nil {
		return 0, first, err
	}
	v, err := m.open(ctx, d, h)
	spans := map[int64]bool{}
	var size int64
	if err == nil {
		size = int64(v.active.head.SizeBytes)
		err = m.mapped(v.active, func(start, length uint64) error {
			switch {
			case givesWay && h.growing.Load() > 0:
				return errGiveWay
			case h.closing.Load() > 0:
				return errClosing
			}
			for at := start / trimStep; at <= (start+length-1)/trimStep; at++ {
				spans[int64(at*trimStep)] = true
			}
			return m.step(ctx, "trim-map")
		})
	}
	h.mu.Unlock()
	if err != nil {
		return 0, first, err
	}
	return mnt.trim(ctx, size, first, func(start int64, trim func() error) error {
		if !spans[start] {
			return nil
		}
		h.trims.RLock()
		defer h.trims.RUnlock()
		switch {
		case h.closing.Load() > 0: // the open file would keep the filesystem mounted
			return errClosing
		case !m.copying(d):
		case givesWay:
			return errMoving
		default:
			return errTrimmed
		}
		if err := m.step(ctx, "trim-span"); err != nil {
			return err
		}
		return trim()
	})
}
