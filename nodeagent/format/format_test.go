package format

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func sample() *Header {
	h := &Header{
		Sequence: 7, Disk: "d-0123456789abcdef0", Name: "team/pg", Filesystem: "xfs", MountPath: "/data",
		SizeBytes: 64 << 30, Generation: 3, Born: 2, Role: Active, Move: "m-1", MovePhase: Copying, Peer: "vol-00000002", PeerGen: 4,
		RegionBytes: 1 << 20, CopyRegions: 99, ThrottleMiBs: 5, Paused: true, BlockBytes: 128 << 10, ThinID: 0,
		CreatedNS: 1, UpdatedNS: 2, Members: []Member{{Volume: "vol-00000001"}},
	}
	if err := h.Extend(0, 2<<30); err != nil {
		panic(err)
	}
	return h
}

func TestHeaderRoundTrip(t *testing.T) {
	h := sample()
	b, err := h.Encode()
	require.NoError(t, err)
	require.Len(t, b, HeaderBytes)
	got, err := Parse(b)
	require.NoError(t, err)
	require.Equal(t, h, got)
}

func TestNewest(t *testing.T) {
	enc := func(seq uint64) []byte {
		h := sample()
		h.Sequence = seq
		b, err := h.Encode()
		require.NoError(t, err)
		return b
	}
	zero := make([]byte, HeaderBytes)
	torn := enc(9)
	torn[700] ^= 1
	newer := enc(10)
	binary.LittleEndian.PutUint32(newer[8:], Version+1)
	binary.LittleEndian.PutUint32(newer[offCRC:], crc32.Checksum(newer[:offCRC], castagnoli))
	foreign := []byte(string(make([]byte, 100)) + "XFSB" + string(make([]byte, HeaderBytes)))[:HeaderBytes]

	for name, tc := range map[string]struct {
		a, b []byte
		seq  uint64
		err  error
	}{
		"first newer":       {enc(8), enc(7), 8, nil},
		"second newer":      {enc(8), enc(9), 9, nil},
		"torn write":        {enc(8), torn, 8, nil},
		"first ever":        {zero, enc(1), 1, nil},
		"blank":             {zero, zero, 0, ErrBlank},
		"damaged":           {zero, torn, 0, ErrDamaged},
		"foreign":           {zero, foreign, 0, ErrForeign},
		"newer version":     {enc(8), newer, 0, ErrNewer},
		"short":             {enc(8)[:100], zero, 0, ErrDamaged},
		"valid and foreign": {foreign, enc(3), 3, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := Newest(tc.a, tc.b)
			if tc.err != nil {
				require.ErrorIs(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.seq, h.Sequence)
		})
	}
}

func TestHeaderRefusesTheImpossible(t *testing.T) {
	for name, spoil := range map[string]func(*Header){
		"no disk":         func(h *Header) { h.Disk = "" },
		"role":            func(h *Header) { h.Role = 9 },
		"generation":      func(h *Header) { h.Generation = 0 },
		"index":           func(h *Header) { h.Index = 1 },
		"outside":         func(h *Header) { h.Segments[1].Length += 1 << 40 },
		"wraps":           func(h *Header) { h.Segments[1].Start = ^uint64(4095) },
		"into the header": func(h *Header) { h.Segments[0].Start = 4096 },
		"overlap":         func(h *Header) { h.Segments[1].Start -= 4096 },
		"twice":           func(h *Header) { h.Members = append(h.Members, h.Members[0]) },
		"long name":       func(h *Header) { h.Name = string(make([]byte, 200)) },
		"region":          func(h *Header) { h.RegionBytes = 3 << 20 },
	} {
		t.Run(name, func(t *testing.T) {
			h := sample()
			spoil(h)
			_, err := h.Encode()
			require.ErrorIs(t, err, ErrDamaged)
		})
	}
}

func TestExtend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &Header{
			Disk: "d", SizeBytes: 1 << 40, Generation: 1, Born: 1, Role: Active, BlockBytes: 128 << 10,
			Members: []Member{{Volume: "vol-1"}},
		}
		size := rapid.Uint64Range(1, 64).Draw(t, "first") << 30
		require.NoError(t, h.Extend(0, size))
		for range rapid.IntRange(0, 40).Draw(t, "growths") {
			meta, data := h.Bytes(Meta), h.Bytes(Data)
			if len(h.Members) < MaxMembers && rapid.IntRange(0, 5).Draw(t, "append") == 0 {
				h.Members = append(h.Members, Member{Volume: "vol-x" + string(rune('a'+len(h.Members)))})
				size = 0
			}
			size += rapid.Uint64Range(1, 2000).Draw(t, "more") << 30
			err := h.Extend(len(h.Members)-1, size)
			if errors.Is(err, ErrNoSpace) {
				return
			}
			require.NoError(t, err)
			require.NoError(t, h.check())
			require.GreaterOrEqual(t, h.Bytes(Meta), meta)
			require.Greater(t, h.Bytes(Data), data)
			require.GreaterOrEqual(t, h.Bytes(Meta), metaNeed(h.Bytes(Data), h.BlockBytes))
			before := h.Clone()
			require.NoError(t, h.Extend(len(h.Members)-1, size))
			require.Equal(t, before, h, "extending to the same size changes nothing")
		}
	})
}

func TestLogRoundTrip(t *testing.T) {
	const n = 81921
	m := NewBitmap(n)
	m.Set(0)
	m.Set(77)
	m.Set(n - 1)
	b := LogHeader(n, m)
	got, err := ParseLog(b, n)
	require.NoError(t, err)
	require.Equal(t, m, got)
	_, err = ParseLog(b, n+1)
	require.ErrorIs(t, err, ErrDamaged)
	require.True(t, got.Get(77))
	got.Clear(77)
	require.False(t, got.Get(77))
}

func TestRegionSizes(t *testing.T) {
	for _, tc := range []struct{ size, largest, least uint64 }{
		{1 << 30, 4 << 20, 512 << 10}, {256 << 30, 4 << 20, 512 << 10}, {512 << 30, 4 << 20, 1 << 20}, {2 << 40, 4 << 20, 4 << 20}, {64 << 40, 128 << 20, 128 << 20},
	} {
		sizes := RegionSizes(tc.size)
		require.Equal(t, tc.largest, sizes[0])
		require.Equal(t, tc.least, sizes[len(sizes)-1])
		require.LessOrEqual(t, len(LogHeader(tc.size/tc.least, NewBitmap(tc.size/tc.least))), LogBytes)
	}
}

func TestHistoryRing(t *testing.T) {
	ring := make([]byte, HistoryBytes)
	put := func(u Usage) { copy(ring[UsageOffset(u.Hour)-HistoryOffset:], u.Encode()) }
	const start = 490_000
	for i := range int64(HistorySlots + 10) {
		put(Usage{Hour: start + i, UsedMax: uint64(i)})
	}
	got := ParseHistory(ring)
	require.Len(t, got, HistorySlots)
	require.Equal(t, int64(start+10), got[0].Hour)
	require.Equal(t, int64(start+HistorySlots+9), got[len(got)-1].Hour)
	ring[100] ^= 0xff // a torn record is left out
	require.Len(t, ParseHistory(ring), HistorySlots-1)
	require.GreaterOrEqual(t, HistorySlots, 90*24)
}

func FuzzParse(f *testing.F) {
	b, _ := sample().Encode()
	f.Add(b)
	f.Add(make([]byte, HeaderBytes))
	f.Add([]byte("EBBVOL"))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum would reject nearly everything: mend it, so the fields are reached.
		if len(b) >= HeaderBytes {
			copy(b, magic[:])
			binary.LittleEndian.PutUint32(b[offCRC:], crc32.Checksum(b[:offCRC], castagnoli))
		}
		h, err := Parse(b)
		if err != nil {
			return
		}
		e, err := h.Encode()
		require.NoError(t, err)
		h2, err := Parse(e)
		require.NoError(t, err)
		require.Equal(t, h, h2)
	})
}

func FuzzHistoryAndLog(f *testing.F) {
	f.Add(Usage{Hour: 5}.Encode(), uint64(9))
	f.Fuzz(func(t *testing.T, b []byte, n uint64) {
		ParseHistory(b)
		if n < 1<<24 {
			_, _ = ParseLog(b, n)
		}
	})
}
