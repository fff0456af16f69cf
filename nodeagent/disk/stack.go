package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/thinmap"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

const sector = format.SectorBytes

// topName is the device that the filesystem sits on.
func topName(d contract.DiskID) string { return "ebb-" + string(d) }

// stackName begins the names of a backing's devices; its thin device has that
// name itself.
func stackName(h *format.Header) string { return fmt.Sprintf("ebb-%s-g%d", h.Disk, h.Born) }

// Parts of a backing's device names, in the order in which they are removed.
const (
	partLogA = "-loga"
	partLogB = "-logb"
	partGate = "-gate"
	partPool = "-pool"
	partData = "-data"
	partMeta = "-meta"
)

// uuidOf is the UUID that marks a device as Ebb's own.
func uuidOf(name string) string { return "EBB-" + strings.TrimPrefix(name, "ebb-") }

// ensure makes a device of ours exist, running, with this table. A device that
// a crash left without a table, or suspended, is finished.
func (m *Manager) ensure(name string, table ...dm.Target) (dm.Info, error) {
	info, err := m.DM.Info(name)
	switch {
	case errors.Is(err, dm.ErrNotFound):
		if _, err := m.DM.Create(name, uuidOf(name)); err != nil && !errors.Is(err, dm.ErrExists) {
			return info, err
		}
	case err != nil:
		return info, err
	case info.UUID != uuidOf(name):
		return info, fmt.Errorf("device %s is not Ebb's: its uuid is %q", name, info.UUID)
	case info.ActivePresent:
		if info.Suspended {
			if _, err := m.DM.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true}); err != nil {
				m.Logger.Warn("resume a device; it gets its table anew", "device", name, "error", err)
				break // its live table is one that the kernel has refused
			}
		}
		info, now, err := m.DM.Table(name)
		if err != nil {
			return info, err
		}
		if sameTable(now, table) {
			if info.InactivePresent { // loaded by an agent that died before its swap: it holds what it names
				err = m.DM.Clear(name)
			}
			return info, err
		}
	}
	return m.replace(name, table...)
}

// ensureTop makes a disk's top device run with this table. What a mirror holds
// back is handed to the new table.
func (m *Manager) ensureTop(h *handle, d contract.DiskID, table dm.Target) error {
	return h.swap(func() error {
		return m.hurry(func() error {
			_, err := m.ensure(topName(d), table)
			return err
		})
	})
}

// replace swaps a table in by the one RESUME ioctl (I3).
func (m *Manager) replace(name string, table ...dm.Target) (dm.Info, error) {
	if err := m.load(name, table...); err != nil {
		return dm.Info{}, err
	}
	info, err := m.DM.Resume(name, dm.ResumeFlags{NoFlush: true, Internal: true})
	if err != nil {
		_ = m.DM.Clear(name)
	}
	return info, err
}

// copyJobKiB is how much kcopyd takes at a time. Eight such jobs are in flight,
// and a writer's request waits behind them (docs/design.md has the measurement).
const copyJobKiB = "32"

// copyJobParam is there since Linux 5.3; the default is 512.
const copyJobParam = "/sys/module/dm_mod/parameters/kcopyd_subjob_size_kb"

// loadPatience is how long a mirror waits for pools that are being loaded.
const loadPatience = 5 * time.Second

// load loads a table. The kernel reads the size of a copy's jobs from a host-wide
// parameter in the moment in which a mirror is loaded, so the parameter is put
// back at once, and no pool, which copies too, is loaded in between. Loading a
// pool reads its volume, which may hang: nothing but a mirror waits for that, and
// not for long. Without the parameter a copy only disturbs more.
func (m *Manager) load(name string, table ...dm.Target) error {
	if len(table) == 1 {
		switch table[0].Type {
		case "mirror":
			// A pool whose load hangs must not stand between a waiting mirror and the
			// pools of other disks, which a lock that waits would hold up.
			for late := time.Now().Add(loadPatience); !m.loading.TryLock(); time.Sleep(time.Millisecond) {
				if time.Now().After(late) {
					_, err := m.DM.Load(name, false, table...)
					return err
				}
			}
			defer m.loading.Unlock()
			if os.WriteFile(copyJobParam, []byte(copyJobKiB), 0o644) == nil {
				defer m.restoreCopyJob()
			}
		case "thin-pool":
			m.loading.RLock()
			defer m.loading.RUnlock()
		}
	}
	_, err := m.DM.Load(name, false, table...)
	return err
}

// findCopyJob reads what the parameter was before this agent. A dead one may have
// left its own value behind: then it was the kernel's default.
func findCopyJob() string {
	b, err := os.ReadFile(copyJobParam)
	was := strings.TrimSpace(string(b))
	if err != nil || was == copyJobKiB {
		return "512" // SUB_JOB_SIZE in the kernel's dm-kcopyd.c
	}
	return was
}

func (m *Manager) restoreCopyJob() { _ = os.WriteFile(copyJobParam, []byte(m.copyJob), 0o644) }

// sameTable compares what decides where data goes. The kernel prints a
// thin-pool's features in its own order and number, so of a pool only length,
// devices, block size and what it does when it is full count; a mirror's log
// parameters are printed in full.
func sameTable(a, b []dm.Target) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		pa, pb := a[i].Params, b[i].Params
		if a[i].Type == "thin-pool" {
			if strings.Contains(pa, dm.ErrorIfNoSpace) != strings.Contains(pb, dm.ErrorIfNoSpace) {
				return false
			}
			pa, pb = firstWords(pa, 3), firstWords(pb, 3)
		}
		if a[i].Start != b[i].Start || a[i].Length != b[i].Length || a[i].Type != b[i].Type || strings.Join(strings.Fields(pa), " ") != strings.Join(strings.Fields(pb), " ") {
			return false
		}
	}
	return true
}

func firstWords(s string, n int) string {
	f := strings.Fields(s)
	return strings.Join(f[:min(n, len(f))], " ")
}

// remove takes a device down; one that is not there is success.
func (m *Manager) remove(name string) error {
	if err := m.DM.Remove(name); err != nil && !errors.Is(err, dm.ErrNotFound) {
		return err
	}
	return nil
}

// linears maps the segments of a kind one after the other.
func (m *Manager) linears(ctx context.Context, b *backing, k format.Kind) ([]dm.Target, error) {
	var out []dm.Target
	var at uint64
	total := b.head.Bytes(k)
	if k == format.Data {
		total = total / b.head.BlockBytes * b.head.BlockBytes
	}
	for _, s := range b.head.Segments {
		if s.Kind != k || at*sector >= total {
			continue
		}
		dev, err := m.member(ctx, b.vols[s.Member], s.Start+s.Length)
		if err != nil {
			return nil, err
		}
		length := min(s.Length, total-at*sector) / sector
		out = append(out, dm.Linear(at, length, dev, s.Start/sector))
		at += length
	}
	return out, nil
}

// member gives a volume's device number, proven by the device itself, and
// refuses one that is smaller than its header says.
func (m *Manager) member(ctx context.Context, id string, need uint64) (dm.Dev, error) {
	v, err := m.Locator.Open(ctx, id)
	if err != nil {
		return dm.Dev{}, err
	}
	defer v.Close()
	n, err := v.Bytes()
	if err != nil {
		return dm.Dev{}, err
	}
	if uint64(n) < need {
		return dm.Dev{}, contract.Refuse(contract.VolumeDamaged, "the volume has %d bytes, its header uses %d", n, need).
			WithVolume(id).WithNext("check that the volume is the right one and not a smaller copy")
	}
	return v.Dev(), nil
}

// build makes a backing's devices, up to its thin device. A fresh backing's pool
// is first written by fresh, an existing one (nil) is checked. origin, when not
// nil, is read where the thin device has nothing of its own.
func (m *Manager) build(ctx context.Context, b *backing, fresh func(meta dm.Info) error, origin *dm.Dev) (dm.Info, error) {
	name := stackName(b.head)
	metaTable, err := m.linears(ctx, b, format.Meta)
	if err != nil {
		return dm.Info{}, err
	}
	meta, err := m.ensureSlices(b, format.Meta, metaTable)
	if err != nil {
		return dm.Info{}, err
	}
	_, poolErr := m.DM.Info(name + partPool)
	running := poolErr == nil
	if !running {
		if fresh != nil {
			err = fresh(meta)
		} else {
			err = checkPool(ctx, meta)
		}
		if err != nil {
			return dm.Info{}, withVolume(err, b)
		}
	}
	if err := m.buildPool(ctx, b); err != nil {
		return dm.Info{}, err
	}
	if fresh != nil {
		if _, err := m.DM.Message(name+partPool, 0, "create_thin %d", b.head.ThinID); err != nil && !errors.Is(err, unix.EEXIST) {
			return dm.Info{}, err
		}
	}
	pool, err := m.DM.Info(name + partPool)
	if err != nil {
		return dm.Info{}, err
	}
	return m.ensure(name, dm.Thin(b.head.SizeBytes/sector, pool.Dev, b.head.ThinID, origin))
}

// buildPool makes, or grows, the pool's data device and the pool itself. New
// blocks are zeroed (no skip_block_zeroing): otherwise the bytes around a small
// write to a new block are whatever each volume had there, the two legs of a
// move differ in bytes nobody wrote, and the promise given to ext4 by mkfs, that
// untouched inode tables read as zeros, would be broken by recycled blocks.
func (m *Manager) buildPool(ctx context.Context, b *backing) error {
	name := stackName(b.head)
	dataTable, err := m.linears(ctx, b, format.Data)
	if err != nil {
		return err
	}
	metaTable, err := m.linears(ctx, b, format.Meta)
	if err != nil {
		return err
	}
	meta, err := m.ensureSlices(b, format.Meta, metaTable)
	if err != nil {
		return err
	}
	data, err := m.ensureSlices(b, format.Data, dataTable)
	if err != nil {
		return err
	}
	last := dataTable[len(dataTable)-1]
	_, err = m.ensure(name+partPool, dm.ThinPool(last.Start+last.Length, meta.Dev, data.Dev,
		b.head.BlockBytes/sector, m.markBlocks(b)))
	if err != nil {
		return err
	}
	// A pool learns of larger metadata only when it is resumed with its table
	// loaded again.
	_, t, err := m.DM.Status(name + partPool)
	if err != nil {
		return err
	}
	st, err := dm.ParsePool(t[0].Params)
	if err != nil {
		return err
	}
	if st.Failed || st.Mode == "ro" {
		return contract.Refuse(contract.VolumeDamaged, "the pool of generation %d has failed (%s)", b.head.Generation, t[0].Params).
			WithDisk(contract.DiskID(b.head.Disk)).WithVolume(b.vols[0]).WithNext("snapshot the volume, then see docs/recovery.md")
	}
	if st.TotalMeta*thinmap.BlockBytes+(4<<20) < b.head.Bytes(format.Meta) && b.head.Bytes(format.Meta) < 15<<30 {
		_, table, err := m.DM.Table(name + partPool)
		if err == nil {
			_, err = m.replace(name+partPool, table...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takeDown removes a backing's devices.
func (m *Manager) takeDown(h *format.Header) error {
	name := stackName(h)
	for _, n := range []string{name + partLogA, name + partLogB, name + partGate, name, name + partPool, name + partData, name + partMeta} {
		if err := m.remove(n); err != nil {
			return err
		}
	}
	return nil
}

// openDevice opens a device of ours, O_DIRECT, and proves that the node it
// opened is that device.
func openDevice(i dm.Info, flags int) (*os.File, error) {
	f, err := os.OpenFile(dm.DevPath(i), flags|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFBLK || unix.Major(st.Rdev) != i.Dev.Major || unix.Minor(st.Rdev) != i.Dev.Minor {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not device %s (%s)", f.Name(), i.Name, i.Dev)
	}
	return f, nil
}

// zeroSuperblock makes the pool create its metadata anew.
func zeroSuperblock(meta dm.Info) error {
	f, err := openDevice(meta, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(volume.AlignedBuffer(thinmap.BlockBytes), 0); err != nil {
		return fmt.Errorf("clear pool metadata: %w", err)
	}
	return f.Sync()
}

// premap writes metadata in which the used regions are mapped already, one after
// the other. The copy then changes no mapping, so the flush after each region
// costs no commit of the pool's metadata, and it is written in one piece. What a
// mapped block holds is whatever the volume had there: that is never read, since
// each of these regions is dirty in both logs until it is copied whole.
func premap(ctx context.Context, meta dm.Info, h *format.Header, used format.Bitmap, count uint64) error {
	if err := zeroSuperblock(meta); err != nil {
		return err
	}
	perRegion, total := h.RegionBytes/h.BlockBytes, (h.SizeBytes+h.BlockBytes-1)/h.BlockBytes
	var ranges strings.Builder
	var mapped uint64
	for r := uint64(0); r < count; {
		if !used.Get(r) {
			r++
			continue
		}
		first := r
		for r < count && used.Get(r) {
			r++
		}
		begin := first * perRegion
		length := min(r*perRegion, total) - begin
		fmt.Fprintf(&ranges, "<range_mapping origin_begin=\"%d\" data_begin=\"%d\" length=\"%d\" time=\"0\"/>\n", begin, mapped, length)
		mapped += length
	}
	if room := h.Bytes(format.Data) / h.BlockBytes; mapped > room {
		return noRoom(h, mapped, room)
	}
	xml := fmt.Sprintf("<superblock uuid=\"\" time=\"0\" transaction=\"0\" flags=\"0\" version=\"2\" data_block_size=\"%d\" nr_data_blocks=\"%d\">\n"+
		"<device dev_id=\"%d\" mapped_blocks=\"%d\" transaction=\"0\" creation_time=\"0\" snap_time=\"0\">\n%s</device>\n</superblock>\n",
		h.BlockBytes/sector, h.Bytes(format.Data)/h.BlockBytes, h.ThinID, mapped, ranges.String())
	// thin_restore wants a regular file; the root of a node may be read-only.
	fd, err := unix.MemfdCreate("ebb-map", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("map of the new pool: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ebb-map")
	defer f.Close()
	if _, err := f.WriteString(xml); err != nil {
		return fmt.Errorf("map of the new pool: %w", err)
	}
	cmd := exec.CommandContext(ctx, "thin_restore", "-q", "-i", "/proc/self/fd/3", "-o", dm.DevPath(meta))
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return contract.Refuse(contract.NodeUnsupported, "thin_restore is missing").WithNext("install thin-provisioning-tools on the node")
	}
	if err != nil {
		return fmt.Errorf("thin_restore: %w: %s", err, strings.TrimSpace(string(out)))
	}
	dev, err := openDevice(meta, os.O_RDWR)
	if err != nil {
		return err
	}
	defer dev.Close()
	if err := thinmap.MakeExtendable(dev, volume.AlignedBuffer(thinmap.BlockBytes)); err != nil {
		return fmt.Errorf("map of the new pool: %w", err)
	}
	return dev.Sync()
}

// noRoom refuses a move whose new backing has become too small, in pool blocks.
func noRoom(h *format.Header, blocks, room uint64) *contract.Refusal {
	return contract.Refuse(contract.BelowUsed, "the disk has filled since the move was prepared: %d bytes are to be copied, the new backing has room for %d", blocks*h.BlockBytes, room*h.BlockBytes).
		WithDisk(contract.DiskID(h.Disk)).WithVolume(h.Members[0].Volume).WithNext("run the operation again")
}

// checkPool runs thin_check: dm-thin's metadata is crash-consistent, so damage
// here is a failing volume or a foreign hand, and nothing is repaired unasked.
func checkPool(ctx context.Context, meta dm.Info) error {
	out, err := exec.CommandContext(ctx, "thin_check", "-q", "--clear-needs-check-flag", dm.DevPath(meta)).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound):
		return contract.Refuse(contract.NodeUnsupported, "thin_check is missing").WithNext("install thin-provisioning-tools on the node")
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return contract.Refuse(contract.VolumeDamaged, "thin_check found damaged pool metadata: %v: %s", err, strings.TrimSpace(string(out))).
		WithNext("snapshot the volume, then see docs/recovery.md on thin_repair")
}

func withVolume(err error, b *backing) error {
	var r *contract.Refusal
	if errors.As(err, &r) && r.Volume == "" {
		return r.WithDisk(contract.DiskID(b.head.Disk)).WithVolume(b.vols[0])
	}
	return err
}
