package disk

import (
	"context"
	"fmt"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
)

// watchInterval bounds how long a state stays unnoticed when no event tells of
// it: a pool that was full before the watch began, say.
const watchInterval = 15 * time.Second

// busyInterval is when a disk is looked at again that was busy.
const busyInterval = 200 * time.Millisecond

// pressureInterval keeps one burst of kernel events from becoming a burst of
// reports.
const pressureInterval = time.Second

// Watch waits for device-mapper events until ctx ends. It drops failed mirror
// legs itself, at once; pools that need to grow and disks in trouble it reports
// to handle, which must not block for long. It looks at everything once when it
// begins.
func (m *Manager) Watch(ctx context.Context, handle func(Event)) error {
	defer m.dropBallasts()
	for {
		poll, wake := context.WithCancel(ctx)
		m.wakeBy(wake) // before it is looked, so that no guide comes too late for both
		next := m.nextLook()
		if !m.inspectAll(ctx, handle) {
			next = busyInterval
		}
		err := m.DM.Poll(poll, next)
		woken := poll.Err() != nil
		wake()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !woken {
			return err
		}
	}
}

// inspectAll looks at all disks at once, and waits a second for those that take
// long: dropping a failed leg may wait for a pool to grow, and the other disks
// must not wait with it. It tells whether all were seen.
func (m *Manager) inspectAll(ctx context.Context, handle func(Event)) bool {
	disks := m.Disks()
	seen := make(chan bool, len(disks))
	for _, d := range disks {
		go func() { seen <- m.inspect(ctx, d, handle) }() // ends with the swap it may be in
	}
	late := time.NewTimer(inspectPatience)
	defer late.Stop()
	all := true
	for range disks {
		select {
		case ok := <-seen:
			all = all && ok
		case <-late.C:
			return false
		}
	}
	return all
}

// inspectPatience is how long one look at all disks may take.
const inspectPatience = time.Second

// inspect looks at one disk: first which pools must grow, which a failed leg's
// drop may wait for, then the legs. It does not wait for an operation that holds
// the disk's lock. It returns false when it could not see everything.
func (m *Manager) inspect(ctx context.Context, d contract.DiskID, handle func(Event)) bool {
	h := m.handle(d)
	if !h.mu.TryLock() {
		return false
	}
	if h.view == nil && !h.lent() {
		if v, err := m.look(ctx, d); err != nil || v.active == nil {
			h.mu.Unlock()
			return true
		} else {
			h.view = v
		}
	}
	var events []Event
	limited := true
	if h.view != nil {
		events = m.pools(d, h)
		limited = m.limit(ctx, d, h, handle)
	}
	h.mu.Unlock()
	for _, e := range events {
		handle(e)
	}
	if !h.mu.TryLock() {
		return false
	}
	if h.swapping || h.view == nil {
		h.mu.Unlock()
		return false
	}
	dropped := m.dropIfFailed(ctx, d, h)
	if dropped != nil {
		m.Logger.Error("drop a failed leg", "disk", d, "error", dropped)
	}
	events, h.untold = h.untold, nil
	h.mu.Unlock()
	for _, e := range events {
		handle(e)
	}
	return dropped == nil && limited
}

// pools tells which of a disk's pools need to grow.
func (m *Manager) pools(d contract.DiskID, h *handle) (events []Event) {
	backings := []*backing{h.view.active}
	if n := h.view.incoming; n != nil { // it may not be built yet: then it has no pool to look at
		backings = append(backings, n)
	}
	for _, b := range backings {
		if e, ok := m.poolEvent(d, h, b); ok {
			events = append(events, e)
		}
	}
	return events
}

// poolEvent tells whether a pool needs to grow. One that can map the whole disk
// never does.
func (m *Manager) poolEvent(d contract.DiskID, h *handle, b *backing) (Event, bool) {
	st, err := m.poolState(b)
	if err != nil {
		return Event{}, false
	}
	block := int64(b.head.BlockBytes)
	total, used := int64(st.TotalData)*block, int64(st.UsedData)*block
	full := st.Mode == "out_of_data_space"
	if givenUp(st) || st.Error {
		return Event{Disk: d, Kind: EventReadError, Message: fmt.Sprintf("the pool of generation %d has failed", b.head.Generation)}, true
	}
	if b == h.view.active {
		h.rate.add(time.Now(), used)
	}
	if total >= int64(b.head.SizeBytes) || total == 0 {
		return Event{}, false
	}
	low := m.lowWater(b, total, used, h.rate.value)
	if b == h.view.active && !full {
		m.mark(d, h, low)
	}
	metaLow := st.TotalMeta > 0 && st.UsedMeta*100 > st.TotalMeta*90
	if total-used > low && !full && !metaLow {
		return Event{}, false
	}
	if !full && time.Since(h.pressed[b.head.Generation]) < pressureInterval {
		return Event{}, false
	}
	h.pressed[b.head.Generation] = time.Now()
	e := Event{Disk: d, Kind: EventPressure, Pressure: contract.Pressure{
		Node: m.Node, Generation: b.head.Generation, UsedBytes: used, BackingBytes: backingBytes(b.head), FillRate: h.rate.value,
	}, Message: fmt.Sprintf("%d of %d bytes used", used, total)}
	if full {
		e.Kind = EventFull
	}
	return e, true
}

func backingBytes(h *format.Header) int64 {
	var n int64
	for _, mem := range h.Members {
		n += int64(mem.Bytes)
	}
	return n
}
