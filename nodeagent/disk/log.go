package disk

import (
	"context"
	"fmt"

	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// logDevice maps one of a backing's two dirty-log areas.
func (m *Manager) logDevice(ctx context.Context, b *backing, part string) (dm.Info, error) {
	dev, err := m.member(ctx, b.vols[0], format.DataStart)
	if err != nil {
		return dm.Info{}, err
	}
	return m.ensure(stackName(b.head)+part, dm.Linear(0, format.LogBytes/sector, dev, logOffset(part)/sector))
}

func logOffset(part string) uint64 {
	if part == partLogA {
		return format.LogAOffset
	}
	return format.LogBOffset
}

// mirrorTable mirrors the disk from its old thin device, the default leg, to
// its new one.
func mirrorTable(h *format.Header, log, old, thin dm.Info) (dm.Target, error) {
	if h.RegionBytes == 0 {
		return dm.Target{}, fmt.Errorf("generation %d has no region size", h.Generation)
	}
	return dm.Mirror(h.SizeBytes/sector, log.Dev, h.RegionBytes/sector, old.Dev, thin.Dev), nil
}

func regions(h *format.Header) uint64 { return (h.SizeBytes + h.RegionBytes - 1) / h.RegionBytes }

// writeLog writes a dirty log that the kernel will read.
func (m *Manager) writeLog(ctx context.Context, b *backing, part string, count uint64, inSync format.Bitmap) error {
	dev, err := m.Locator.Open(ctx, b.vols[0])
	if err != nil {
		return err
	}
	defer dev.Close()
	raw := format.LogHeader(count, inSync)
	buf := volume.AlignedBuffer(len(raw))
	copy(buf, raw)
	return writeDurably(dev, buf, int64(logOffset(part)))
}

// readLog reads the present state of a log that the kernel keeps.
func (m *Manager) readLog(ctx context.Context, b *backing, part string, count uint64) (format.Bitmap, error) {
	dev, err := m.Locator.Open(ctx, b.vols[0])
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	buf := volume.AlignedBuffer(len(format.LogHeader(count, format.NewBitmap(count))))
	if _, err := dev.ReadAt(buf, int64(logOffset(part))); err != nil {
		return nil, fmt.Errorf("read log of volume %s: %w", b.vols[0], err)
	}
	return format.ParseLog(buf, count)
}
