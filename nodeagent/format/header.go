package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// Version is the newest header format this code reads and the one it writes.
const Version = 1

// Layout of a volume, in bytes from its start. Everything below DataStart is
// the same on every volume, so a volume can be read without knowing anything.
const (
	GuardOffset   = 0         // 512-byte partition table, see Guard
	HeaderBytes   = 4096      // one header copy
	HeaderOffset0 = 64 << 10  // header copy with even sequence numbers
	HeaderOffset1 = 128 << 10 // header copy with odd sequence numbers
	HistoryOffset = 256 << 10
	HistoryBytes  = 256 << 10
	LogAOffset    = 1 << 20
	LogBOffset    = 2 << 20
	LogBytes      = 1 << 20
	DataStart     = 4 << 20 // first byte of pool metadata and data segments
	SectorBytes   = 512
)

// Limits of a header: one 4 KiB block holds them all.
const (
	MaxMembers  = 16
	MaxSegments = 96
	maxName     = 128
	maxPath     = 256
	maxMove     = 64
	maxVolume   = 32
)

// Role of a generation.
type Role uint32

// Roles. Incoming data is not yet proven; Active is the truth unless a higher
// active generation exists; Retired is kept only until its grace period ends.
const (
	Incoming Role = 1
	Active   Role = 2
	Retired  Role = 3
)

func (r Role) String() string {
	switch r {
	case Incoming:
		return "incoming"
	case Active:
		return "active"
	case Retired:
		return "retired"
	}
	return fmt.Sprintf("role(%d)", uint32(r))
}

// MovePhase is how far a move is. It stands in the headers of both generations
// and means different things there.
type MovePhase uint32

// Phases. In an incoming generation: Prepared (formatted, nothing proven) and
// Copying (its log B is valid: the move can be resumed). In an active one:
// Copying (the peer is being filled; this generation is complete) and
// Committing (the peer may already be active: without seeing the peer this
// generation must not be used).
const (
	NoMove     MovePhase = 0
	Prepared   MovePhase = 1
	Copying    MovePhase = 2
	Committing MovePhase = 3
)

// Header describes a volume and, on member 0, the whole backing. Member 0's
// header is the authority on role, size, members and segments; the others
// identify their volume.
type Header struct {
	Sequence   uint64 // higher is newer; parity selects the copy
	Disk       string
	Name       string
	Filesystem string
	MountPath  string // where the agent mounts the disk; empty: it does not
	SizeBytes  uint64 // the disk's own size
	Generation uint64
	Born       uint64 // the generation this backing began as; its device names carry it
	Role       Role
	Index      uint32 // this volume's place among Members

	Move         string // id of the move in progress; empty: none
	MovePhase    MovePhase
	Peer         string // member 0 of the other generation of the move
	PeerGen      uint64
	RegionBytes  uint64 // of the move's log
	CopyRegions  uint64 // regions to copy when the move began
	ThrottleMiBs uint64 // 0: unlimited
	Paused       bool
	Precopying   bool // incoming: its pool is written, and holds what a copy brought so far

	BlockBytes uint64 // pool block
	ThinID     uint32 // device id inside the pool
	CreatedNS  int64  // Unix nanoseconds
	UpdatedNS  int64

	Members  []Member
	Segments []Segment
}

// Flags of a move in a header.
const (
	flagPaused     = 1
	flagPrecopying = 2
)

// Member is one volume of a backing.
type Member struct {
	Volume string
	Bytes  uint64 // of the volume that segments may use
}

// Kind of a segment.
type Kind uint32

// Segment kinds.
const (
	Meta Kind = 1
	Data Kind = 2
)

// Segment is a run of a member that belongs to the pool's metadata or data
// device. Segments of a kind follow each other in the order listed.
type Segment struct {
	Kind   Kind
	Member uint32
	Start  uint64 // bytes from the volume's start
	Length uint64 // bytes
}

// Errors of Parse and Newest. ErrBlank: all zero. ErrForeign: something else is
// there. ErrDamaged: Ebb's magic, but a wrong checksum or an impossible field.
// ErrNewer: written by a later version.
var (
	ErrBlank   = errors.New("no header: the area is blank")
	ErrForeign = errors.New("no header: other data is there")
	ErrDamaged = errors.New("damaged header")
	ErrNewer   = errors.New("header of a newer format version")
)

var (
	magic      = [8]byte{'E', 'B', 'B', 'V', 'O', 'L', 0, 1}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const (
	offName     = 56
	offPath     = offName + maxName
	offFS       = offPath + maxPath
	offFixed    = offFS + 16
	offMove     = offFixed + 112
	offPeer     = offMove + maxMove
	offCounts   = offPeer + maxVolume
	offMembers  = offCounts + 8
	memberSize  = maxVolume + 8
	offSegments = offMembers + MaxMembers*memberSize
	segmentSize = 24
	offCRC      = HeaderBytes - 4
)

// Offset is where the copy with this header's sequence number is written.
func (h *Header) Offset() int64 {
	if h.Sequence%2 == 0 {
		return HeaderOffset0
	}
	return HeaderOffset1
}

// Encode gives the header's 4096 bytes. It refuses a header that Parse would
// not give back.
func (h *Header) Encode() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	b := make([]byte, HeaderBytes)
	le := binary.LittleEndian
	copy(b, magic[:])
	le.PutUint32(b[8:], Version)
	le.PutUint32(b[12:], HeaderBytes)
	le.PutUint64(b[16:], h.Sequence)
	copy(b[24:offName], h.Disk)
	copy(b[offName:offPath], h.Name)
	copy(b[offPath:offFS], h.MountPath)
	copy(b[offFS:offFixed], h.Filesystem)
	f := b[offFixed:offMove]
	le.PutUint64(f[0:], h.SizeBytes)
	le.PutUint64(f[8:], h.Generation)
	le.PutUint32(f[16:], uint32(h.Role))
	le.PutUint32(f[20:], h.Index)
	le.PutUint32(f[24:], uint32(h.MovePhase))
	var flags uint32
	if h.Paused {
		flags |= flagPaused
	}
	if h.Precopying {
		flags |= flagPrecopying
	}
	le.PutUint32(f[28:], flags)
	le.PutUint64(f[32:], h.RegionBytes)
	le.PutUint64(f[40:], h.CopyRegions)
	le.PutUint64(f[48:], h.ThrottleMiBs)
	le.PutUint64(f[56:], h.BlockBytes)
	le.PutUint64(f[64:], h.PeerGen)
	le.PutUint64(f[72:], uint64(h.CreatedNS))
	le.PutUint64(f[80:], uint64(h.UpdatedNS))
	le.PutUint32(f[88:], h.ThinID)
	le.PutUint64(f[96:], h.Born)
	copy(b[offMove:offPeer], h.Move)
	copy(b[offPeer:offCounts], h.Peer)
	le.PutUint32(b[offCounts:], uint32(len(h.Members)))
	le.PutUint32(b[offCounts+4:], uint32(len(h.Segments)))
	for i, m := range h.Members {
		p := b[offMembers+i*memberSize:]
		copy(p[:maxVolume], m.Volume)
		le.PutUint64(p[maxVolume:], m.Bytes)
	}
	for i, s := range h.Segments {
		p := b[offSegments+i*segmentSize:]
		le.PutUint32(p, uint32(s.Kind))
		le.PutUint32(p[4:], s.Member)
		le.PutUint64(p[8:], s.Start)
		le.PutUint64(p[16:], s.Length)
	}
	le.PutUint32(b[offCRC:], crc32.Checksum(b[:offCRC], castagnoli))
	return b, nil
}

// Parse reads one header copy. It accepts any input and never panics.
func Parse(b []byte) (*Header, error) {
	if len(b) < HeaderBytes {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrDamaged, len(b), HeaderBytes)
	}
	b = b[:HeaderBytes]
	if !bytes.Equal(b[:8], magic[:]) {
		if blank(b) {
			return nil, ErrBlank
		}
		return nil, ErrForeign
	}
	le := binary.LittleEndian
	// The version comes first: a later format may move everything else, but not
	// magic, version, length and the checksum in the last four bytes.
	if crc32.Checksum(b[:offCRC], castagnoli) != le.Uint32(b[offCRC:]) {
		return nil, fmt.Errorf("%w: wrong checksum", ErrDamaged)
	}
	if v := le.Uint32(b[8:]); v > Version {
		return nil, fmt.Errorf("%w: version %d, this ebb reads up to %d", ErrNewer, v, Version)
	} else if v == 0 || le.Uint32(b[12:]) != HeaderBytes {
		return nil, fmt.Errorf("%w: version %d, length %d", ErrDamaged, v, le.Uint32(b[12:]))
	}
	f := b[offFixed:offMove]
	h := &Header{
		Sequence:     le.Uint64(b[16:]),
		Disk:         text(b[24:offName]),
		Name:         text(b[offName:offPath]),
		MountPath:    text(b[offPath:offFS]),
		Filesystem:   text(b[offFS:offFixed]),
		SizeBytes:    le.Uint64(f[0:]),
		Generation:   le.Uint64(f[8:]),
		Role:         Role(le.Uint32(f[16:])),
		Index:        le.Uint32(f[20:]),
		MovePhase:    MovePhase(le.Uint32(f[24:])),
		Paused:       le.Uint32(f[28:])&flagPaused != 0,
		Precopying:   le.Uint32(f[28:])&flagPrecopying != 0,
		RegionBytes:  le.Uint64(f[32:]),
		CopyRegions:  le.Uint64(f[40:]),
		ThrottleMiBs: le.Uint64(f[48:]),
		BlockBytes:   le.Uint64(f[56:]),
		PeerGen:      le.Uint64(f[64:]),
		CreatedNS:    int64(le.Uint64(f[72:])),
		UpdatedNS:    int64(le.Uint64(f[80:])),
		ThinID:       le.Uint32(f[88:]),
		Born:         le.Uint64(f[96:]),
		Move:         text(b[offMove:offPeer]),
		Peer:         text(b[offPeer:offCounts]),
	}
	members, segments := le.Uint32(b[offCounts:]), le.Uint32(b[offCounts+4:])
	if members > MaxMembers || segments > MaxSegments {
		return nil, fmt.Errorf("%w: %d members, %d segments", ErrDamaged, members, segments)
	}
	for i := range members {
		p := b[offMembers+i*memberSize:]
		h.Members = append(h.Members, Member{text(p[:maxVolume]), le.Uint64(p[maxVolume:])})
	}
	for i := range segments {
		p := b[offSegments+i*segmentSize:]
		h.Segments = append(h.Segments, Segment{Kind(le.Uint32(p)), le.Uint32(p[4:]), le.Uint64(p[8:]), le.Uint64(p[16:])})
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	return h, nil
}

// Newest picks the current header from a volume's two copies: the valid one
// with the higher sequence number. One damaged or blank copy is a torn write
// and harmless. With no valid copy the error is the most telling of the two.
func Newest(copy0, copy1 []byte) (*Header, error) {
	h0, err0 := Parse(copy0)
	h1, err1 := Parse(copy1)
	for _, err := range []error{err0, err1} {
		if errors.Is(err, ErrNewer) {
			return nil, err // a newer version has been here: hands off
		}
	}
	switch {
	case err0 == nil && err1 == nil:
		if h1.Sequence > h0.Sequence {
			return h1, nil
		}
		return h0, nil
	case err0 == nil:
		return h0, nil
	case err1 == nil:
		return h1, nil
	}
	for _, target := range []error{ErrDamaged, ErrForeign} {
		for _, err := range []error{err0, err1} {
			if errors.Is(err, target) {
				return nil, err
			}
		}
	}
	return nil, err0
}

// check refuses impossible headers, so nothing built from a parsed header can
// reach outside its volumes or overlap.
func (h *Header) check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, a...))
	}
	for _, s := range []struct {
		what, s string
		max     int
	}{
		{"disk", h.Disk, offName - 24},
		{"name", h.Name, maxName},
		{"mount path", h.MountPath, maxPath},
		{"filesystem", h.Filesystem, 16},
		{"move", h.Move, maxMove},
		{"peer", h.Peer, maxVolume},
	} {
		if len(s.s) >= s.max && len(s.s) > 0 || strings.IndexByte(s.s, 0) >= 0 {
			return bad("%s %q too long or with a NUL", s.what, s.s)
		}
	}
	switch {
	case h.Disk == "":
		return bad("no disk id")
	case h.Role < Incoming || h.Role > Retired:
		return bad("%v", h.Role)
	case h.MovePhase > Committing:
		return bad("move phase %d", h.MovePhase)
	case h.Generation == 0 || h.Born == 0 || h.Born > h.Generation:
		return bad("generation %d, born %d", h.Generation, h.Born)
	case h.SizeBytes == 0 || h.SizeBytes%SectorBytes != 0 || h.SizeBytes > 1<<50:
		return bad("size %d", h.SizeBytes)
	case h.BlockBytes < 64<<10 || h.BlockBytes > 1<<30 || h.BlockBytes%(64<<10) != 0:
		return bad("pool block %d bytes", h.BlockBytes)
	case h.RegionBytes != 0 && (h.RegionBytes < 4096 || h.RegionBytes&(h.RegionBytes-1) != 0):
		return bad("region %d bytes", h.RegionBytes)
	case len(h.Members) == 0 || len(h.Members) > MaxMembers || h.Index >= uint32(len(h.Members)):
		return bad("member %d of %d", h.Index, len(h.Members))
	case len(h.Segments) > MaxSegments:
		return bad("%d segments", len(h.Segments))
	case h.ThinID >= 1<<24:
		return bad("thin id %d", h.ThinID)
	}
	seen := map[string]bool{}
	for i, m := range h.Members {
		if m.Volume == "" || len(m.Volume) >= maxVolume || strings.IndexByte(m.Volume, 0) >= 0 || seen[m.Volume] {
			return bad("member %d is %q", i, m.Volume)
		}
		seen[m.Volume] = true
	}
	for i, s := range h.Segments {
		switch {
		case s.Kind != Meta && s.Kind != Data, s.Member >= uint32(len(h.Members)):
			return bad("segment %d: kind %d, member %d", i, s.Kind, s.Member)
		case s.Start < DataStart, s.Length == 0, s.Start%4096 != 0, s.Length%4096 != 0,
			s.Length > h.Members[s.Member].Bytes, s.Start > h.Members[s.Member].Bytes-s.Length:
			return bad("segment %d: %d bytes at %d of a member of %d", i, s.Length, s.Start, h.Members[s.Member].Bytes)
		}
		for j, o := range h.Segments[:i] {
			if o.Member == s.Member && s.Start < o.Start+o.Length && o.Start < s.Start+s.Length {
				return bad("segments %d and %d overlap", j, i)
			}
		}
	}
	return nil
}

// Bytes sums the segments of a kind.
func (h *Header) Bytes(k Kind) uint64 {
	var n uint64
	for _, s := range h.Segments {
		if s.Kind == k {
			n += s.Length
		}
	}
	return n
}

// Clone is a deep copy.
func (h *Header) Clone() *Header {
	c := *h
	c.Members = append([]Member(nil), h.Members...)
	c.Segments = append([]Segment(nil), h.Segments...)
	return &c
}

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func blank(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
