package volume

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// machine is block devices in memory, by path.
type machine struct {
	located
	ids       map[string]string // volume by path
	instance  map[string]int
	seq       int // the kernel's count of events
	asked     int // devices asked who they are by scans
	opened    int
	noCounter bool
}

func newMachine(ids map[string]string) *machine {
	m := &machine{ids: ids, instance: map[string]int{}}
	s := scanner{
		paths: func() ([]string, error) {
			var out []string
			for i := range 100 {
				if p := fmt.Sprintf("/dev/nvme%dn1", i); m.ids[p] != "" {
					out = append(out, p)
				}
			}
			return out, nil
		},
		look: func(p string) (Candidate, error) {
			m.asked++
			return Candidate{ID: m.ids[p], Path: p}, nil
		},
	}
	s.instances = tagged(s.paths, func(p string) (string, error) { return fmt.Sprint(m.instance[p]), nil })
	m.union = union{s}
	m.located.devices = m.instances
	m.located.events = func() (string, error) {
		if m.noCounter {
			return "", errors.New("no such file")
		}
		return fmt.Sprint(m.seq), nil
	}
	m.located.open = func(id, path string, _ prober) (*Device, error) {
		m.opened++
		if m.ids[path] != id { // as openAs proves on the open descriptor
			return nil, fmt.Errorf("%s: %s is %s now: %w", id, path, m.ids[path], ErrNotAttached)
		}
		return &Device{id: id}, nil
	}
	return m
}

// put makes path another device; silent keeps the kernel's events out of it.
func (m *machine) put(path, id string, silent bool) {
	m.ids[path] = id
	if !silent {
		m.instance[path]++
		m.seq++
	}
}

func (m *machine) open(t *testing.T, id string) {
	t.Helper()
	d, err := m.Open(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, id, d.ID())
}

const (
	volOne = "vol-00000001"
	volTwo = "vol-00000002"
)

func many(n int) map[string]string {
	ids := map[string]string{}
	for i := range n {
		ids[fmt.Sprintf("/dev/nvme%dn1", i)] = fmt.Sprintf("vol-%08x", i+1)
	}
	return ids
}

// TestOpenAsksOneDevice: with thirty volumes attached, to open one does not ask
// the others, also while devices of other kinds come and go.
func TestOpenAsksOneDevice(t *testing.T) {
	m := newMachine(many(30))
	for range 10 {
		for i := range 30 {
			m.seq++ // a device of a disk was made
			m.open(t, fmt.Sprintf("vol-%08x", i+1))
		}
	}
	require.Equal(t, 30, m.asked)
	require.Equal(t, 300, m.opened, "each open proves who it is")
}

// TestOpenNoticesAnotherClaim: a second device with the id is not overlooked.
func TestOpenNoticesAnotherClaim(t *testing.T) {
	m := newMachine(many(2))
	m.open(t, volOne)
	m.put("/dev/nvme7n1", volOne, false)
	for range 3 {
		_, err := m.Open(t.Context(), volOne)
		require.ErrorIs(t, err, ErrAmbiguous)
	}
	m.put("/dev/nvme7n1", "vol-00000009", false)
	m.open(t, volOne)
	// The same name, another device.
	m.put("/dev/nvme1n1", volOne, false)
	_, err := m.Open(t.Context(), volOne)
	require.ErrorIs(t, err, ErrAmbiguous)
}

// TestOpenFollowsAVolume: names that have changed hands deceive nobody, even
// where the kernel's count did not say so.
func TestOpenFollowsAVolume(t *testing.T) {
	for _, silent := range []bool{false, true} {
		m := newMachine(many(2))
		m.open(t, volOne)
		m.open(t, volTwo)
		m.put("/dev/nvme0n1", volTwo, silent)
		m.put("/dev/nvme1n1", volOne, silent)
		m.open(t, volOne)
		m.open(t, volTwo)
		m.put("/dev/nvme1n1", "vol-00000005", silent)
		_, err := m.Open(t.Context(), volOne)
		require.ErrorIs(t, err, ErrNotAttached)
	}
}

// TestListAsksAgain: after any event, since a volume may be larger now.
func TestListAsksAgain(t *testing.T) {
	m := newMachine(many(3))
	for range 3 {
		list, err := m.List(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 3)
	}
	require.Equal(t, 3, m.asked)
	m.seq++
	m.open(t, volOne)
	_, err := m.List(t.Context())
	require.NoError(t, err)
	require.Equal(t, 6, m.asked)
	m.put("/dev/nvme7n1", "vol-00000007", false)
	list, err := m.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 4)
}

// TestOpenWithoutCounter: a kernel that cannot tell costs scans, nothing else.
func TestOpenWithoutCounter(t *testing.T) {
	m := newMachine(many(3))
	m.noCounter = true
	for range 4 {
		m.open(t, volTwo)
	}
	require.Equal(t, 12, m.asked)
	m.put("/dev/nvme7n1", volTwo, true)
	_, err := m.Open(t.Context(), volTwo)
	require.ErrorIs(t, err, ErrAmbiguous)
}
