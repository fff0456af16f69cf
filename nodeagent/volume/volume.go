// Package volume finds the EBS volumes attached to this node and proves which one a block device is.
//
// Device names and links move from volume to volume and are never trusted. Identity is read from the
// device itself: on EC2 from the NVMe controller behind an open descriptor, in the bench from the
// device-mapper UUID of the open device's number. A caller asks again, by Device.Verify, right before
// it overwrites anything.
package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

var (
	// ErrNotAttached: no attached block device is that volume, or the open one is no longer.
	ErrNotAttached = errors.New("volume is not attached")
	// ErrAmbiguous: more than one block device says it is that volume.
	ErrAmbiguous = errors.New("several devices claim to be the volume")
	// ErrUnaligned: direct I/O needs buffers, offsets and lengths in whole logical blocks.
	ErrUnaligned = errors.New("unaligned direct I/O")
)

// errForeign: the device is fine but no EBS volume.
var errForeign = errors.New("not an EBS volume")

// Candidate is an attached block device that says it is an EBS volume.
type Candidate struct {
	ID    string // such as vol-0123456789abcdef0
	Path  string // such as /dev/nvme1n1 or /dev/dm-3, valid now and perhaps not later
	Dev   dm.Dev
	Bytes int64
}

// Locator finds attached volumes. It may be used by several goroutines at once.
type Locator interface {
	// List scans now. It never trusts names or links: identity is read from each device. Devices that
	// vanish during the scan, or do not answer, are left out.
	List(ctx context.Context) ([]Candidate, error)
	// Open finds a volume and opens it for reading and writing with O_DIRECT. The identity is proven on
	// the open descriptor, so the device is the volume whatever happens to names. It fails with
	// ErrNotAttached, or with ErrAmbiguous when two devices claim the id.
	Open(ctx context.Context, id string) (*Device, error)
}

// prober reads the volume id from an open descriptor, or fails with errForeign.
type prober func(fd uintptr, dev dm.Dev) (id string, err error)

// scanner implements Locator over one kind of device.
type scanner struct {
	paths func() ([]string, error) // block devices worth asking
	probe prober
}

// List implements Locator.
func (s scanner) List(ctx context.Context) ([]Candidate, error) {
	paths, err := s.paths()
	if err != nil {
		return nil, fmt.Errorf("scan volumes: %w", err)
	}
	var list []Candidate
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c, err := s.look(path); err == nil {
			list = append(list, c)
		}
	}
	return list, nil
}

// look reads one device's identity. It opens it read-only, so that udev need not look at it afterwards.
func (s scanner) look(path string) (Candidate, error) {
	d, err := open(path, false, s.probe)
	if err != nil {
		return Candidate{}, err
	}
	defer func() { _ = d.Close() }()
	bytes, err := d.Bytes()
	if err != nil {
		return Candidate{}, err
	}
	return Candidate{ID: d.ID(), Path: path, Dev: d.Dev(), Bytes: bytes}, nil
}

// Open implements Locator.
func (s scanner) Open(ctx context.Context, id string) (*Device, error) {
	list, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	return openOne(list, id, func(Candidate) prober { return s.probe })
}

// openOne opens the one candidate that is volume id.
func openOne(list []Candidate, id string, probe func(Candidate) prober) (*Device, error) {
	var found []Candidate
	for _, c := range list {
		if c.ID == id {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%s: %w", id, ErrNotAttached)
	case 1:
	default:
		return nil, fmt.Errorf("%s: %w: %s and %s", id, ErrAmbiguous, found[0].Path, found[1].Path)
	}
	d, err := open(found[0].Path, true, probe(found[0]))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	if d.ID() != id { // it changed between the scan and now
		_ = d.Close()
		return nil, fmt.Errorf("%s: %s is %s now: %w", id, found[0].Path, d.ID(), ErrNotAttached)
	}
	return d, nil
}

// validID tells whether id has the form of an EBS volume id: "vol-" and 8 or 17 lower-case hexadecimal
// digits.
func validID(id string) bool {
	hex, ok := strings.CutPrefix(id, "vol-")
	return ok && (len(hex) == 8 || len(hex) == 17) && strings.Trim(hex, "0123456789abcdef") == ""
}
