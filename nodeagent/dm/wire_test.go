package dm

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The expected buffers below are written for little-endian machines, as are all that Ebb runs on.
func needLittleEndian(t testing.TB) {
	t.Helper()
	if native.Uint16([]byte{1, 0}) != 1 {
		t.Skip("expects a little-endian machine")
	}
}

func field(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

func TestCommandNumbers(t *testing.T) {
	require.EqualValues(t, 0xc138fd00, command(cmdVersion))
	require.EqualValues(t, 0xc138fd06, command(cmdSuspend))
	require.EqualValues(t, 0xc138fd10, command(cmdArmPoll))
}

func TestEncodeRequest(t *testing.T) {
	needLittleEndian(t)
	b := request{name: "ebb-x", uuid: "EBB-1", dev: Dev{254, 300}, flags: flagNoFlush, eventNr: 7, targetCount: 2, data: []byte("abc")}.encode(0)
	require.Len(t, b, 320)
	want := make([]byte, 320)
	copy(want, []byte{4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 0, 0, 0x38, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 7})
	copy(want[40:], []byte{0x2c, 0xfe, 0x10, 0}) // 300 = 0x12c, its upper part above the major
	copy(want[48:], "ebb-x")
	copy(want[176:], "EBB-1")
	copy(want[312:], "abc")
	require.Equal(t, want, b)
	require.Equal(t, Dev{254, 300}, answer(b).info().Dev)
	require.Len(t, request{}.encode(bufferBytes), bufferBytes)
}

func TestEncodeTable(t *testing.T) {
	needLittleEndian(t)
	b, err := encodeTable([]Target{Linear(0, 8, Dev{7, 1}, 2048), ErrorTarget(8, 16)})
	require.NoError(t, err)
	require.Len(t, b, 56+48)
	require.EqualValues(t, 8, field(b, 8), "length")
	require.EqualValues(t, 56, field(b, 20), "next, from this target")
	require.Equal(t, "linear\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", string(b[24:40]))
	require.Equal(t, "7:1 2048\x00\x00\x00\x00\x00\x00\x00\x00", string(b[40:56]))
	require.EqualValues(t, 8, field(b, 56), "start")
	require.EqualValues(t, 48, field(b, 56+20))
	require.Equal(t, "error", text(b[56+24:56+40]))
	require.Equal(t, make([]byte, 8), b[56+40:], "empty parameters end with a NUL, too")

	// Parameters that fill their 8 bytes need 8 more for the NUL.
	b, err = encodeTable([]Target{{0, 1, "linear", "12345678"}})
	require.NoError(t, err)
	require.Len(t, b, specLen+16)
}

func TestEncodeTableRefuses(t *testing.T) {
	for name, target := range map[string]Target{
		"new line": {0, 1, "linear", "7:1 0\n0 1 error"}, "NUL": {0, 1, "linear", "7:1\x000"},
		"no length": {0, 0, "linear", "7:1 0"}, "overflow": {^uint64(0), 2, "error", ""},
		"no type": {0, 1, "", ""}, "long type": {0, 1, strings.Repeat("x", 16), ""}, "type with a space": {0, 1, "a b", ""},
	} {
		_, err := encodeTable([]Target{target})
		require.ErrorIs(t, err, ErrInvalid, name)
	}
}

// status builds an answer's data as the kernel lays it out: "next" counts from the first target.
func status(targets ...Target) []byte {
	var b []byte
	for _, t := range targets {
		spec := make([]byte, align8(specLen+len(t.Params)+1))
		native.PutUint64(spec, t.Start)
		native.PutUint64(spec[8:], t.Length)
		copy(spec[24:], t.Type)
		copy(spec[specLen:], t.Params)
		b = append(b, spec...)
		native.PutUint32(b[len(b)-len(spec)+20:], uint32(len(b)))
	}
	return b
}

func TestDecodeTable(t *testing.T) {
	want := []Target{{0, 10, "linear", "7:0 1"}, {10, 20, "error", ""}, {30, 5, "striped", "2 8 7:0 0 7:1 0"}}
	got, err := decodeTable(status(want...), 3)
	require.NoError(t, err)
	require.Equal(t, want, got)

	b := status(want...)
	_, err = decodeTable(b[:len(b)-16], 3)
	require.ErrorIs(t, err, errShort, "no NUL")
	_, err = decodeTable(b, 4)
	require.ErrorIs(t, err, errShort, "more than there are")
	got, err = decodeTable(nil, 0)
	require.NoError(t, err)
	require.Empty(t, got)
}

// entry is one element of a list of devices as kernels of 4.45 and later make it.
func entry(dev Dev, name, uuid string, event, flags, next uint32) []byte {
	b := make([]byte, align8(12+len(name)+1)+8)
	native.PutUint64(b, unix.Mkdev(dev.Major, dev.Minor))
	native.PutUint32(b[8:], next)
	copy(b[12:], name)
	native.PutUint32(b[len(b)-8:], event)
	native.PutUint32(b[len(b)-4:], flags)
	if flags&listHasUUID != 0 {
		b = append(b, make([]byte, align8(len(uuid)+1))...)
		copy(b[len(b)-align8(len(uuid)+1):], uuid)
	}
	return b
}

func TestDecodeList(t *testing.T) {
	first := entry(Dev{254, 0}, "ebb-a-top", "EBB-a", 9, listHasUUID, 0)
	native.PutUint32(first[8:], uint32(len(first)))
	b := append(first, entry(Dev{254, 1}, "x", "", 3, listHasNoUUID, 0)...)

	list, known, err := decodeList(b, minorListUUID)
	require.NoError(t, err)
	require.Equal(t, []Info{{Name: "ebb-a-top", UUID: "EBB-a", Dev: Dev{254, 0}, EventNr: 9}, {Name: "x", Dev: Dev{254, 1}, EventNr: 3}}, list)
	require.Equal(t, []bool{true, true}, known)

	_, known, err = decodeList(b, minorListEvent)
	require.NoError(t, err)
	require.Equal(t, []bool{false, false}, known, "older kernels give no UUIDs")

	for _, none := range [][]byte{nil, make([]byte, 16)} {
		list, _, err = decodeList(none, minorListUUID)
		require.NoError(t, err)
		require.Empty(t, list)
	}
	native.PutUint32(first[8:], 4096)
	_, _, err = decodeList(first, minorListUUID)
	require.ErrorIs(t, err, errShort)
}

func TestDecodeVersionsAndDeps(t *testing.T) {
	b := make([]byte, 48)
	for i, v := range []uint32{24, 1, 2, 3} {
		native.PutUint32(b[4*i:], v)
	}
	copy(b[16:], "mirror")
	native.PutUint32(b[24+4:], 5)
	copy(b[24+16:], "thin")
	versions, err := decodeVersions(b)
	require.NoError(t, err)
	require.Equal(t, map[string][3]uint32{"mirror": {1, 2, 3}, "thin": {5, 0, 0}}, versions)

	d := make([]byte, 24)
	native.PutUint32(d, 2)
	native.PutUint64(d[8:], unix.Mkdev(7, 0))
	native.PutUint64(d[16:], unix.Mkdev(259, 70000))
	devs, err := decodeDeps(d)
	require.NoError(t, err)
	require.Equal(t, []Dev{{7, 0}, {259, 70000}}, devs)
	native.PutUint32(d, 3)
	_, err = decodeDeps(d)
	require.ErrorIs(t, err, errShort)
}

func TestAnswerData(t *testing.T) {
	a := answer(request{data: []byte("12345678")}.encode(0))
	b, err := a.data()
	require.NoError(t, err)
	require.Equal(t, "12345678", string(b))
	native.PutUint32(a[offDataSize:], uint32(len(a)+1))
	_, err = a.data()
	require.ErrorIs(t, err, errShort)
	native.PutUint32(a[offDataSize:], 305) // what the kernel says when there is none
	b, err = a.data()
	require.NoError(t, err)
	require.Empty(t, b)
}

func TestNames(t *testing.T) {
	for _, good := range []string{"ebb-d-1-g7-pool", "a", strings.Repeat("n", 127)} {
		require.NoError(t, checkName(good))
	}
	for _, bad := range []string{"", ".", "..", "control", "a/b", "a b", "a\nb", "a\x00b", `a\b`, "é", strings.Repeat("n", 128)} {
		require.ErrorIs(t, checkName(bad), ErrInvalid, "%q", bad)
	}
	require.NoError(t, checkUUID(""))
	require.NoError(t, checkUUID(strings.Repeat("u", 128)))
	require.ErrorIs(t, checkUUID(strings.Repeat("u", 129)), ErrInvalid)
}

func TestErrors(t *testing.T) {
	err := fail(opLoad, "ebb-x-top", unix.EINVAL)
	require.EqualError(t, err, "device-mapper: load ebb-x-top: invalid argument")
	require.ErrorIs(t, err, unix.EINVAL)

	err = fail(opInfo, "x", unix.ENXIO)
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorIs(t, err, unix.ENXIO)
	require.ErrorIs(t, fail(opCreate, "x", unix.EBUSY), ErrExists)
	require.NotErrorIs(t, fail(opCreate, "x", unix.EBUSY), ErrBusy)
	require.ErrorIs(t, fail(opRemove, "x", unix.EBUSY), ErrBusy)
	require.ErrorIs(t, fail(opOpen, "", unix.ENOTTY), ErrUnsupported)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "x", e.Name)
}

func FuzzDecode(f *testing.F) {
	f.Add(status(Target{0, 10, "linear", "7:0 1"}, Target{10, 20, "error", ""}), uint32(2))
	f.Add(entry(Dev{254, 0}, "a", "u", 9, listHasUUID, 0), uint32(1))
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(_ *testing.T, b []byte, n uint32) { // none may panic or run for ever
		_, _ = decodeTable(b, n%64)
		_, _, _ = decodeList(b, minorListUUID)
		_, _ = decodeVersions(b)
		_, _ = decodeDeps(b)
		if len(b) >= headerLen {
			_, _ = answer(b).data()
			_ = answer(b).info()
		}
	})
}
