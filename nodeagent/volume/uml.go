package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// uuidPrefix begins the device-mapper UUID of every volume of the bench; the volume id follows.
const uuidPrefix = "EBSVOL-"

const sectorBytes = 512

// UML finds the volumes of the bench: device-mapper devices whose UUID is EBSVOL-<volume id>, in a User
// Mode Linux node or over loop devices. The identity is read from sysfs by the number of the open
// device, and from device-mapper itself when c is not nil; a number cannot change its owner while it is
// open.
func UML(c *dm.Client) Locator { return locate(union{uml(c)}) }

func uml(c *dm.Client) scanner {
	s := scanner{paths: mapped, probe: mappedProbe(c), look: lookMapped, instances: tagged(mapped, mappedUUID)}
	if c != nil {
		s.list = func() ([]Candidate, error) { return listMapped(c) }
		s.instances = func() ([]string, error) {
			list, err := volumesOf(c)
			var out []string
			for _, i := range list {
				out = append(out, i.Dev.String()+" "+i.UUID)
			}
			return out, err
		}
	}
	return s
}

// volumesOf asks device-mapper once for all devices that are volumes by UUID.
func volumesOf(c *dm.Client) ([]dm.Info, error) {
	list, err := c.List()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list, func(i dm.Info) bool { return !strings.HasPrefix(i.UUID, uuidPrefix) }), nil
}

// listMapped is mapped and lookMapped with one question instead of several files
// for each device of the node.
func listMapped(c *dm.Client) ([]Candidate, error) {
	list, err := volumesOf(c)
	if err != nil {
		return nil, err
	}
	var out []Candidate
	for _, i := range list {
		path := fmt.Sprintf("/dev/dm-%d", i.Dev.Minor)
		size, err := sysfs(path, "size")
		if err != nil {
			continue // it has gone
		}
		sectors, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return nil, err
		}
		if id, err := uuidVolume(i.UUID); err == nil {
			out = append(out, Candidate{ID: id, Path: path, Dev: i.Dev, Bytes: sectors * sectorBytes})
		}
	}
	return out, nil
}

func mapped() ([]string, error) {
	dirs, err := filepath.Glob("/sys/block/dm-*")
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, d := range dirs {
		// Others are not even opened: that could keep them from being removed.
		if b, err := os.ReadFile(filepath.Join(d, "dm/uuid")); err == nil && strings.HasPrefix(string(b), uuidPrefix) {
			paths = append(paths, filepath.Join("/dev", filepath.Base(d)))
		}
	}
	return paths, nil
}

// mappedUUID is all of a mapped device's identity.
func mappedUUID(path string) (string, error) { return sysfs(path, "dm/uuid") }

// lookMapped describes a device without opening it: an open device cannot be detached in the bench, so a
// scan must not be in the way. Open proves what is said here.
func lookMapped(path string) (Candidate, error) {
	dir := filepath.Join("/sys/block", filepath.Base(path))
	var words [3]string
	for i, file := range []string{"dm/uuid", "dev", "size"} {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return Candidate{}, fmt.Errorf("%w: %w", ErrNotAttached, err)
		}
		words[i] = strings.TrimSpace(string(b))
	}
	id, err := uuidVolume(words[0])
	if err != nil {
		return Candidate{}, err
	}
	dev, err := dm.ParseDev(words[1])
	if err != nil {
		return Candidate{}, err
	}
	sectors, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil {
		return Candidate{}, err
	}
	return Candidate{ID: id, Path: path, Dev: dev, Bytes: sectors * sectorBytes}, nil
}

func mappedProbe(c *dm.Client) prober {
	return func(_ uintptr, dev dm.Dev) (string, error) {
		b, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%s/dm/uuid", dev))
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%w: %s is not a mapped device", errForeign, dev)
		}
		if err != nil {
			return "", err
		}
		uuid := strings.TrimSuffix(string(b), "\n")
		if c != nil {
			i, err := c.InfoByDev(dev)
			if err != nil {
				return "", err
			}
			if i.UUID != uuid {
				return "", fmt.Errorf("%w: %s has UUID %q in sysfs and %q in device-mapper", errForeign, dev, uuid, i.UUID)
			}
		}
		return uuidVolume(uuid)
	}
}

func uuidVolume(uuid string) (string, error) {
	id, ok := strings.CutPrefix(uuid, uuidPrefix)
	if !ok || !strings.HasPrefix(id, "vol-") {
		return "", fmt.Errorf("%w: UUID %q", errForeign, uuid)
	}
	return id, nil
}
