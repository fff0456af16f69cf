package disk

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/thinmap"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// rate is an average of how fast a pool fills, over about two minutes.
type rate struct {
	at    time.Time
	used  int64
	value float64 // bytes per second
}

func (r *rate) add(now time.Time, used int64) float64 {
	if dt := now.Sub(r.at).Seconds(); !r.at.IsZero() && dt > 0 {
		weight := 1 - math.Exp(-dt/120)
		r.value += weight * (max(0, float64(used-r.used)/dt) - r.value)
	}
	r.at, r.used = now, used
	return r.value
}

// poolState reads a backing's pool from the kernel.
func (m *Manager) poolState(b *backing) (dm.PoolStatus, error) {
	_, t, err := m.DM.Status(stackName(b.head) + partPool)
	if err != nil {
		return dm.PoolStatus{}, err
	}
	if len(t) != 1 || t[0].Type != "thin-pool" { // it has no table yet
		return dm.PoolStatus{}, fmt.Errorf("%s%s is no pool (yet)", stackName(b.head), partPool)
	}
	return dm.ParsePool(t[0].Params)
}

// givenUp tells that the kernel has given a pool up: its metadata cannot be written any
// more, or not be read either.
func givenUp(st dm.PoolStatus) bool { return st.Failed || st.Mode == "ro" }

// Measure reads what a disk uses, from the kernel. It changes nothing.
func (m *Manager) Measure(ctx context.Context, d contract.DiskID) (contract.Measurement, error) {
	h, err := m.lockLive(ctx, d)
	if err != nil {
		return contract.Measurement{}, err
	}
	defer h.mu.Unlock()
	if h.view == nil { // the first assembly
		if err := h.swapped(ctx, d); err != nil {
			return contract.Measurement{}, err
		}
	}
	if h.view == nil {
		v, err := m.look(ctx, d)
		if err != nil {
			return contract.Measurement{}, err
		}
		if err := m.standing(d); err != nil {
			return contract.Measurement{}, err
		}
		h.view = v
	}
	return m.measure(ctx, d, h)
}

func (m *Manager) measure(ctx context.Context, d contract.DiskID, h *handle) (contract.Measurement, error) {
	a := h.view.active
	st, err := m.poolState(a)
	if err != nil {
		return contract.Measurement{}, err
	}
	if st.Error {
		return contract.Measurement{}, fmt.Errorf("disk %s: the kernel cannot read the counters of the pool of generation %d", d, a.head.Generation)
	}
	if givenUp(st) {
		return contract.Measurement{}, contract.Refuse(contract.VolumeFailing, "the pool of generation %d has failed", a.head.Generation).
			WithDisk(d).WithVolume(a.vols[0]).WithNext("look for the reason in the node's kernel log, then see docs/recovery.md")
	}
	top, err := m.DM.Info(topName(d))
	if err != nil {
		return contract.Measurement{}, err
	}
	block := int64(a.head.BlockBytes)
	out := contract.Measurement{
		Disk: d, Name: a.head.Name, Node: m.Node, At: time.Now().UTC(), Device: "/dev/mapper/" + topName(d), Generation: a.head.Generation,
		SizeBytes: int64(a.head.SizeBytes), BlockBytes: block,
		PoolBytes: int64(st.TotalData) * block, PoolUsedBytes: int64(st.UsedData) * block,
		MetaBytes: int64(st.TotalMeta) * thinmap.BlockBytes, MetaUsedBytes: int64(st.UsedMeta) * thinmap.BlockBytes,
		Full:       st.Mode == "out_of_data_space",
		Filesystem: contract.Filesystem(a.head.Filesystem),
	}
	out.FillRate = h.rate.add(out.At, out.PoolUsedBytes)
	if out.Members, err = m.members(ctx, a); err != nil {
		return out, err
	}
	for _, mem := range out.Members {
		out.BackingBytes += mem.Bytes
	}
	out.OverheadBytes = out.BackingBytes - out.PoolBytes
	if mnt, ok, err := mountOf(top.Dev); err != nil {
		return out, err
	} else if ok {
		out.MountPath = mnt.path
		if out.FilesystemBytes, out.FilesystemUsedBytes, err = h.ballast.usage(mnt); err != nil {
			return out, err
		}
	}
	m.remember(ctx, h, out, top)
	if n := h.view.incoming; n != nil && n.head.Move != createMove {
		mv, err := m.moveState(ctx, d, h)
		if err != nil {
			return out, err
		}
		out.Move = mv
	} else if o := m.retiring(h.view); o != nil && m.stands(o) {
		out.Move = &contract.MoveState{Move: a.head.Move, Generation: a.head.Generation, Phase: contract.PhaseCommit}
	}
	return out, nil
}

// retiring is the generation that a committed move left behind, while its
// volumes are still attached.
func (m *Manager) retiring(v *view) *backing {
	for _, o := range v.older {
		if v.active.head.Move != "" && o.vols[0] == v.active.head.Peer {
			return o
		}
	}
	return nil
}

// stands tells whether anything of an old generation is still to be taken down.
func (m *Manager) stands(o *backing) bool {
	if o.head.Role != format.Retired {
		return true
	}
	_, err := m.DM.Info(stackName(o.head) + partPool)
	return !errors.Is(err, dm.ErrNotFound)
}

func (m *Manager) members(ctx context.Context, b *backing) ([]contract.Member, error) {
	var out []contract.Member
	for i, id := range b.vols {
		dev, err := m.Locator.Open(ctx, id)
		if err != nil {
			return nil, err
		}
		n, err := dev.Bytes()
		_ = dev.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, contract.Member{Volume: id, Index: i, Bytes: int64(b.head.Members[i].Bytes), DeviceBytes: n})
	}
	return out, nil
}

// moveState describes the move that the incoming generation belongs to, if it is one.
func (m *Manager) moveState(ctx context.Context, d contract.DiskID, h *handle) (*contract.MoveState, error) {
	n := h.view.incoming
	out := &contract.MoveState{
		Move: n.head.Move, Generation: n.head.Generation, Phase: contract.PhasePrepare,
		RegionBytes: int64(n.head.RegionBytes), CopyBytes: int64(n.head.CopyRegions * n.head.RegionBytes), ThrottleMiBs: int64(n.head.ThrottleMiBs), Paused: n.head.Paused,
	}
	if f := h.failure[n.head.Move]; f != nil {
		out.Phase, out.Failure = contract.PhaseAbort, f.Error()
	}
	var err error
	if out.Members, err = m.members(ctx, n); err != nil { // it may be dead: the disk is not
		if errors.Is(err, volume.ErrNotAttached) && !h.view.peered() {
			return nil, nil // the view is older than the end of what an aborted move left
		}
		out.Members = nil
	}
	if st, err := m.poolState(n); err == nil {
		block := int64(n.head.BlockBytes)
		out.PoolBytes, out.PoolUsedBytes, out.Full = int64(st.TotalData)*block, int64(st.UsedData)*block, st.Mode == "out_of_data_space"
	}
	if all := h.tobring.Load(); all > 0 {
		out.Phase, out.CopyBytes, out.CopiedBytes = contract.PhaseCopy, all, h.brought.Load()
	}
	if st, ok, err := m.mirrorState(d); err != nil {
		return nil, err
	} else if ok && h.view.moving() {
		out.Regions, out.InSync, out.Phase = int64(st.Total), int64(st.InSync), contract.PhaseCopy
		out.CopyBytes = h.before(n.head.Move) + int64(n.head.CopyRegions*n.head.RegionBytes)
		out.CopiedBytes = max(0, out.CopyBytes-int64((st.Total-st.InSync)*n.head.RegionBytes))
		if st.InSync == st.Total {
			out.Phase = contract.PhaseVerify
		}
	}
	return out, nil
}

// mirrorState reads the top device's mirror; ok is false when it is not one.
func (m *Manager) mirrorState(d contract.DiskID) (st dm.MirrorStatus, ok bool, err error) {
	_, t, err := m.DM.Status(topName(d))
	if err != nil {
		return st, false, err
	}
	if len(t) != 1 || t[0].Type != "mirror" {
		return st, false, nil
	}
	st, err = dm.ParseMirror(t[0].Params)
	return st, err == nil, err
}

// blockSize is a new pool's block: 128 KiB, larger where the metadata would not
// fit dm-thin's 16 GiB.
func blockSize(diskBytes uint64) uint64 {
	b := uint64(128 << 10)
	for diskBytes/b*64 > 8<<30 {
		b *= 2
	}
	return b
}

// newHeader is a header for a new backing over blank volumes.
func newHeader(d contract.DiskID, gen, size, block uint64) *format.Header {
	return &format.Header{
		Disk: string(d), SizeBytes: size, Generation: gen, Born: gen, Role: format.Incoming,
		BlockBytes: block, CreatedNS: time.Now().UnixNano(),
	}
}
