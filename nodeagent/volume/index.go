package volume

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// located is a union that remembers where it last found each volume, so that to
// open one does not ask all the others who they are. It remembers places, never
// identities: Open proves on the open descriptor, every time, that the device is
// the volume, and looks everywhere when it is not.
//
// What it remembers is used only while the block devices are the same ones as at
// the scan. A device that has come since could claim a volume that another one
// claims too, which Open must notice.
type located struct {
	union
	events  func() (string, error)   // the kernel's count of device events; the same: nothing has come or gone
	devices func() ([]string, error) // the instances of the devices that scan would ask
	open    func(id, path string, probe prober) (*Device, error)

	mu    sync.Mutex
	valid bool
	// resized: there were events since the scan; sizes may be old.
	resized bool
	at      place
	all     []found
	found   map[string]found // the volumes that exactly one device claims
}

// place tells one set of attached devices from another.
type place struct {
	events  string
	devices []string
}

func locate(u union) *located {
	l := &located{union: u, open: openAs, devices: u.instances}
	l.events = func() (string, error) {
		b, err := os.ReadFile("/sys/kernel/uevent_seqnum")
		return string(b), err
	}
	return l
}

// Open implements Locator.
func (l *located) Open(ctx context.Context, id string) (*Device, error) {
	if f, ok := l.last(id); ok {
		if d, err := l.open(id, f.Path, f.probe); err == nil {
			return d, nil
		}
		l.forget()
	}
	now, err := l.now() // before the scan: what comes during it makes it stale
	all, mute, serr := l.scan(ctx)
	if serr != nil {
		return nil, serr
	}
	if err == nil && len(mute) == 0 { // one that is mute now may claim anything later
		l.remember(all, now)
	}
	f, err := one(id, all, mute)
	if err != nil {
		return nil, err
	}
	return l.open(id, f.Path, f.probe)
}

// List implements Locator.
func (l *located) List(ctx context.Context) ([]Candidate, error) {
	if all, ok := l.unchanged(); ok {
		return candidates(all), ctx.Err()
	}
	now, err := l.now()
	all, mute, serr := l.scan(ctx)
	if serr != nil {
		return nil, serr
	}
	if err == nil && len(mute) == 0 {
		l.remember(all, now)
	}
	return candidates(all), nil
}

// unchanged is what the last scan found, if there was no device event since: a
// larger volume would be one.
func (l *located) unchanged() ([]found, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.valid || l.resized {
		return nil, false
	}
	events, err := l.events()
	return l.all, err == nil && events == l.at.events
}

func (l *located) now() (p place, err error) {
	if p.events, err = l.events(); err != nil {
		return p, err
	}
	p.devices, err = l.devices()
	return p, err
}

// last is where id was found, if the same devices are attached as then.
func (l *located) last(id string) (f found, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.valid {
		return f, false
	}
	// Most events are of other devices, the disks' own above all.
	if events, err := l.events(); err != nil {
		l.valid = false
	} else if events != l.at.events {
		devices, err := l.devices()
		l.valid = err == nil && slices.Equal(devices, l.at.devices)
		l.at.events, l.resized = events, true
	}
	if !l.valid {
		return f, false
	}
	f, ok = l.found[id]
	return f, ok
}

func (l *located) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.valid = false
}

func (l *located) remember(all []found, now place) {
	byID, several := map[string]found{}, map[string]bool{}
	for _, f := range all {
		_, again := byID[f.ID]
		several[f.ID] = several[f.ID] || again
		byID[f.ID] = f
	}
	for id, more := range several {
		if more {
			delete(byID, id)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all, l.found, l.at, l.valid, l.resized = all, byID, now, true, false
}

// instances are those of all its scanners.
func (u union) instances() ([]string, error) {
	var out []string
	for _, s := range u {
		some, err := s.instances()
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// sequences gives paths their disk sequence numbers, which the kernel never gives
// again (since 5.15; before, nothing is remembered).
func sequences(paths func() ([]string, error)) func() ([]string, error) {
	return tagged(paths, func(path string) (string, error) { return sysfs(path, "diskseq") })
}

func tagged(paths func() ([]string, error), tag func(path string) (string, error)) func() ([]string, error) {
	return func() ([]string, error) {
		list, err := paths()
		if err != nil {
			return nil, err
		}
		for i, path := range list {
			t, err := tag(path)
			if err != nil {
				return nil, err
			}
			list[i] = path + " " + t
		}
		return list, nil
	}
}

// sysfs reads an attribute of the block device with the name of path.
func sysfs(path, attribute string) (string, error) {
	b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(path), attribute))
	return strings.TrimSpace(string(b)), err
}
