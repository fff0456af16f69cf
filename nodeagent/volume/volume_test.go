package volume

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/nodeagent/dm"
)

// identify builds an Identify Controller answer as the specification pads it.
func identifyData(vendor uint16, serial, model string) []byte {
	b := make([]byte, identifyBytes)
	for i := 4; i < 64; i++ {
		b[i] = ' '
	}
	binary.LittleEndian.PutUint16(b, vendor)
	copy(b[4:24], serial)
	copy(b[24:64], model)
	return b
}

func TestIdentifyEBS(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		id   string // "" is foreign
	}{
		"ebs":                 {identifyData(0x1D0F, "vol0123456789abcdef0", modelEBS), "vol-0123456789abcdef0"},
		"short id":            {identifyData(0x1D0F, "vol49e2a5c8", modelEBS), "vol-49e2a5c8"},
		"with a dash":         {identifyData(0x1D0F, "vol-49e2a5c8", modelEBS), "vol-49e2a5c8"},
		"instance store":      {identifyData(0x1D0F, "AWS1234567890ABCDEF0", "Amazon EC2 NVMe Instance Storage"), ""},
		"another vendor":      {identifyData(0x1B36, "vol0123456789abcdef0", modelEBS), ""},
		"another model":       {identifyData(0x1D0F, "vol0123456789abcdef0", "Amazon Elastic Block Storage"), ""},
		"serial of no volume": {identifyData(0x1D0F, "vol0123456789ABCDEF0", modelEBS), ""},
		"empty serial":        {identifyData(0x1D0F, "", modelEBS), ""},
		"zeros":               {make([]byte, identifyBytes), ""},
	} {
		i, err := parseIdentify(c.data)
		require.NoError(t, err, name)
		id, err := ebsVolume(i)
		require.Equal(t, c.id, id, name)
		if c.id == "" {
			require.ErrorIs(t, err, errForeign, name)
		} else {
			require.NoError(t, err, name)
		}
	}
	_, err := parseIdentify(make([]byte, 63))
	require.Error(t, err)
}

func TestIdentifyQEMU(t *testing.T) {
	i, err := parseIdentify(identifyData(0x1B36, "vol0123456789abcdef0", modelQEMU))
	require.NoError(t, err)
	id, err := qemuVolume(i)
	require.NoError(t, err)
	require.Equal(t, "vol-0123456789abcdef0", id)
	_, err = ebsVolume(i)
	require.ErrorIs(t, err, errForeign)
}

func TestNamespaceNames(t *testing.T) {
	for name, want := range map[string]bool{"nvme0n1": true, "nvme12n3": true, "nvme0n1p1": false, "nvme0c0n1": false, "nvme0": false, "sda": false, "dm-0": false} {
		require.Equal(t, want, namespace.MatchString(name), name)
	}
}

func TestAdminCommandLayout(t *testing.T) {
	var c adminCommand
	require.EqualValues(t, 72, unsafe.Sizeof(c))
	require.EqualValues(t, nvmeAdminCommand>>16&0x3fff, unsafe.Sizeof(c), "the ioctl's number holds its size")
	require.EqualValues(t, 4, unsafe.Offsetof(c.namespace))
	require.EqualValues(t, 24, unsafe.Offsetof(c.address))
	require.EqualValues(t, 36, unsafe.Offsetof(c.dataLen))
	require.EqualValues(t, 40, unsafe.Offsetof(c.cdw10))
	require.EqualValues(t, 64, unsafe.Offsetof(c.millis))
}

func TestUUIDVolume(t *testing.T) {
	id, err := uuidVolume("EBSVOL-vol-49e2a5c8")
	require.NoError(t, err)
	require.Equal(t, "vol-49e2a5c8", id)
	for _, u := range []string{"", "EBSVOL-", "EBSVOL-x", "LVM-abc", "vol-49e2a5c8", "xEBSVOL-vol-49e2a5c8"} {
		_, err := uuidVolume(u)
		require.ErrorIs(t, err, errForeign, "%q", u)
	}
}

func TestAlignedBuffer(t *testing.T) {
	for _, n := range []int{0, 1, 512, 4096, 10000} {
		b := AlignedBuffer(n)
		require.Len(t, b, n)
		require.Equal(t, n, cap(b))
		require.Zero(t, uintptr(unsafe.Pointer(unsafe.SliceData(b)))%Alignment)
	}
}

// A regular file under a device's name is no volume.
func TestOpenRefusesFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nvme1n1")
	require.NoError(t, os.WriteFile(path, make([]byte, 4096), 0o600))
	asked := false
	s := scanner{
		paths: func() ([]string, error) { return []string{path, path + "x"}, nil },
		probe: func(uintptr, dm.Dev) (string, error) { asked = true; return "vol-49e2a5c8", nil },
	}
	list, err := s.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
	require.False(t, asked)
	_, err = s.Open(t.Context(), "vol-49e2a5c8")
	require.ErrorIs(t, err, ErrNotAttached)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.List(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestScanErrors(t *testing.T) {
	claim := func(id, path string) scanner {
		return scanner{
			paths: func() ([]string, error) { return []string{path}, nil },
			look: func(p string) (Candidate, error) {
				switch id {
				case "denied":
					return Candidate{}, os.ErrPermission
				case "broken":
					return Candidate{}, os.ErrDeadlineExceeded
				}
				return Candidate{ID: id, Path: p}, nil
			},
		}
	}
	twice := union{claim("vol-49e2a5c8", "/dev/nvme1n1"), claim("vol-49e2a5c8", "/dev/dm-0")}
	_, err := twice.Open(t.Context(), "vol-49e2a5c8")
	require.ErrorIs(t, err, ErrAmbiguous)
	list, err := twice.List(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 2)

	_, err = union{claim("denied", "/dev/nvme1n1")}.List(t.Context())
	require.ErrorIs(t, err, os.ErrPermission, "else every volume would seem to be detached")

	_, err = union{claim("broken", "/dev/nvme1n1")}.Open(t.Context(), "vol-49e2a5c8")
	require.ErrorIs(t, err, ErrNotAttached)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func FuzzIdentify(f *testing.F) {
	f.Add(identifyData(0x1D0F, "vol0123456789abcdef0", modelEBS))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := parseIdentify(b)
		if err != nil {
			return
		}
		if id, err := ebsVolume(i); err == nil && !validID(id) {
			t.Errorf("%q", id)
		}
	})
}
