package dm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// The layout of linux/dm-ioctl.h, equal on every architecture with natural alignment. All integers are in
// the machine's byte order.
const (
	headerLen = 312 // struct dm_ioctl
	nameLen   = 128 // with the NUL
	uuidLen   = 129 // with the NUL
	typeLen   = 16  // with the NUL
	specLen   = 40  // struct dm_target_spec

	offDataSize    = 12
	offDataStart   = 16
	offTargetCount = 20
	offOpenCount   = 24
	offFlags       = 28
	offEventNr     = 32
	offDev         = 40
	offName        = 48
	offUUID        = 176

	// interfaceMajor is the only major version there ever was. Asking for minor 0 makes every kernel
	// answer; what it has beyond that is seen in Version.
	interfaceMajor = 4
)

// Command numbers.
const (
	cmdVersion       = 0
	cmdListDevices   = 2
	cmdCreate        = 3
	cmdRemove        = 4
	cmdSuspend       = 6 // with flagSuspend clear it resumes
	cmdStatus        = 7
	cmdTableLoad     = 9
	cmdTableClear    = 10
	cmdTableDeps     = 11
	cmdTableStatus   = 12
	cmdListVersions  = 13
	cmdMessage       = 14
	cmdArmPoll       = 16
	cmdTargetVersion = 17
)

// Flags of struct dm_ioctl.
const (
	flagReadOnly        = 1 << 0
	flagSuspend         = 1 << 1
	flagStatusTable     = 1 << 4
	flagActivePresent   = 1 << 5
	flagInactivePresent = 1 << 6
	flagBufferFull      = 1 << 8
	flagSkipLockFS      = 1 << 10
	flagNoFlush         = 1 << 11
	flagUUID            = 1 << 14
	flagDataOut         = 1 << 16

	listHasUUID       = 1 << 0
	listHasNoUUID     = 1 << 1
	minorListEvent    = 37 // first with event numbers in the list, and with cmdArmPoll
	minorListUUID     = 45 // first with UUIDs in the list
	minorTargetByName = 41 // first with cmdTargetVersion
)

// errShort is returned for an answer that does not hold what it claims to.
var errShort = errors.New("malformed answer from the kernel")

var native = binary.NativeEndian

// request is one ioctl before it is encoded.
type request struct {
	name, uuid  string
	dev         Dev
	flags       uint32
	eventNr     uint32
	targetCount uint32
	data        []byte
}

// command returns the ioctl number: _IOWR(0xfd, n, struct dm_ioctl).
func command(n uintptr) uintptr { return 3<<30 | headerLen<<16 | 0xfd<<8 | n }

// encode lays r out in a buffer of at least size bytes.
func (r request) encode(size int) []byte {
	size = max(size, headerLen+len(r.data))
	b := make([]byte, align8(size))
	native.PutUint32(b, interfaceMajor)
	native.PutUint32(b[offDataSize:], uint32(len(b)))
	native.PutUint32(b[offDataStart:], headerLen)
	native.PutUint32(b[offTargetCount:], r.targetCount)
	native.PutUint32(b[offFlags:], r.flags)
	native.PutUint32(b[offEventNr:], r.eventNr)
	if r.dev != (Dev{}) {
		native.PutUint64(b[offDev:], unix.Mkdev(r.dev.Major, r.dev.Minor))
	}
	copy(b[offName:offName+nameLen-1], r.name)
	copy(b[offUUID:offUUID+uuidLen-1], r.uuid)
	copy(b[headerLen:], r.data)
	return b
}

// answer is a buffer that the kernel has filled.
type answer []byte

func (a answer) flags() uint32       { return native.Uint32(a[offFlags:]) }
func (a answer) targetCount() uint32 { return native.Uint32(a[offTargetCount:]) }

func (a answer) info() Info {
	f := a.flags()
	return Info{
		Name:            text(a[offName : offName+nameLen]),
		UUID:            text(a[offUUID : offUUID+uuidLen]),
		Dev:             devOf(native.Uint64(a[offDev:])),
		OpenCount:       int32(native.Uint32(a[offOpenCount:])),
		EventNr:         native.Uint32(a[offEventNr:]),
		TargetCount:     a.targetCount(),
		Suspended:       f&flagSuspend != 0,
		ReadOnly:        f&flagReadOnly != 0,
		ActivePresent:   f&flagActivePresent != 0,
		InactivePresent: f&flagInactivePresent != 0,
	}
}

// data returns what follows the header, as far as the kernel says it reaches.
func (a answer) data() ([]byte, error) {
	if len(a) < headerLen {
		return nil, errShort
	}
	start, end := uint64(native.Uint32(a[offDataStart:])), uint64(native.Uint32(a[offDataSize:]))
	if end < headerLen { // an answer without data ends within the header's padding
		return nil, nil
	}
	if start > end || end > uint64(len(a)) {
		return nil, fmt.Errorf("%w: data from %d to %d of %d bytes", errShort, start, end, len(a))
	}
	return a[start:end], nil
}

// encodeTable lays targets out as a chain of dm_target_spec, each followed by its parameters.
func encodeTable(table []Target) ([]byte, error) {
	var b []byte
	for i, t := range table {
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("target %d: %w", i, err)
		}
		spec := make([]byte, align8(specLen+len(t.Params)+1))
		native.PutUint64(spec, t.Start)
		native.PutUint64(spec[8:], t.Length)
		native.PutUint32(spec[20:], uint32(len(spec))) // from this spec to the next
		copy(spec[24:24+typeLen-1], t.Type)
		copy(spec[specLen:], t.Params)
		b = append(b, spec...)
	}
	return b, nil
}

// decodeTable reads count targets from the answer to cmdTableStatus, where "next" counts from the first.
func decodeTable(b []byte, count uint32) ([]Target, error) {
	var table []Target
	at := uint64(0)
	for range count {
		if at+specLen > uint64(len(b)) {
			return nil, fmt.Errorf("%w: target at %d of %d bytes", errShort, at, len(b))
		}
		spec := b[at:]
		params, ok := cString(spec[specLen:])
		if !ok {
			return nil, fmt.Errorf("%w: parameters without an end", errShort)
		}
		table = append(table, Target{
			Start: native.Uint64(spec), Length: native.Uint64(spec[8:]),
			Type: text(spec[24 : 24+typeLen]), Params: strings.TrimSpace(params),
		})
		at = uint64(native.Uint32(spec[20:]))
	}
	return table, nil
}

// decodeList reads the answer to cmdListDevices. known[i] tells that the UUID of the i-th device was given.
func decodeList(b []byte, minor uint32) (list []Info, known []bool, err error) {
	for len(b) > 0 {
		if len(b) < 12 {
			return nil, nil, fmt.Errorf("%w: list entry of %d bytes", errShort, len(b))
		}
		dev, next := native.Uint64(b), native.Uint32(b[8:])
		if dev == 0 { // how the kernel says that there is none
			break
		}
		name, ok := cString(b[12:])
		if !ok {
			return nil, nil, fmt.Errorf("%w: name without an end", errShort)
		}
		i, k := Info{Name: name, Dev: devOf(dev)}, false
		at := align8(12 + len(name) + 1)
		if minor >= minorListEvent && at+4 <= len(b) {
			i.EventNr = native.Uint32(b[at:])
		}
		if minor >= minorListUUID && at+8 <= len(b) {
			switch f := native.Uint32(b[at+4:]); {
			case f&listHasUUID != 0:
				if i.UUID, ok = cString(b[at+8:]); !ok {
					return nil, nil, fmt.Errorf("%w: UUID without an end", errShort)
				}
				k = true
			case f&listHasNoUUID != 0:
				k = true
			}
		}
		list, known = append(list, i), append(known, k)
		if b, err = skip(b, next); err != nil {
			return nil, nil, err
		}
	}
	return list, known, nil
}

// decodeVersions reads the answer to cmdListVersions.
func decodeVersions(b []byte) (map[string][3]uint32, error) {
	versions := map[string][3]uint32{}
	var err error
	for len(b) > 0 {
		if len(b) < 16 {
			return nil, fmt.Errorf("%w: target version of %d bytes", errShort, len(b))
		}
		name, ok := cString(b[16:])
		if !ok {
			return nil, fmt.Errorf("%w: target name without an end", errShort)
		}
		versions[name] = [3]uint32{native.Uint32(b[4:]), native.Uint32(b[8:]), native.Uint32(b[12:])}
		if b, err = skip(b, native.Uint32(b)); err != nil {
			return nil, err
		}
	}
	return versions, nil
}

// decodeDeps reads the answer to cmdTableDeps.
func decodeDeps(b []byte) ([]Dev, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < 8 || uint64(len(b)-8)/8 < uint64(native.Uint32(b)) {
		return nil, fmt.Errorf("%w: dependencies in %d bytes", errShort, len(b))
	}
	devs := make([]Dev, native.Uint32(b))
	for i := range devs {
		devs[i] = devOf(native.Uint64(b[8+8*i:]))
	}
	return devs, nil
}

// skip goes to the next entry of a list whose last entry has next = 0.
func skip(b []byte, next uint32) ([]byte, error) {
	if next == 0 {
		return nil, nil
	}
	if next < 8 || uint64(next) > uint64(len(b)) {
		return nil, fmt.Errorf("%w: next entry after %d of %d bytes", errShort, next, len(b))
	}
	return b[next:], nil
}

func devOf(d uint64) Dev { return Dev{Major: unix.Major(d), Minor: unix.Minor(d)} }

func align8(n int) int { return (n + 7) &^ 7 }

// cString returns b up to its first NUL, and whether there is one.
func cString(b []byte) (string, bool) {
	n := bytes.IndexByte(b, 0)
	if n < 0 {
		return "", false
	}
	return string(b[:n]), true
}

// text returns a fixed-length field.
func text(b []byte) string {
	if s, ok := cString(b); ok {
		return s
	}
	return string(b)
}

// checkName refuses what the kernel or udev would refuse or change. See also struct dm_ioctl.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w name: empty", ErrInvalid)
	case name == "." || name == ".." || name == "control":
		return fmt.Errorf("%w name %q: reserved", ErrInvalid, name)
	case len(name) > nameLen-1:
		return fmt.Errorf("%w name of %d bytes: at most %d", ErrInvalid, len(name), nameLen-1)
	}
	return checkBytes("name", name)
}

func checkUUID(uuid string) error {
	if len(uuid) > uuidLen-1 {
		return fmt.Errorf("%w UUID of %d bytes: at most %d", ErrInvalid, len(uuid), uuidLen-1)
	}
	return checkBytes("UUID", uuid)
}

func checkBytes(what, s string) error {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '/' || c == '\\' {
			return fmt.Errorf("%w %s %q: byte %q is not allowed", ErrInvalid, what, s, c)
		}
	}
	return nil
}

// checkLine refuses what could not be one line of parameters.
func checkLine(what, s string) error {
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("%w %s %q: byte %q is not allowed", ErrInvalid, what, s, c)
		}
	}
	return nil
}

// check refuses a target that cannot be encoded.
func (t Target) check() error {
	switch {
	case t.Length == 0:
		return fmt.Errorf("%w target: no length", ErrInvalid)
	case t.Start+t.Length < t.Start:
		return fmt.Errorf("%w target: ends beyond the last sector", ErrInvalid)
	case t.Type == "" || len(t.Type) > typeLen-1:
		return fmt.Errorf("%w target type %q", ErrInvalid, t.Type)
	}
	if err := checkBytes("target type", t.Type); err != nil {
		return err
	}
	return checkLine("parameters", t.Params)
}
