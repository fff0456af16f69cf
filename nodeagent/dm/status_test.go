package dm

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsePool(t *testing.T) {
	for line, want := range map[string]PoolStatus{
		"0 31/4096 0/1600 - rw discard_passdown queue_if_no_space - 1024": {
			UsedMeta: 31, TotalMeta: 4096, TotalData: 1600, Mode: "rw", DiscardPassdown: true, QueueIfNoSpace: true, MetaLowWater: 1024,
		},
		"3 31/4096 1600/1600 17 out_of_data_space no_discard_passdown error_if_no_space needs_check 1024": {
			Transaction: 3, UsedMeta: 31, TotalMeta: 4096, UsedData: 1600, TotalData: 1600, HeldRoot: 17, HasHeldRoot: true,
			Mode: "out_of_data_space", NeedsCheck: true, MetaLowWater: 1024,
		},
		"1 2/3 4/5 - ro ignore_discard queue_if_no_space ": { // before 3.18 nothing followed
			Transaction: 1, UsedMeta: 2, TotalMeta: 3, UsedData: 4, TotalData: 5, Mode: "ro", QueueIfNoSpace: true,
		},
		"Fail":  {Failed: true},
		"Error": {Error: true},
	} {
		got, err := ParsePool(line)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
	for _, bad := range []string{"", "Fai", "0 31 0/1600 - rw", "0 31/4096 0/1600 - xx", "x 31/4096 0/1600 - rw", "0 31/x 0/1600 - rw", "0 1/2 3/4 y rw", "-1 1/2 3/4 - rw", "Fail Fail"} {
		_, err := ParsePool(bad)
		require.ErrorIs(t, err, ErrStatus, "%q", bad)
	}
}

func TestParseThin(t *testing.T) {
	for line, want := range map[string]ThinStatus{
		"8192 20479": {MappedSectors: 8192, HighestSector: 20479, HasHighest: true},
		"0 -":        {},
		"Fail":       {Failed: true},
		"Error":      {Failed: true},
	} {
		got, err := ParseThin(line)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
	for _, bad := range []string{"", "-", "1", "x -", "1 x", "1 2 3"} {
		_, err := ParseThin(bad)
		require.ErrorIs(t, err, ErrStatus, "%q", bad)
	}
}

func TestParseMirror(t *testing.T) {
	devs := []Dev{{254, 1}, {254, 2}}
	for line, want := range map[string]MirrorStatus{
		"2 254:1 254:2 81918/81920 1 AA 3 disk 254:5 A": {
			Devs: devs, Health: []byte("AA"), InSync: 81918, Total: 81920, Log: "disk", LogDev: Dev{254, 5}, LogHealth: 'A',
		},
		"2 254:1 254:2 1/81920 1 AD 3 disk 254:5 A": {
			Devs: devs, Health: []byte("AD"), InSync: 1, Total: 81920, Log: "disk", LogDev: Dev{254, 5}, LogHealth: 'A',
		},
		"2 254:1 254:2 5/5 1 AA 3 disk 254:5 D": {
			Devs: devs, Health: []byte("AA"), InSync: 5, Total: 5, Log: "disk", LogDev: Dev{254, 5}, LogHealth: 'D',
		},
		"2 254:1 254:2 5/5 1 AA 1 core": {Devs: devs, Health: []byte("AA"), InSync: 5, Total: 5, Log: "core"},
		"2 254:1 254:2 5/5 1 AA":        {Devs: devs, Health: []byte("AA"), InSync: 5, Total: 5},
	} {
		got, err := ParseMirror(line)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
		require.Equal(t, string(want.Health) == "AA" && want.LogHealth != 'D', got.AllAlive(), line)
	}
	for _, bad := range []string{
		"", "0", "2", "99999999999999999999 1:1", "65535 254:1", "2 254:1 254:2 5/5 1 A", "2 254:1 254:2 5/5 2 AA AA",
		"2 254:1 x 5/5 1 AA", "2 254:1 254:2 5 1 AA", "2 254:1 254:2 5/5 1 AA 3 disk 254:5", "2 254:1 254:2 5/5 1 AA 1 disk",
		"2 254:1 254:2 5/5 1 AA 3 disk 254:5 AA", "2 254:1 254:2 5/5 1 AA 0",
	} {
		_, err := ParseMirror(bad)
		require.ErrorIs(t, err, ErrStatus, "%q", bad)
	}
	require.False(t, MirrorStatus{}.AllAlive())
}

func TestBuilders(t *testing.T) {
	origin := Dev{7, 9}
	for want, got := range map[string]Target{
		"8 16 linear 7:1 2048":          Linear(8, 16, Dev{7, 1}, 2048),
		"0 64 striped 2 16 7:1 0 7:2 8": Striped(0, 64, 16, []Leg{{Dev{7, 1}, 0}, {Dev{7, 2}, 8}}),
		"0 64 error":                    ErrorTarget(0, 64),
		"0 64 thin-pool 7:1 7:2 128 5 1 skip_block_zeroing":         ThinPool(64, Dev{7, 1}, Dev{7, 2}, 128, 5, "skip_block_zeroing"),
		"0 64 thin-pool 7:1 7:2 128 5 0":                            ThinPool(64, Dev{7, 1}, Dev{7, 2}, 128, 5),
		"0 64 thin 7:1 3":                                           Thin(64, Dev{7, 1}, 3, nil),
		"0 64 thin 7:1 3 7:9":                                       Thin(64, Dev{7, 1}, 3, &origin),
		"0 64 mirror disk 2 7:3 2048 2 7:1 0 7:2 0 1 handle_errors": Mirror(64, Dev{7, 3}, 2048, Dev{7, 1}, Dev{7, 2}),
	} {
		require.Equal(t, want, got.String())
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"0 31/4096 0/1600 - rw discard_passdown queue_if_no_space - 1024", "Fail", "Error", "8192 20479", "0 -",
		"2 254:1 254:2 81918/81920 1 AA 3 disk 254:5 A", "2 254:1 254:2 5/5 1 AD 1 core", "65535 1:1 1/1 1 A",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePool(s); err == nil && p.Mode == "" && !p.Failed && !p.Error {
			t.Errorf("no mode: %+v", p)
		}
		_, _ = ParseThin(s)
		if m, err := ParseMirror(s); err == nil && (len(m.Health) != len(m.Devs) || len(m.Devs) == 0) {
			t.Errorf("legs: %+v", m)
		}
		if d, err := ParseDev(s); err == nil {
			if again, err := ParseDev(d.String()); err != nil || again != d {
				t.Errorf("%q: %v", s, d)
			}
		}
	})
}
