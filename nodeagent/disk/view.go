package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

// backing is a complete set of volumes of one generation.
type backing struct {
	head *format.Header // member 0's: the authority
	vols []string       // volume ids by member index
}

// view is a disk as the headers of the attached volumes show it.
type view struct {
	active   *backing   // highest complete active generation; nil: none
	incoming *backing   // the complete incoming generation that counts; nil: none
	older    []*backing // complete generations that are retired, or should be

	incomings []*backing // all complete ones, oldest first

	// suspect refuses the active backing, unless it is known from elsewhere that it
	// is the newest.
	suspect error
}

// look finds a disk among the attached volumes. It refuses whatever could make
// two truths of one disk, and changes nothing.
func (m *Manager) look(ctx context.Context, d contract.DiskID) (*view, error) {
	finds, err := m.scan(ctx)
	if err != nil {
		return nil, err
	}
	return m.lookAmong(finds, d)
}

func (m *Manager) lookAmong(finds []find, d contract.DiskID) (*view, error) {
	st, mirrored, err := m.mirrorState(d)
	if err != nil && !errors.Is(err, dm.ErrNotFound) {
		return nil, err
	}
	here := running{mirrored: mirrored, newDead: mirrored && len(st.Health) > 0 && st.Health[0] == 'A' && !st.AllAlive()}
	if _, t, err := m.DM.Table(topName(d)); err == nil && len(t) == 1 && t[0].Type == "linear" {
		here.over = strings.Fields(t[0].Params)[0]
	}
	v, err := lookIn(finds, d, here)
	if err != nil || v.suspect == nil {
		return v, err
	}
	// The disk runs over just this backing here: it was committed by this node.
	if thin, e := m.DM.Info(stackName(v.active.head)); e == nil && thin.Dev.String() == here.over {
		return v, nil
	}
	return nil, v.suspect
}

// running is what of a disk runs on this node.
type running struct {
	mirrored bool   // its mirror
	newDead  bool   // whose old leg is alive, and the new one or its log is not
	over     string // the device under its top device, when that is linear
}

// lookIn is look on given volumes. While the disk's mirror runs on this node its
// old backing has every acknowledged write, whatever the headers of an unfinished
// commit leave open; and when the new leg has died it is the only one that has.
//
// Member 0's header is the authority on its backing. The others are written
// before it, so after a crash in between they may be a step ahead: they are
// known by the volume id that member 0 lists, their place and the generation
// they were born as, and nothing else they say counts.
//
// A copy beside its original, restored from a snapshot, is refused before the disk
// is brought up. It holds back nothing of a disk that is up: the volume id in its
// header is not its own.
func lookIn(finds []find, d contract.DiskID, here running) (*view, error) {
	ours, broken := map[string]find{}, map[string]error{}
	var ids []string
	var clones []find
	for _, f := range finds {
		switch {
		case f.was == d: // it may be any part of the disk
			return nil, fmt.Errorf("disk %s: %w", d, f.err)
		case f.head == nil && !errors.Is(f.err, format.ErrBlank) && !errors.Is(f.err, format.ErrForeign):
			broken[f.ID] = f.err
		case f.head == nil || f.head.Disk != string(d):
		case f.head.Members[f.head.Index].Volume != f.ID:
			clones = append(clones, f)
		default:
			ours[f.ID] = f
			ids = append(ids, f.ID)
		}
	}
	slices.Sort(ids)
	for _, c := range clones {
		if o, ok := ours[c.head.Members[c.head.Index].Volume]; ok && !here.mirrored && here.over == "" {
			return nil, contract.Refuse(contract.DuplicateGeneration, "volume %s is a copy of %s, which is attached too", c.ID, o.ID).
				WithDisk(d).WithVolume(c.ID).WithNext("detach %s", c.ID)
		}
	}
	// absent refuses for want of a volume.
	absent := func(id, why string, args ...any) error {
		switch err := broken[id]; {
		case errors.Is(err, errMute):
			return fmt.Errorf("disk %s: %w", d, err)
		case err != nil:
			return headerRefusal(id, err).WithDisk(d)
		}
		return contract.Refuse(contract.DiskIncomplete, why, args...).WithDisk(d).WithVolume(id).WithNext("attach %s to this node", id)
	}
	v := &view{}
	var lacks string    // the volume that the newest active backing lacks
	var newest *backing // active, perhaps not complete
	var actives []*backing
	for _, id := range ids {
		h := ours[id].head
		if h.Index != 0 {
			continue
		}
		b := &backing{head: h}
		missing := ""
		for i, mem := range h.Members {
			if g, ok := ours[mem.Volume]; !ok || g.head.Born != h.Born || int(g.head.Index) != i {
				missing = mem.Volume
				break
			}
			b.vols = append(b.vols, mem.Volume)
		}
		switch h.Role {
		case format.Active:
			if newest != nil && newest.head.Generation == h.Generation {
				return nil, contract.Refuse(contract.DuplicateGeneration, "volumes %s and %s both say they are generation %d",
					newest.head.Members[0].Volume, id, h.Generation).WithDisk(d).WithVolume(id).
					WithNext("detach the one that does not belong here; compare the tags %s and %s in EC2", contract.TagDisk, contract.TagGeneration)
			}
			if newest == nil || newest.head.Generation < h.Generation {
				newest, lacks = b, missing
			}
			if missing == "" {
				actives = append(actives, b)
			}
		case format.Retired:
			if missing == "" {
				v.older = append(v.older, b)
			}
		case format.Incoming:
			if missing == "" {
				v.incomings = append(v.incomings, b)
			}
		}
	}
	if here.newDead && newest != nil {
		for _, b := range actives {
			if b != newest && b.head.MovePhase == format.Committing && b.head.Peer == newest.head.Members[0].Volume {
				if lacks == "" {
					v.older = append(v.older, newest)
				}
				newest, lacks = b, ""
				break
			}
		}
		actives = slices.DeleteFunc(actives, func(b *backing) bool { return slices.Contains(v.older, b) })
	}
	for _, id := range ids { // a part of a backing whose authority is not here may be the newest
		h := ours[id].head
		if _, ok := ours[h.Members[0].Volume]; !ok && h.Role == format.Active && !here.newDead && (newest == nil || newest.head.Generation < h.Generation) {
			return nil, absent(h.Members[0].Volume, "volume %s, member 0 of generation %d, is not attached", h.Members[0].Volume, h.Generation)
		}
	}
	if lacks != "" { // never fall back to an older one
		return nil, absent(lacks, "volume %s of generation %d is not attached", lacks, newest.head.Generation)
	}
	v.active = newest
	for _, b := range actives {
		if b != newest {
			v.older = append(v.older, b)
		}
	}
	slices.SortStableFunc(v.older, func(a, b *backing) int { return cmp.Compare(a.head.Generation, b.head.Generation) })
	slices.SortStableFunc(v.incomings, func(a, b *backing) int { return cmp.Compare(a.head.CreatedNS, b.head.CreatedNS) })
	if n := len(v.incomings); n > 0 {
		v.incoming = v.incomings[n-1]
	}
	if v.active == nil {
		if err := v.headless(d, finds, clones, absent); err != nil {
			return nil, err
		}
		return v, nil
	}
	a := v.active.head
	if a.MovePhase != format.NoMove { // only the recorded one counts
		v.incoming = nil
		for _, b := range v.incomings {
			if b.vols[0] == a.Peer && b.head.Move == a.Move {
				v.incoming = b
			}
		}
	}
	_, peer := ours[a.Peer]
	switch {
	case here.mirrored || peer || a.Peer == "":
	case a.MovePhase == format.Committing:
		// I5: between "committing" and the peer's header there is a moment in which
		// the peer may be the truth. Without seeing it nobody can know.
		return nil, absent(a.Peer, "a move to generation %d was being committed; volume %s may hold the newest data", a.PeerGen, a.Peer)
	case a.MovePhase == format.NoMove && errors.Is(broken[a.Peer], errMute):
		v.suspect = fmt.Errorf("disk %s: %w", d, broken[a.Peer])
	case a.MovePhase == format.NoMove && broken[a.Peer] != nil:
		// An abort whose commit had an uncertain end lifts the old backing above
		// this one (see fallBack): its header must be seen while it is here.
		v.suspect = contract.Refuse(contract.VolumeFailing, "the header of volume %s, which may be newer than generation %d, cannot be read: %v", a.Peer, a.Generation, broken[a.Peer]).
			WithDisk(d).WithVolume(a.Peer).WithNext("check the volume's status in EC2; when the disk's history says that the move was committed, detach %s", a.Peer)
	}
	return v, nil
}

// headless says why no generation can be used. Only one that is being made is no
// error.
func (v *view) headless(d contract.DiskID, finds, clones []find, absent func(string, string, ...any) error) error {
	if v.incoming != nil && v.incoming.head.Move == createMove {
		return nil
	}
	for _, f := range finds {
		if mute(f) && f.was == "" {
			return fmt.Errorf("disk %s: no volume that answers has its data: %w", d, f.err)
		}
	}
	switch {
	case v.incoming != nil:
		peer := v.incoming.head.Peer
		return absent(peer, "only the incoming generation %d is attached; the disk's data is on volume %s", v.incoming.head.Generation, peer)
	case len(v.older) > 0:
		o := v.older[len(v.older)-1]
		return contract.Refuse(contract.DiskIncomplete, "only the retired generation %d is attached", o.head.Generation).
			WithDisk(d).WithVolume(o.vols[0]).WithNext("attach the volumes tagged %s=active", contract.TagRole)
	case len(clones) > 0:
		c := clones[0]
		return contract.Refuse(contract.VolumeClone, "the header names volume %s: this one was made from its snapshot", c.head.Members[c.head.Index].Volume).
			WithDisk(d).WithVolume(c.ID).WithNext("detach it and attach the original volume; a copy is brought up by hand alone, as docs/recovery.md says")
	}
	for _, f := range finds {
		if errors.Is(f.err, format.ErrDamaged) || errors.Is(f.err, format.ErrNewer) {
			return headerRefusal(f.ID, f.err).WithDisk(d)
		}
	}
	return contract.Refuse(contract.DiskUnknown, "no attached volume belongs to it").WithDisk(d).
		WithNext("attach the volumes tagged %s=%s to this node", contract.TagDisk, d)
}

// prefer makes the incoming backing of a move the view's, when there is one:
// volumes of earlier moves may still be attached. A move that is recorded in the
// active header is not displaced.
func (v *view) prefer(move string) {
	if v.active != nil && v.active.head.MovePhase != format.NoMove {
		return
	}
	for _, b := range slices.Backward(v.incomings) {
		if b.head.Move == move {
			v.incoming = b
			return
		}
	}
}

// forget drops the incoming backing of a move that was aborted. Its header may say
// incoming for ever: the volume may have failed.
func (v *view) forget(move string) {
	v.incomings = slices.DeleteFunc(v.incomings, func(b *backing) bool { return b.head.Move == move })
	if v.incoming != nil && v.incoming.head.Move == move {
		v.incoming = nil
	}
}

// peered tells that the incoming generation is the one that the active header
// has recorded.
func (v *view) peered() bool {
	a, n := v.active, v.incoming
	return a != nil && n != nil && a.head.MovePhase != format.NoMove && n.head.Move == a.head.Move && n.vols[0] == a.head.Peer
}

// moving tells that the incoming generation belongs to the move that the active
// one is in, and that its log can be trusted (I6).
func (v *view) moving() bool {
	return v.peered() && v.incoming.head.MovePhase == format.Copying
}

// still is a view that does not change any more, to be read without the lock.
func (v *view) still() *view {
	c := &view{}
	if v.active != nil {
		c.active = &backing{head: v.active.head.Clone(), vols: slices.Clone(v.active.vols)}
	}
	if v.incoming != nil {
		c.incoming = &backing{head: v.incoming.head.Clone(), vols: slices.Clone(v.incoming.vols)}
	}
	return c
}

// headerRefusal turns a header's error into what a person can use.
func headerRefusal(id string, err error) *contract.Refusal {
	switch {
	case errors.Is(err, format.ErrNewer):
		return contract.Refuse(contract.FormatNewer, "%v", err).WithVolume(id).WithNext("upgrade the node agent")
	case errors.Is(err, format.ErrDamaged):
		return contract.Refuse(contract.VolumeDamaged, "%v", err).WithVolume(id).WithNext("snapshot the volume, then see docs/recovery.md")
	case errors.Is(err, format.ErrForeign):
		return contract.Refuse(contract.VolumeForeign, "other data is on it").WithVolume(id).WithNext("give ebb a new volume")
	case errors.Is(err, format.ErrBlank):
		return contract.Refuse(contract.VolumeUnformatted, "it has no Ebb header").WithVolume(id).WithNext("check the volume id")
	case errors.Is(err, volume.ErrNotAttached):
		return contract.Refuse(contract.DiskIncomplete, "the volume is not attached").WithVolume(id).WithNext("attach it to this node")
	}
	return contract.Refuse(contract.VolumeFailing, "%v", err).WithVolume(id).WithNext("check the volume's status in EC2")
}

// save writes the backing's header to all its volumes, durably, after change.
// Member 0 is written last: it is the authority. On an error the backing may be
// partly written; repeating is safe.
func (m *Manager) save(ctx context.Context, b *backing, change func(*format.Header)) error {
	h := b.head.Clone()
	change(h)
	h.Sequence++
	h.UpdatedNS = time.Now().UnixNano()
	for i := len(b.vols) - 1; i >= 0; i-- {
		c := h.Clone()
		c.Index = uint32(i)
		if err := m.writeHeader(ctx, b.vols[i], c); err != nil {
			return err
		}
	}
	b.head = h
	return nil
}

// writeHeader writes one header copy, after proving that the volume is the one
// meant.
func (m *Manager) writeHeader(ctx context.Context, id string, h *format.Header) error {
	raw, err := h.Encode()
	if err != nil {
		return err
	}
	dev, err := m.Locator.Open(ctx, id)
	if err != nil {
		return err
	}
	defer dev.Close()
	buf := volume.AlignedBuffer(format.HeaderBytes)
	copy(buf, raw)
	return writeDurably(dev, buf, h.Offset())
}

func writeDurably(dev *volume.Device, buf []byte, off int64) error {
	if err := dev.Verify(); err != nil {
		return err
	}
	if _, err := dev.WriteAt(buf, off); err != nil {
		return fmt.Errorf("write %d bytes at %d of volume %s: %w", len(buf), off, dev.ID(), err)
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("flush volume %s: %w", dev.ID(), err)
	}
	return nil
}
