package dm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrStatus is returned for a status line that a parser does not understand.
var ErrStatus = errors.New("unknown status line")

// PoolStatus is a thin-pool's status. Metadata blocks are of 4 KiB, data blocks of the pool's block size.
type PoolStatus struct {
	Transaction         uint64
	UsedMeta, TotalMeta uint64
	UsedData, TotalData uint64
	HeldRoot            uint64 // metadata snapshot's block, meaningful if HasHeldRoot
	HasHeldRoot         bool
	Mode                string // "rw", "ro", "out_of_data_space"; "" when Failed or Error
	DiscardPassdown     bool
	QueueIfNoSpace      bool   // false: writes to a full pool fail
	NeedsCheck          bool   // thin_check before the next use
	MetaLowWater        uint64 // free metadata blocks below which there is an event
	Failed              bool   // the pool has given up: no I/O works
	Error               bool   // the kernel could not read the counters
}

// ParsePool parses the status line of a thin-pool. It accepts lines of older kernels, which end earlier,
// and ignores words that it does not know after the mode.
func ParsePool(params string) (PoolStatus, error) {
	var s PoolStatus
	f := strings.Fields(params)
	if len(f) == 1 && f[0] == "Fail" {
		return PoolStatus{Failed: true}, nil
	}
	if len(f) == 1 && f[0] == "Error" {
		return PoolStatus{Error: true}, nil
	}
	if len(f) < 5 {
		return s, unknown("thin-pool", params)
	}
	var err error
	number := func(w string) (n uint64) { n, err = parse(w, err); return n }
	ratio := func(w string) (a, b uint64) { a, b, err = parseRatio(w, err); return a, b }
	s.Transaction = number(f[0])
	s.UsedMeta, s.TotalMeta = ratio(f[1])
	s.UsedData, s.TotalData = ratio(f[2])
	if f[3] != "-" {
		s.HeldRoot, s.HasHeldRoot = number(f[3]), true
	}
	if err != nil {
		return PoolStatus{}, unknown("thin-pool", params)
	}
	switch f[4] {
	case "rw", "ro", "out_of_data_space":
		s.Mode = f[4]
	default:
		return PoolStatus{}, unknown("thin-pool", params)
	}
	for i, w := range f[5:] {
		switch w {
		case "discard_passdown":
			s.DiscardPassdown = true
		case "queue_if_no_space":
			s.QueueIfNoSpace = true
		case "needs_check":
			s.NeedsCheck = true
		default:
			if n, err := parse(w, nil); err == nil && 5+i == len(f)-1 {
				s.MetaLowWater = n
			}
		}
	}
	return s, nil
}

// ThinStatus is a thin device's status.
type ThinStatus struct {
	MappedSectors uint64
	HighestSector uint64 // meaningful if HasHighest
	HasHighest    bool   // false when nothing is mapped
	Failed        bool   // the pool has given up, or could not read the counters
}

// ParseThin parses the status line of a thin device.
func ParseThin(params string) (ThinStatus, error) {
	f := strings.Fields(params)
	if len(f) == 1 && (f[0] == "Fail" || f[0] == "Error") {
		return ThinStatus{Failed: true}, nil
	}
	if len(f) != 2 {
		return ThinStatus{}, unknown("thin", params)
	}
	var s ThinStatus
	var err error
	s.MappedSectors, err = parse(f[0], err)
	if f[1] != "-" {
		s.HighestSector, err = parse(f[1], err)
		s.HasHighest = true
	}
	if err != nil {
		return ThinStatus{}, unknown("thin", params)
	}
	return s, nil
}

// MirrorStatus is a mirror's status.
type MirrorStatus struct {
	Devs []Dev
	// Health has one letter for each leg: A alive, D a write failed, S a copy failed, R a read failed,
	// F a flush failed, U unknown.
	Health        []byte
	InSync, Total uint64 // regions
	Log           string // "disk", "core"
	LogDev        Dev    // zero without a log device
	LogHealth     byte   // A alive, F a flush failed, D failed; 0 without a log device
}

// AllAlive tells that no leg has failed, nor the log.
func (s MirrorStatus) AllAlive() bool {
	for _, h := range s.Health {
		if h != 'A' {
			return false
		}
	}
	return len(s.Health) > 0 && (s.LogHealth == 'A' || s.LogHealth == 0)
}

// ParseMirror parses the status line of a mirror.
func ParseMirror(params string) (MirrorStatus, error) {
	s, ok := parseMirror(strings.Fields(params))
	if !ok {
		return MirrorStatus{}, unknown("mirror", params)
	}
	return s, nil
}

func parseMirror(f []string) (s MirrorStatus, ok bool) {
	if len(f) == 0 {
		return s, false
	}
	legs, err := strconv.ParseUint(f[0], 10, 16)
	// legs devices, a ratio, a count, the health
	if err != nil || legs == 0 || uint64(len(f)) < 1+legs+3 {
		return s, false
	}
	f = f[1:]
	for _, w := range f[:legs] {
		d, err := ParseDev(w)
		if err != nil {
			return s, false
		}
		s.Devs = append(s.Devs, d)
	}
	f = f[legs:]
	if s.InSync, s.Total, err = parseRatio(f[0], nil); err != nil {
		return s, false
	}
	if f[1] != "1" || uint64(len(f[2])) != legs {
		return s, false
	}
	s.Health = []byte(f[2])
	return s, s.parseLog(f[3:])
}

// parseLog parses "1 core", "3 disk 254:5 A" or nothing.
func (s *MirrorStatus) parseLog(f []string) bool {
	if len(f) == 0 {
		return true
	}
	n, err := strconv.ParseUint(f[0], 10, 16)
	if err != nil || n != uint64(len(f)-1) || n == 0 {
		return false
	}
	s.Log = f[1]
	if n < 3 {
		return s.Log != "disk"
	}
	d, err := ParseDev(f[2])
	if err != nil || len(f[3]) != 1 {
		return false
	}
	s.LogDev, s.LogHealth = d, f[3][0]
	return true
}

// ParseDev parses the form of Dev.String.
func ParseDev(s string) (Dev, error) {
	a, b, found := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	if !found || err1 != nil || err2 != nil {
		return Dev{}, fmt.Errorf("%w device number %q", ErrInvalid, s)
	}
	return Dev{uint32(major), uint32(minor)}, nil
}

func unknown(target, params string) error {
	return fmt.Errorf("%w of a %s: %q", ErrStatus, target, params)
}

// parse and parseRatio pass an earlier error on.
func parse(w string, earlier error) (uint64, error) {
	n, err := strconv.ParseUint(w, 10, 64)
	if earlier != nil {
		err = earlier
	}
	return n, err
}

func parseRatio(w string, earlier error) (a, b uint64, err error) {
	l, r, found := strings.Cut(w, "/")
	if !found {
		return 0, 0, strconv.ErrSyntax
	}
	a, err = parse(l, earlier)
	b, err = parse(r, err)
	return a, b, err
}
