package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// Most of a move is done before there is a mirror. While the application works on
// its old backing as ever, the agent copies what is used to the new one, and then
// compares; the kernel counts the writes to each area meanwhile (dm-stats). What
// was found equal and was not written since the comparison began is proven; what
// was written is copied and compared again. What never comes to rest is left to
// the mirror, which then lives for a short time only: it makes each write wait for
// its dirty log (docs/design.md has the measurement).
//
// Nothing here touches the application's path, so a new volume that fails, or an
// agent that dies, costs it nothing.

const (
	// leftToMirror is what need not be proven: copying it takes the mirror a moment.
	leftToMirror = 32 << 20
	// mostPasses bounds the passes over what does not come to rest.
	mostPasses = 8
)

// precopy is one in progress.
type precopy struct {
	*carried
	m        *Manager
	h        *handle
	in       contract.MoveInput
	vols     [2]string // old, new: for what is said
	old, new side
	total    uint64
	pace     pace
	free     buffers
}

// bringOver copies and proves what it can before there is a mirror, and then begins
// that. It may be repeated: what is there already is compared, not copied again. Two
// attempts take turns: a late write of one must not reach what the other has proven.
func (m *Manager) bringOver(ctx context.Context, in contract.MoveInput, out *contract.EvacuateResult, report func(contract.CopyProgress)) (stage, error) {
	h := m.handle(in.Disk)
	if err := h.precopying.lock(ctx); err != nil {
		return 0, busy(in.Disk, err)
	}
	defer h.precopying.Unlock()
	inner, stop := context.WithCancel(ctx)
	defer stop()
	h.stopPrecopy.Store(&stop)
	defer h.stopPrecopy.Store(nil)
	if m.precopies {
		if err := m.precopy(inner, in, out, report); err != nil {
			if ctx.Err() == nil && inner.Err() != nil { // see endPrecopy
				err = fmt.Errorf("disk %s: the copy of move %s was ended by another operation", in.Disk, in.Move)
			}
			return 0, err
		}
	}
	return m.start(ctx, in, out)
}

// endPrecopy ends a pre-copy, and waits for that: its open files keep devices.
func (m *Manager) endPrecopy(ctx context.Context, d contract.DiskID) error {
	h := m.handle(d)
	if stop := h.stopPrecopy.Load(); stop != nil {
		(*stop)()
	}
	short, cancel := context.WithTimeout(ctx, trimPatience)
	defer cancel()
	if err := h.precopying.lock(short); err != nil {
		if ctx.Err() != nil {
			return busy(d, err)
		}
		return contract.Refuse(contract.DiskBusy, "the copy to its new volume does not end").WithDisk(d).
			WithNext("check the volumes' status in EC2; forcing the new one's detachment ends it")
	}
	h.precopying.Unlock()
	return nil
}

func (m *Manager) precopy(ctx context.Context, in contract.MoveInput, out *contract.EvacuateResult, report func(contract.CopyProgress)) error {
	var p *precopy
	for {
		var err error
		p, err = m.openPrecopy(ctx, in)
		if err == nil {
			break
		}
		if !errors.Is(err, errFull) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(headerInterval):
		}
	}
	if p == nil {
		return nil
	}
	defer p.close()
	p.h.brought.Store(0)
	p.h.tobring.Store(int64(p.total))
	defer p.h.tobring.Store(0)
	if err := p.run(ctx, report); err != nil {
		return m.precopyFailed(ctx, p, err)
	}
	if p.again {
		out.ResumedFraction = float64(p.identical) / float64(max(p.total, 1))
	}
	return m.step(ctx, "proven")
}

// errFull: the old pool is full. To begin to count the kernel drains the device, and
// holds what comes meanwhile; that must not wait for a growth.
var errFull = errors.New("the pool is full")

// openPrecopy takes up what an interrupted attempt of this agent has, or builds the
// new backing and begins to count. p is nil when the move is past that or gone, or
// the kernel cannot count.
func (m *Manager) openPrecopy(ctx context.Context, in contract.MoveInput) (p *precopy, err error) {
	h, err := m.lock(ctx, in.Disk)
	if err != nil {
		return nil, err
	}
	defer h.mu.Unlock()
	if h.closing.Load() > 0 {
		return nil, fmt.Errorf("disk %s is being taken down", in.Disk)
	}
	v, err := m.open(ctx, in.Disk, h)
	if err != nil {
		return nil, err
	}
	v.prefer(in.Move)
	if v.moving() || v.incoming == nil || v.incoming.head.Move != in.Move || v.incoming.head.SizeBytes != v.active.head.SizeBytes {
		return nil, nil
	}
	a, n := v.active, v.incoming
	c := h.partial
	h.carried, h.partial = nil, nil
	if !m.lives(ctx, in, c, n) {
		if c, err = m.newCarried(ctx, in, h, a, n); err != nil || c == nil {
			return nil, err
		}
	}
	p = &precopy{
		carried: c, m: m, h: h, in: in, vols: [2]string{a.vols[0], n.vols[0]},
		pace: pace{paused: n.head.Paused, mibs: float64(n.head.ThrottleMiBs)},
	}
	for _, x := range c.areas {
		p.total += x.bytes
	}
	if err := m.step(ctx, "precopy"); err != nil {
		return nil, err
	}
	old, err := m.DM.Info(stackName(a.head))
	if err != nil {
		return nil, err
	}
	thin, err := m.DM.Info(stackName(n.head))
	if err != nil {
		return nil, err
	}
	from, err := openDevice(old, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	// Exclusively: not even a dying agent may still have it open.
	to, err := openDevice(thin, os.O_RDWR|unix.O_EXCL)
	if err != nil {
		_ = from.Close()
		return nil, err
	}
	p.old, p.new, p.free = newSide(from), newSide(to), newBuffers()
	return p, nil
}

// lives tells that what an interrupted attempt has can be gone on with: the count
// goes on, and the new backing is up.
func (m *Manager) lives(ctx context.Context, in contract.MoveInput, c *carried, n *backing) bool {
	if c == nil || c.move != in.Move {
		return false
	}
	if _, err := m.unchanged(ctx, in.Disk, c); err != nil {
		return false
	}
	_, err := m.DM.Info(stackName(n.head))
	return err == nil
}

// newCarried builds the new backing and begins to count; nil: the kernel cannot.
func (m *Manager) newCarried(ctx context.Context, in contract.MoveInput, h *handle, a, n *backing) (*carried, error) {
	if st, err := m.poolState(a); err != nil {
		return nil, err
	} else if st.Mode == "out_of_data_space" || st.UsedData == st.TotalData {
		return nil, fmt.Errorf("disk %s: %w", in.Disk, errFull)
	}
	if err := m.backToOld(ctx, in.Disk, h); err != nil {
		return nil, err
	}
	c := &carried{
		move: in.Move, again: n.head.Precopying, below: stackName(a.head),
		area: areaBytes(a.head.SizeBytes, n.head.RegionBytes, processors()),
	}
	c.areas = make([]area, (a.head.SizeBytes+c.area-1)/c.area)
	fresh := func(meta dm.Info) error {
		count := regions(n.head)
		used, err := m.usedRegions(a, n.head.RegionBytes, count)
		if err != nil {
			return err
		}
		return premap(ctx, meta, n.head, used, count)
	}
	if c.again {
		fresh = nil
	}
	if _, err := m.build(ctx, n, fresh, nil); err != nil {
		return nil, err
	}
	if !c.again {
		if err := m.save(ctx, n, func(h *format.Header) { h.Precopying = true }); err != nil {
			return nil, err
		}
	}
	if err := m.beginCount(h, in.Disk, c, a.head.SizeBytes); err != nil {
		m.Logger.Warn("the kernel cannot count a disk's I/O: the mirror copies everything", "disk", in.Disk, "error", err)
		m.stopCounting(in.Disk, h)
		return nil, nil
	}
	return c, m.outline(c, n)
}

// run makes passes until what is left is little, or does not get less.
func (p *precopy) run(ctx context.Context, report func(contract.CopyProgress)) error {
	left := p.total
	for pass := 1; pass <= mostPasses && left > 0; pass++ {
		phase := contract.PhaseCopy
		if pass > 1 {
			phase = contract.PhaseVerify
		}
		blank := slices.ContainsFunc(p.areas, func(x area) bool { return x.state == areaBlank && x.bytes > 0 })
		if err := p.pass(ctx, newTracker(phase), report, p.again && pass == 1); err != nil {
			return err
		}
		if err := p.m.step(ctx, "pass"); err != nil {
			return err
		}
		unchanged, err := p.m.unchanged(ctx, p.in.Disk, p.carried)
		if err != nil {
			return err
		}
		before := left
		left = 0
		for i, x := range p.areas {
			if x.state == areaProven && !unchanged[i] {
				p.areas[i].state = areaCopied
			}
			if !unchanged[i] {
				left += x.bytes
			}
		}
		p.m.Logger.Info("pre-copy", "disk", p.in.Disk, "move", p.in.Move, "pass", pass, "bytes", p.total, "left", left, "copied", p.written)
		if !blank && (left <= leftToMirror || left > before/2) { // what was just copied is not compared yet
			break
		}
	}
	// What the log will call in sync must be on the volume before the log is.
	if err := p.new.file.Sync(); err != nil {
		return newError{err}
	}
	if err := p.old.file.Sync(); err != nil { // a power cut must not take from it what the new one has
		return oldError{0, 0, err}
	}
	h, err := p.m.lock(ctx, p.in.Disk)
	if err != nil {
		return err
	}
	defer h.mu.Unlock()
	if err := p.wanted(); err != nil {
		return err
	}
	h.carried = p.carried
	return nil
}

// wanted tells that the move is still to be prepared. The caller holds the lock.
func (p *precopy) wanted() error {
	v := p.h.view
	if v == nil || v.moving() || v.incoming == nil || v.incoming.head.Move != p.in.Move {
		return fmt.Errorf("disk %s: move %s is not wanted any more", p.in.Disk, p.in.Move)
	}
	return nil
}

// pass goes over all areas that are not proven.
func (p *precopy) pass(ctx context.Context, t *tracker, report func(contract.CopyProgress), resuming bool) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(crewSize)
	err := p.share(inner, g, t, report, resuming)
	e := g.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case e != nil: // it ended the other
		return e
	}
	return err
}

// share gives the chunks of a pass to the crew.
func (p *precopy) share(ctx context.Context, g *errgroup.Group, t *tracker, report func(contract.CopyProgress), resuming bool) error {
	var done, all uint64
	for _, x := range p.areas {
		if x.state != areaProven {
			all += x.bytes
		}
	}
	for i := range p.areas {
		x := &p.areas[i]
		if x.state == areaProven || x.bytes == 0 {
			continue
		}
		since, err := p.m.DM.CountersOf(topName(p.in.Disk), p.count, i, 1)
		if err != nil || len(since) != 1 {
			return errors.Join(fmt.Errorf("disk %s: area %d is not counted", p.in.Disk, i), err)
		}
		x.since = since[0]
		b := &bout{x: x, compare: x.state == areaCopied, open: 1}
		for _, r := range x.runs {
			for off := r.start; off < r.start+r.length; {
				if err := p.pace.wait(ctx, p.limit); err != nil {
					return err
				}
				n, alone := p.pace.chunk(p.inUse)
				n = min(n, r.start+r.length-off)
				c := chunk{off: int64(off), n: int(n), alone: alone, bout: b, resuming: resuming}
				b.begin()
				if !alone {
					g.Go(func() error { return p.bring(ctx, c) })
				} else { // the next is not read before this one was, and the application gets in between
					buf, same, err := p.fetch(ctx, c)
					if err != nil {
						return err
					}
					g.Go(func() error { return p.put(ctx, c, buf, same) })
				}
				off += n
				done += n
				p.pace.moved += n
				if t.phase == contract.PhaseCopy {
					p.h.brought.Store(int64(done))
				}
				report(t.at(int64(done), int64(all)))
			}
		}
		b.end(true)
	}
	return nil
}

// limit reads the move's rate from its header, where Throttle puts it.
func (p *precopy) limit() error {
	if !p.h.mu.TryLock() {
		return nil
	}
	defer p.h.mu.Unlock()
	if err := p.wanted(); err != nil {
		return err
	}
	n := p.h.view.incoming.head
	p.pace.paused, p.pace.mibs = n.Paused, float64(n.ThrottleMiBs)
	return nil
}

// inUse is what the application does: it changes with each I/O.
func (p *precopy) inUse() (dm.Counters, error) {
	one, err := p.m.DM.CountersOf(topName(p.in.Disk), p.whole, 0, 1)
	if err != nil || len(one) != 1 {
		return dm.Counters{InFlight: true}, err
	}
	return one[0], nil
}

// close ends the use of both devices.
func (p *precopy) close() {
	_ = p.old.file.Close() // what was written was synced
	_ = p.new.file.Close()
}

// oldError and newError say which side could not be read or written.
type oldError struct {
	off int64
	n   int
	err error
}

func (e oldError) Error() string {
	return fmt.Sprintf("cannot read %d bytes at %d: %v", e.n, e.off, e.err)
}

type newError struct{ err error }

func (e newError) Error() string { return e.err.Error() }

// precopyFailed turns an I/O error into what the operation and people are told.
// The disk is on its old backing and has not noticed.
func (m *Manager) precopyFailed(ctx context.Context, p *precopy, err error) error {
	var oe oldError
	var ne newError
	var r *contract.Refusal
	kind := EventMoveFailed
	switch {
	case ctx.Err() != nil: // interrupted: the count goes on, and so can the next attempt
		p.h.mu.Lock()
		defer p.h.mu.Unlock()
		if p.wanted() == nil {
			p.h.partial = p.carried
		}
		return err
	case errors.As(err, &oe):
		r, kind = cannotRead(p.in.Disk, p.vols[0], oe), EventReadError
	case errors.As(err, &ne):
		r = contract.Refuse(contract.MoveFailed, "the new volume failed while it was filled: %v", ne.err).
			WithDisk(p.in.Disk).WithVolume(p.vols[1]).WithNext("check the new volume's status in EC2; run the operation again")
	default:
		return err
	}
	m.Logger.Error("pre-copy failed", "disk", p.in.Disk, "move", p.in.Move, "error", err)
	p.h.mu.Lock()
	defer p.h.mu.Unlock()
	m.stopCounting(p.in.Disk, p.h)
	p.h.failure[p.in.Move] = r
	p.h.untold = append(p.h.untold, Event{Disk: p.in.Disk, Kind: kind, Message: r.Error()})
	m.wakeWatch()
	return r
}

// cannotRead refuses for a read error on the disk's own volume.
func cannotRead(d contract.DiskID, vol string, why error) *contract.Refusal {
	return contract.Refuse(contract.VolumeFailing, "%v", why).WithDisk(d).WithVolume(vol).
		WithNext("check the volume's status in EC2, restore from a snapshot if it is impaired")
}
