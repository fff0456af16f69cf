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
	"os"
	"slices"
	"strings"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

var (
	// ErrNotAttached says that no attached block device is that volume, or that the open one is no longer.
	ErrNotAttached = errors.New("volume is not attached")
	// ErrAmbiguous says that more than one block device says it is that volume.
	ErrAmbiguous = errors.New("several devices claim to be the volume")
	// ErrUnaligned says that direct I/O needs buffers, offsets and lengths in whole logical blocks.
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
	// List tells what is attached now. It never trusts names or links: identity is read from each device, at
	// this call or at an earlier one since which the kernel has seen no device event. Devices that vanish
	// meanwhile, or do not answer, are left out. Open proves what is said here.
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
	look  func(path string) (Candidate, error) // nil: open the device and probe
	// list, when not nil, finds all at once, instead of paths and look.
	list func() ([]Candidate, error)
	// instances names every device that a scan would ask, and which one of that
	// name it is, without opening any.
	instances func() ([]string, error)
}

// List implements Locator.
func (s scanner) List(ctx context.Context) ([]Candidate, error) { return union{s}.List(ctx) }

// Open implements Locator.
func (s scanner) Open(ctx context.Context, id string) (*Device, error) { return union{s}.Open(ctx, id) }

func (s scanner) candidate(path string) (Candidate, error) {
	if s.look != nil {
		return s.look(path)
	}
	d, err := open(path, false, s.probe) // read-only: closing it does not make udev look at it
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

// found is a candidate and how to prove it.
type found struct {
	Candidate
	probe prober
}

// union is several scanners as one Locator.
type union []scanner

// List implements Locator.
func (u union) List(ctx context.Context) ([]Candidate, error) {
	all, _, err := u.scan(ctx)
	if err != nil {
		return nil, err
	}
	return candidates(all), nil
}

func candidates(all []found) []Candidate {
	list := make([]Candidate, len(all))
	for i, f := range all {
		list[i] = f.Candidate
	}
	return list
}

// scan asks every device. mute tells which could not be asked; that we may ask none is an error.
func (u union) scan(ctx context.Context) (all []found, mute []error, err error) {
	for _, s := range u {
		if s.list != nil {
			list, err := s.list()
			if err != nil {
				return nil, nil, fmt.Errorf("scan volumes: %w", err)
			}
			for _, c := range list {
				all = append(all, found{c, s.probe})
			}
			continue
		}
		paths, err := s.paths()
		if err != nil {
			return nil, nil, fmt.Errorf("scan volumes: %w", err)
		}
		for _, path := range paths {
			if err := ctx.Err(); err != nil {
				return nil, nil, err
			}
			c, err := s.candidate(path)
			switch {
			case err == nil:
				all = append(all, found{c, s.probe})
			case errors.Is(err, os.ErrPermission):
				return nil, nil, fmt.Errorf("scan volumes: %w", err)
			case !errors.Is(err, errForeign):
				mute = append(mute, err)
			}
		}
	}
	return all, mute, nil
}

// Open implements Locator.
func (u union) Open(ctx context.Context, id string) (*Device, error) {
	all, mute, err := u.scan(ctx)
	if err != nil {
		return nil, err
	}
	f, err := one(id, all, mute)
	if err != nil {
		return nil, err
	}
	return openAs(id, f.Path, f.probe)
}

// one finds the device that claims a volume's id.
func one(id string, all []found, mute []error) (found, error) {
	all = slices.DeleteFunc(slices.Clone(all), func(f found) bool { return f.ID != id })
	switch {
	case len(all) == 0 && len(mute) > 0:
		return found{}, fmt.Errorf("%s: %w, or is a device that does not answer: %w", id, ErrNotAttached, errors.Join(mute...))
	case len(all) == 0:
		return found{}, fmt.Errorf("%s: %w", id, ErrNotAttached)
	case len(all) > 1:
		return found{}, fmt.Errorf("%s: %w: %s and %s", id, ErrAmbiguous, all[0].Path, all[1].Path)
	}
	return all[0], nil
}

// openAs opens path if it is volume id.
func openAs(id, path string, probe prober) (*Device, error) {
	d, err := open(path, true, probe)
	if errors.Is(err, errForeign) {
		err = fmt.Errorf("%w: %w", ErrNotAttached, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	if d.ID() != id { // the name has gone to another volume since the scan
		_ = d.Close()
		return nil, fmt.Errorf("%s: %s is %s now: %w", id, path, d.ID(), ErrNotAttached)
	}
	return d, nil
}

// validID tells whether id has the form of an EBS volume id: "vol-" and 8 or 17 lower-case hexadecimal
// digits.
func validID(id string) bool {
	hex, ok := strings.CutPrefix(id, "vol-")
	return ok && (len(hex) == 8 || len(hex) == 17) && strings.Trim(hex, "0123456789abcdef") == ""
}
