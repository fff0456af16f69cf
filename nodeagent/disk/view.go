package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ebb-storage/ebb/internal/contract"
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
	incoming *backing   // the incoming generation, if one is complete; nil: none
	older    []*backing // active or retired generations below active
}

// find is one attached volume with what its header says.
type find struct {
	volume.Candidate
	head *format.Header
	err  error // why head is nil
}

// scan reads the headers of all attached volumes.
func (m *Manager) scan(ctx context.Context) ([]find, error) {
	cands, err := m.Locator.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("find volumes: %w", err)
	}
	out := make([]find, 0, len(cands))
	for _, c := range cands {
		head, err := m.readHeader(ctx, c.ID)
		out = append(out, find{c, head, err})
	}
	return out, nil
}

// readHeader reads a volume's newest header.
func (m *Manager) readHeader(ctx context.Context, id string) (*format.Header, error) {
	dev, err := m.Locator.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	return readHeader(dev)
}

func readHeader(dev *volume.Device) (*format.Header, error) {
	a, b := volume.AlignedBuffer(format.HeaderBytes), volume.AlignedBuffer(format.HeaderBytes)
	if _, err := dev.ReadAt(a, format.HeaderOffset0); err != nil {
		return nil, fmt.Errorf("read header of %s: %w", dev.ID(), err)
	}
	if _, err := dev.ReadAt(b, format.HeaderOffset1); err != nil {
		return nil, fmt.Errorf("read header of %s: %w", dev.ID(), err)
	}
	return format.Newest(a, b)
}

// look finds a disk among the attached volumes. It refuses whatever could make
// two truths of one disk, and changes nothing.
func (m *Manager) look(ctx context.Context, d contract.DiskID) (*view, error) {
	finds, err := m.scan(ctx)
	if err != nil {
		return nil, err
	}
	return lookIn(finds, d)
}

func lookIn(finds []find, d contract.DiskID) (*view, error) {
	type place struct {
		gen   uint64
		index uint32
		move  string // of an incoming member: leftovers of earlier moves may share its generation
	}
	at := func(h *format.Header, index uint32) place {
		p := place{gen: h.Generation, index: index}
		if h.Role == format.Incoming {
			p.move = h.Move
		}
		return p
	}
	places := map[place]find{}
	var clones []find
	for _, f := range finds {
		if f.head == nil || f.head.Disk != string(d) {
			continue
		}
		if f.head.Members[f.head.Index].Volume != f.ID {
			clones = append(clones, f)
			continue
		}
		p := at(f.head, f.head.Index)
		if other, ok := places[p]; ok {
			return nil, contract.Refuse(contract.DuplicateGeneration, "volumes %s and %s both say they are member %d of generation %d",
				other.ID, f.ID, p.index, p.gen).WithDisk(d).WithVolume(f.ID).
				WithNext("detach the one that does not belong here; compare the tags %s and %s in EC2", contract.TagDisk, contract.TagGeneration)
		}
		places[p] = f
	}
	for _, c := range clones {
		p := at(c.head, c.head.Index)
		if o, ok := places[p]; ok {
			return nil, contract.Refuse(contract.DuplicateGeneration, "volume %s is a copy of %s, which is attached too", c.ID, o.ID).
				WithDisk(d).WithVolume(c.ID).WithNext("detach %s", c.ID)
		}
	}
	v := &view{}
	var missing *contract.Refusal
	var incoming []*backing
	for p, f := range places {
		if p.index != 0 {
			continue
		}
		b := &backing{head: f.head}
		whole := true
		for i, mem := range f.head.Members {
			g, ok := places[at(f.head, uint32(i))]
			if !ok || g.ID != mem.Volume {
				whole = false
				if f.head.Role == format.Active {
					missing = contract.Refuse(contract.DiskIncomplete, "volume %s, member %d of generation %d, is not attached", mem.Volume, i, p.gen).
						WithDisk(d).WithVolume(mem.Volume).WithNext("attach it to this node")
				}
				break
			}
			b.vols = append(b.vols, mem.Volume)
		}
		switch {
		case !whole:
		case f.head.Role == format.Active && (v.active == nil || v.active.head.Generation < p.gen):
			if v.active != nil {
				v.older = append(v.older, v.active)
			}
			v.active = b
		case f.head.Role == format.Active, f.head.Role == format.Retired:
			v.older = append(v.older, b)
		default:
			incoming = append(incoming, b)
		}
	}
	slices.SortFunc(incoming, func(a, b *backing) int { return cmp.Compare(a.head.Generation, b.head.Generation) })
	for _, b := range incoming { // the one of the active generation's move, else the highest
		if v.incoming == nil || v.active == nil || v.active.head.Move == "" || v.incoming.head.Move != v.active.head.Move {
			v.incoming = b
		}
	}
	slices.SortFunc(v.older, func(a, b *backing) int { return cmp.Compare(a.head.Generation, b.head.Generation) })
	if missing != nil { // an incomplete active generation may be the newest: never fall back to an older one
		return nil, missing
	}
	if v.active == nil && v.incoming == nil && len(clones) > 0 {
		c := clones[0]
		return nil, contract.Refuse(contract.VolumeClone, "the header names volume %s: this one was made from its snapshot", c.head.Members[c.head.Index].Volume).
			WithDisk(d).WithVolume(c.ID).WithNext("attach the original volume; a copy is used by restoring it as a disk of its own")
	}
	if v.active == nil && v.incoming != nil && v.incoming.head.Move != createMove {
		return nil, contract.Refuse(contract.DiskIncomplete, "only the incoming generation %d is attached; the disk's data is on volume %s",
			v.incoming.head.Generation, v.incoming.head.Peer).WithDisk(d).WithVolume(v.incoming.head.Peer).WithNext("attach %s to this node", v.incoming.head.Peer)
	}
	if v.active == nil && v.incoming == nil && len(v.older) > 0 {
		o := v.older[len(v.older)-1]
		return nil, contract.Refuse(contract.DiskIncomplete, "only the retired generation %d is attached", o.head.Generation).
			WithDisk(d).WithVolume(o.vols[0]).WithNext("attach the volumes tagged %s=active", contract.TagRole)
	}
	// I5: between "committing" and the peer's header there is a moment in which
	// the peer may be the truth. Without seeing it nobody can know.
	if a := v.active; a != nil && a.head.MovePhase == format.Committing && !v.has(a.head.Peer) {
		return nil, contract.Refuse(contract.DiskIncomplete, "a move to generation %d was being committed; volume %s may hold the newest data", a.head.PeerGen, a.head.Peer).
			WithDisk(d).WithVolume(a.head.Peer).WithNext("attach %s to this node", a.head.Peer)
	}
	if v.active == nil && v.incoming == nil {
		for _, f := range finds {
			if errors.Is(f.err, format.ErrDamaged) || errors.Is(f.err, format.ErrNewer) {
				return nil, headerRefusal(f.ID, f.err).WithDisk(d)
			}
		}
		return nil, contract.Refuse(contract.DiskUnknown, "no attached volume belongs to it").WithDisk(d).
			WithNext("attach the volumes tagged %s=%s to this node", contract.TagDisk, d)
	}
	return v, nil
}

// has tells whether volume id is member 0 of the incoming or an older backing.
func (v *view) has(id string) bool {
	return v.incoming != nil && v.incoming.vols[0] == id
}

// moving tells that the incoming generation belongs to the move that the active
// one is in, and that its log can be trusted (I6).
func (v *view) moving() bool {
	a, n := v.active, v.incoming
	return a != nil && n != nil && a.head.Move != "" && n.head.Move == a.head.Move && n.head.MovePhase == format.Copying
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
