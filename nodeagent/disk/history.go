package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// hourly gathers the present hour's usage record.
type hourly struct {
	usage format.Usage
	at    time.Time // of the last sample
	ios   uint64
	bytes uint64 // read and written
	wrote uint64
	saved time.Time
}

// historyInterval bounds what a power cut takes from the history.
const historyInterval = 10 * time.Minute

// remember adds a measurement to the present hour, and writes the record out
// now and then. The history is a help for planning: failing to write it is
// logged and nothing else.
func (m *Manager) remember(ctx context.Context, h *handle, now contract.Measurement, top dm.Info) {
	u := &h.hour.usage
	hour := now.At.Unix() / 3600
	if u.Hour != hour {
		m.flushHistory(ctx, h)
		h.hour.usage = format.Usage{Hour: hour, UsedMin: uint64(now.PoolUsedBytes)}
		records, err := m.history(ctx, h.view.active)
		if err != nil {
			m.Logger.Warn("read usage history", "disk", now.Disk, "error", err)
		}
		for _, old := range records {
			if old.Hour == hour { // this hour goes on after a restart or a move
				h.hour.usage = old
			}
		}
	}
	u.UsedMin = min(u.UsedMin, uint64(now.PoolUsedBytes))
	u.UsedMax = max(u.UsedMax, uint64(now.PoolUsedBytes))
	u.FSUsedMax = max(u.FSUsedMax, uint64(now.FilesystemUsedBytes))
	u.BackingBytes = uint64(now.BackingBytes)
	if ios, read, wrote, err := ioCounters(top.Dev); err == nil {
		if dt := now.At.Sub(h.hour.at).Seconds(); dt > 0 && dt < 3600 && ios >= h.hour.ios && wrote >= h.hour.wrote {
			u.PeakIOPS = max(u.PeakIOPS, uint32(float64(ios-h.hour.ios)/dt))
			u.PeakMiBs = max(u.PeakMiBs, uint32(float64(read+wrote-h.hour.bytes)/dt/(1<<20)))
			u.Written += wrote - h.hour.wrote
		}
		h.hour.at, h.hour.ios, h.hour.bytes, h.hour.wrote = now.At, ios, read+wrote, wrote
	}
	if now.At.Sub(h.hour.saved) >= historyInterval {
		m.flushHistory(ctx, h)
		h.hour.saved = now.At
	}
}

// flushHistory writes the present hour's record.
func (m *Manager) flushHistory(ctx context.Context, h *handle) {
	if h.view == nil || h.view.active == nil || h.hour.usage.Hour == 0 {
		return
	}
	if err := m.writeHistory(ctx, h.view.active.vols[0], []format.Usage{h.hour.usage}); err != nil {
		m.Logger.Warn("write usage history", "volume", h.view.active.vols[0], "error", err)
	}
}

// writeHistory puts records into a volume's ring.
func (m *Manager) writeHistory(ctx context.Context, id string, records []format.Usage) error {
	dev, err := m.Locator.Open(ctx, id)
	if err != nil {
		return err
	}
	defer dev.Close()
	buf := volume.AlignedBuffer(format.HistoryBytes)
	if _, err := dev.ReadAt(buf, format.HistoryOffset); err != nil {
		return err
	}
	for _, u := range records {
		copy(buf[format.UsageOffset(u.Hour)-format.HistoryOffset:], u.Encode())
	}
	if len(records) == 1 { // one 4 KiB block is enough
		block := (format.UsageOffset(records[0].Hour) - format.HistoryOffset) / 4096 * 4096
		return writeDurably(dev, buf[block:block+4096], format.HistoryOffset+block)
	}
	return writeDurably(dev, buf, format.HistoryOffset)
}

// history reads a backing's ring, oldest first.
func (m *Manager) history(ctx context.Context, b *backing) ([]format.Usage, error) {
	dev, err := m.Locator.Open(ctx, b.vols[0])
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	buf := volume.AlignedBuffer(format.HistoryBytes)
	if _, err := dev.ReadAt(buf, format.HistoryOffset); err != nil {
		return nil, fmt.Errorf("read history of volume %s: %w", b.vols[0], err)
	}
	return format.ParseHistory(buf), nil
}

// History is the disk's hourly usage, oldest first, for at least 90 days once it
// is that old. It moves with the disk from volume to volume. Of a disk that is up
// only its own volume is read: another one may not answer.
func (m *Manager) History(ctx context.Context, d contract.DiskID) ([]format.Usage, error) {
	h, err := m.lockLive(ctx, d)
	if err != nil {
		return nil, err
	}
	defer h.mu.Unlock()
	if h.view != nil && h.view.active != nil {
		return m.history(ctx, h.view.active)
	}
	v, err := m.look(ctx, d)
	if err != nil || v.active == nil {
		return nil, err
	}
	return m.history(ctx, v.active)
}

// ioCounters reads a device's counters: completed I/Os, bytes read, bytes
// written (kernel Documentation/block/stat.rst).
func ioCounters(dev dm.Dev) (ios, read, wrote uint64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/stat", dev))
	if err != nil {
		return 0, 0, 0, err
	}
	f := bytes.Fields(b)
	if len(f) < 7 {
		return 0, 0, 0, fmt.Errorf("counters of %s: %q", dev, b)
	}
	var n [7]uint64
	for i := range n {
		if n[i], err = strconv.ParseUint(string(f[i]), 10, 64); err != nil {
			return 0, 0, 0, err
		}
	}
	return n[0] + n[4], n[2] * sector, n[6] * sector, nil
}
