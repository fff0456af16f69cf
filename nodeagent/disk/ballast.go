package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// ballast takes the room from a filesystem that its pool does not have and will
// not get: a file without a name, of blocks that were reserved and never written,
// which take nothing of the pool. The filesystem then answers a write that needs
// more with ENOSPC by itself, before it has accepted any of it. (A pool that fails
// writes instead would fail those of the filesystem's own metadata too: ext4 aborts
// its journal then, see docs/design.md.)
//
// The kernel frees the file when the agent ends, or at the next mount after a power
// cut: from then on writes that find no room wait, as they do without a ballast.
type ballast struct {
	// held is what it takes of the filesystem, in bytes. It lags behind while the
	// ballast is resized: changes is odd then, and another afterwards.
	held    atomic.Int64
	changes atomic.Int64
	known   atomic.Int64 // what files used when it was last seen

	mu sync.Mutex // guards the rest, and is held while the ballast is changed
	f  *os.File   // nil: there is none

	sized   time.Time // when it was last considered whether it can be smaller
	trimmed time.Time // when the last trim for it ended
	took    time.Duration
	// slack is what the pool held beyond what the filesystem uses after that trim:
	// blocks of the pool that are used in part. What comes on top was deleted.
	slack  int64
	told   bool
	warned time.Time
}

const (
	// ballastLook is the interval of looks at a disk that has a ballast, or may
	// need one soon.
	ballastLook = time.Second
	// ballastNear is how little must be left of a pool for a ballast, at least: more
	// than is written between two looks.
	ballastNear = 2 << 30
	// ballastRelax is the least time between two attempts to make it smaller:
	// each writes out what the filesystem still has in memory.
	ballastRelax = 10 * time.Second
	// ballastTrim is the least time between two trims for it.
	ballastTrim = 5 * time.Second
	// ballastTrimTime bounds one.
	ballastTrimTime = 10 * time.Second
)

// reserve is what of a pool is left for what a filesystem writes without being
// asked for it: its metadata, its journal, and blocks of the pool used in part.
func reserve(pool int64) int64 { return min(max(pool/32, 64<<20), 4<<30) }

// failing tells whether a disk's writes are to fail instead of waiting: its policy
// says so, its backing has reached the policy's ceiling, and no move is under way.
// The caller holds the disk's lock.
func (m *Manager) failing(d contract.DiskID, h *handle) bool {
	g := m.guide(d)
	if g == nil || !g.FailAtCeiling || CeilingGiB(*g) == 0 || h.view.active == nil || h.view.incoming != nil {
		return false
	}
	a := h.view.active.head
	if a.Bytes(format.Data) >= a.SizeBytes { // the filesystem's own end comes first
		return false
	}
	return (backingBytes(a)+contract.GiB-1)/contract.GiB >= CeilingGiB(*g)
}

// limit brings a disk's ballast in line with its pool, in a goroutine of its own,
// one at a time. The caller holds the disk's lock. False: a ballast that is not
// wanted any more may come out of the change that is under way; look again soon.
func (m *Manager) limit(ctx context.Context, d contract.DiskID, h *handle, handle func(Event)) bool {
	if h.lent() {
		return true
	}
	fail := m.failing(d, h)
	if !h.ballast.mu.TryLock() {
		return fail
	}
	// With the lock held: who closes either is seen, or waits for it.
	if h.closing.Load() > 0 || !fail && h.ballast.held.Load() == 0 {
		h.ballast.mu.Unlock()
		return true
	}
	var b backing
	if fail {
		b = *h.view.still().active
	}
	go func() { // ends with the change; dropBallasts waits for it by the lock
		defer h.ballast.mu.Unlock()
		var err error
		switch {
		case ctx.Err() != nil:
			h.ballast.drop()
		case fail:
			err = m.balance(ctx, d, &h.ballast, &b, handle)
		default:
			if h.ballast.drop() {
				handle(Event{Disk: d, Kind: EventCeiling, Message: "writes are no longer limited to the policy's ceiling"})
			}
		}
		if err != nil && ctx.Err() == nil && time.Since(h.ballast.warned) > time.Minute {
			h.ballast.warned = time.Now()
			m.Logger.Warn("limit the filesystem to the policy's ceiling", "disk", d, "error", err)
		}
	}()
	return true
}

// dropBallast gives a disk's filesystem all its room back. It waits for a change
// that is under way, which may wait for the disk's lock: the caller does not hold it.
func (h *handle) dropBallast() {
	h.ballast.mu.Lock()
	defer h.ballast.mu.Unlock()
	h.ballast.drop()
}

func (a *ballast) drop() bool {
	if a.f == nil {
		return false
	}
	a.changes.Add(1)
	defer a.changes.Add(1)
	_ = unix.Ftruncate(int(a.f.Fd()), 0) // at once: xfs frees a closed file's blocks later
	_ = a.f.Close()
	a.f, a.told, a.trimmed = nil, false, time.Time{}
	a.held.Store(0)
	return true
}

// usage is the filesystem's size and what its files use of it. While the ballast is
// resized nobody can tell them apart: then it is what they used before. It does not
// wait.
func (a *ballast) usage(mnt mount) (total, used int64, err error) {
	before := a.changes.Load()
	if total, used, err = mnt.usage(); err != nil {
		return 0, 0, err
	}
	held := a.held.Load()
	if before%2 != 0 || a.changes.Load() != before {
		return total, a.known.Load(), nil
	}
	used = max(0, used-held)
	a.known.Store(used)
	return total, used, nil
}

// room is what a pool and the filesystem over it have, in bytes.
type room struct {
	pool, free int64 // of the pool
	avail      int64 // what the filesystem lets be written
	used       int64 // by files
	slack      int64 // in the pool beyond that; below 0 where xfs counts what it has put aside as used
}

func (m *Manager) room(b *backing, a *ballast, mnt mount) (r room, err error) {
	st, err := m.poolState(b)
	if err != nil {
		return r, err
	}
	block := int64(b.head.BlockBytes)
	r.pool, r.free = int64(st.TotalData)*block, int64(st.TotalData-st.UsedData)*block
	var fs unix.Statfs_t
	if err := unix.Statfs(mnt.path, &fs); err != nil {
		return r, fmt.Errorf("statfs %s: %w", mnt.path, err)
	}
	r.avail = int64(fs.Bavail) * fs.Frsize
	r.used = int64(fs.Blocks-fs.Bfree)*fs.Frsize - a.held.Load()
	r.slack = r.pool - r.free - r.used
	return r, nil
}

// over is by how much the filesystem promises more than the pool has.
func (r room) over() int64 { return r.avail - max(0, r.free-reserve(r.pool)) }

// balance makes the ballast larger or smaller. The caller holds its lock.
func (m *Manager) balance(ctx context.Context, d contract.DiskID, a *ballast, b *backing, handle func(Event)) error {
	top, err := m.DM.Info(topName(d))
	if errors.Is(err, dm.ErrNotFound) {
		a.drop()
		return nil
	}
	if err != nil {
		return err
	}
	mnt, ok, err := mountOf(top.Dev)
	if err != nil {
		return err
	}
	if !ok { // unmounting it was not possible with the file open: it was lazy
		a.drop()
		return nil
	}
	r, err := m.room(b, a, mnt)
	if err != nil {
		return err
	}
	near := max(r.pool/4, ballastNear, m.lowWater(b, r.pool, r.pool-r.free, 0))
	if a.f == nil && r.free > near {
		return nil
	}
	if r.free > near+near/3 {
		a.drop()
		return nil
	}
	grain := max(4<<20, r.pool/1024)
	// What was deleted comes back by a trim; the ballast must not sit on it.
	if a.trimmed.IsZero() || r.slack-a.slack > grain && time.Since(a.trimmed) > max(ballastTrim, 20*a.took) {
		if r, err = m.trimForBallast(ctx, d, a, b, mnt, handle); err != nil {
			return err
		}
	}
	more := r.over() - max(0, r.slack-a.slack)
	relax := more < -grain && a.f != nil && time.Since(a.sized) > ballastRelax
	if more <= grain && !relax {
		return nil
	}
	a.sized = time.Now()
	// The filesystem has accepted writes that the pool has not seen yet. Those of
	// before the sync are in the pool after it; what was used meanwhile is not.
	// Where there is no room left there is nothing to find out, and a sync may have
	// to wait for the growth.
	before := r.used
	if r.free > reserve(r.pool) {
		if err := syncMount(mnt); err != nil {
			return err
		}
		if r, err = m.room(b, a, mnt); err != nil {
			return err
		}
	}
	more = r.over() - max(0, r.slack-a.slack) + max(0, r.used-before)
	if more <= grain && more >= -grain {
		return nil
	}
	if err := a.resize(mnt, a.held.Load()+more); err != nil {
		return err
	}
	if !a.told && a.f != nil {
		a.told = true
		handle(Event{Disk: d, Kind: EventCeiling, Message: fmt.Sprintf("the backing is at the policy's ceiling: writes that need more than %d MiB fail", max(0, r.free-reserve(r.pool))>>20)})
	}
	return nil
}

// trimForBallast gives back what was deleted.
func (m *Manager) trimForBallast(ctx context.Context, d contract.DiskID, a *ballast, b *backing, mnt mount, handle func(Event)) (room, error) {
	began := time.Now()
	short, cancel := context.WithTimeout(ctx, ballastTrimTime)
	out, err := m.Reclaim(short, d)
	cancel()
	a.trimmed, a.took = time.Now(), time.Since(began)
	r, e := m.room(b, a, mnt)
	if ref, ok := contract.AsRefusal(err); gaveWay(err) || ok && ref.Code == contract.DiskBusy {
		return r, e // another trim, or a growth: later
	}
	a.slack = r.slack
	if err != nil { // no discard, say: what is deleted does not come back
		m.Logger.Warn("trim at the policy's ceiling", "disk", d, "error", err)
		return r, e
	}
	handle(Event{Disk: d, Kind: EventTrimmed, Bytes: out.TrimmedBytes, Message: "at the policy's ceiling"})
	return r, e
}

// resize makes the ballast take so many bytes; a filesystem that has less gives
// all it has.
func (a *ballast) resize(mnt mount, bytes int64) error {
	if bytes <= 0 {
		a.drop()
		return nil
	}
	if a.f == nil {
		if a.known.Load() == 0 { // nobody has measured it yet
			if _, _, err := a.usage(mnt); err != nil {
				return err
			}
		}
		fd, err := unix.Open(mnt.path, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if errors.Is(err, unix.EROFS) {
			return nil // nobody writes
		}
		if err != nil {
			return fmt.Errorf("open a nameless file in %s: %w", mnt.path, err)
		}
		a.f = os.NewFile(uintptr(fd), mnt.path)
	}
	a.changes.Add(1)
	err := a.take(bytes)
	a.changes.Add(1)
	if a.held.Load() == 0 { // an open file would only keep the filesystem mounted
		a.drop()
	}
	if err != nil {
		return fmt.Errorf("take %d bytes of %s: %w", bytes, mnt.path, err)
	}
	return nil
}

func (a *ballast) take(bytes int64) error {
	fd := int(a.f.Fd())
	var err error
	if held := a.held.Load(); bytes < held {
		err = unix.Ftruncate(fd, bytes)
	} else {
		for step := bytes - held; step >= 1<<20; {
			if err = unix.Fallocate(fd, 0, held, step); err == nil {
				held += step
				step = bytes - held
			} else if errors.Is(err, unix.ENOSPC) { // somebody was quicker
				step, err = step/2, nil
			} else {
				break
			}
		}
	}
	var st unix.Stat_t
	if e := unix.Fstat(fd, &st); e == nil {
		a.held.Store(st.Blocks * 512)
	}
	return err
}

func syncMount(mnt mount) error {
	f, err := os.Open(mnt.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", mnt.path, err)
	}
	return nil
}

// dropBallasts gives all filesystems their room back when the watch ends. One that
// hangs in its kernel is left to the end of the process.
func (m *Manager) dropBallasts() {
	done := make(chan struct{})
	go func() { // ends with the last change of a ballast
		defer close(done)
		m.mu.Lock()
		all := make([]*handle, 0, len(m.disks))
		for _, h := range m.disks {
			all = append(all, h)
		}
		m.mu.Unlock()
		for _, h := range all {
			h.dropBallast()
		}
	}()
	select {
	case <-done:
	case <-time.After(inspectPatience):
	}
}
