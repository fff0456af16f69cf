package disk

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/nodeagent/format"
	"github.com/ebb-storage/ebb/nodeagent/volume"
)

const testDisk = "d-00000000000000001"

// vol is an attached volume as the scan finds it: its id, its place and the
// backing that its header describes.
func vol(id string, index uint32, h format.Header, members ...string) find {
	h.Disk, h.Index, h.SizeBytes, h.BlockBytes = testDisk, index, 1<<30, 128<<10
	if h.Born == 0 {
		h.Born = h.Generation
	}
	if len(members) == 0 {
		members = []string{id}
	}
	for _, m := range members {
		h.Members = append(h.Members, format.Member{Volume: m, Bytes: 1 << 30})
	}
	return find{Candidate: volume.Candidate{ID: id}, head: &h}
}

func unreadable(id string) find {
	return find{Candidate: volume.Candidate{ID: id}, err: errors.New("read error")}
}

func TestLookIn(t *testing.T) {
	type H = format.Header
	const in, active, retired = format.Incoming, format.Active, format.Retired
	for _, c := range []struct {
		name     string
		finds    []find
		here     running
		refusal  contract.RefusalCode
		volume   string // that the refusal names
		active   string // member 0
		incoming string
	}{
		{name: "one volume", finds: []find{vol("a", 0, H{Generation: 3, Role: active})}, active: "a"},
		{
			name: "a crash between the headers of a commit: the new backing's second volume is active, its first not yet",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n0", PeerGen: 2}),
				vol("n0", 0, H{Generation: 2, Role: in, Move: "m", MovePhase: format.Copying, Peer: "o"}, "n0", "n1"),
				vol("n1", 1, H{Generation: 2, Role: active, Move: "m", Peer: "o"}, "n0", "n1"),
			},
			active: "o", incoming: "n0",
		},
		{
			name: "a crash between the headers of an abort that lifts the generation",
			finds: []find{
				vol("o0", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n", PeerGen: 2}, "o0", "o1"),
				vol("o1", 1, H{Generation: 3, Born: 1, Role: active}, "o0", "o1"),
				vol("n", 0, H{Generation: 2, Role: in, Move: "m", MovePhase: format.Copying, Peer: "o0"}),
			},
			active: "o0", incoming: "n",
		},
		{
			name: "a crash between the headers of an append",
			finds: []find{
				vol("a", 0, H{Generation: 1, Role: active}),
				vol("b", 1, H{Generation: 1, Role: active}, "a", "b"),
			},
			active: "a",
		},
		{
			name: "a crash between the headers of a retirement",
			finds: []find{
				vol("o0", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n", PeerGen: 2}, "o0", "o1"),
				vol("o1", 1, H{Generation: 1, Role: retired}, "o0", "o1"),
				vol("n", 0, H{Generation: 2, Role: active, Move: "m", Peer: "o0", PeerGen: 1}),
			},
			active: "n",
		},
		{
			name: "volumes of aborted moves that are still attached",
			finds: []find{
				vol("a", 0, H{Generation: 1, Role: active}),
				vol("x", 0, H{Generation: 2, Role: retired, Move: "m1", CreatedNS: 1}),
				vol("y", 0, H{Generation: 2, Role: retired, Move: "m2", CreatedNS: 2}),
				vol("z", 0, H{Generation: 2, Role: in, Move: "m3", CreatedNS: 3}),
				vol("w", 0, H{Generation: 2, Role: in, Move: "m4", CreatedNS: 4}),
			},
			active: "a", incoming: "w",
		},
		{
			name: "the recorded peer is the incoming one, not the newest",
			finds: []find{
				vol("a", 0, H{Generation: 1, Role: active, Move: "m3", MovePhase: format.Copying, Peer: "z", PeerGen: 2}),
				vol("z", 0, H{Generation: 2, Role: in, Move: "m3", CreatedNS: 3, MovePhase: format.Copying}),
				vol("w", 0, H{Generation: 2, Role: in, Move: "m4", CreatedNS: 4}),
			},
			active: "a", incoming: "z",
		},
		{
			name: "two active ones of a generation",
			finds: []find{
				vol("a", 0, H{Generation: 2, Role: active}),
				vol("b", 0, H{Generation: 2, Role: active}),
			},
			refusal: contract.DuplicateGeneration, volume: "b",
		},
		{
			name:    "a member is missing",
			finds:   []find{vol("a", 0, H{Generation: 1, Role: active}, "a", "b")},
			refusal: contract.DiskIncomplete, volume: "b",
		},
		{
			name:    "only the second member is attached",
			finds:   []find{vol("b", 1, H{Generation: 1, Role: active}, "a", "b")},
			refusal: contract.DiskIncomplete, volume: "a",
		},
		{
			name: "the newest generation is there in part",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active}),
				vol("n1", 1, H{Generation: 2, Role: active}, "n0", "n1"),
			},
			refusal: contract.DiskIncomplete, volume: "n0",
		},
		{
			name: "an old generation is there in part",
			finds: []find{
				vol("o0", 0, H{Generation: 1, Role: active}, "o0", "o1"),
				vol("n", 0, H{Generation: 2, Role: active}),
			},
			active: "n",
		},
		{
			name: "committing, the peer is away",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n", PeerGen: 2}),
			},
			refusal: contract.DiskIncomplete, volume: "n",
		},
		{
			name: "committing, the peer cannot be read, but the mirror still runs here",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n", PeerGen: 2}),
				unreadable("n"),
			},
			here: running{mirrored: true}, active: "o",
		},
		{
			name: "committed in the headers, but the new leg of the running mirror has died",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n", PeerGen: 2}),
				vol("n", 0, H{Generation: 2, Role: active, Move: "m", Peer: "o", PeerGen: 1}),
			},
			here: running{mirrored: true, newDead: true}, active: "o",
		},
		{
			name: "the same with one of two new volumes gone",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n0", PeerGen: 2}),
				vol("n0", 0, H{Generation: 2, Role: active, Move: "m", Peer: "o", PeerGen: 1}, "n0", "n1"),
			},
			here: running{mirrored: true, newDead: true}, active: "o",
		},
		{
			name: "committing, the peer cannot be read, scrap of another move is there",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n", PeerGen: 2}),
				unreadable("n"),
				vol("x", 0, H{Generation: 2, Role: in, Move: "m0", Peer: "o"}),
			},
			here: running{mirrored: true}, active: "o",
		},
		{
			name: "committing, the peer is scrap",
			finds: []find{
				vol("o", 0, H{Generation: 1, Role: active, Move: "m", MovePhase: format.Committing, Peer: "n", PeerGen: 2}),
				vol("n", 0, H{Generation: 2, Role: retired, Move: "m", Peer: "o"}),
			},
			active: "o",
		},
		{
			name: "the old volume, which may have been lifted above the new one by an abort, cannot be read",
			finds: []find{
				unreadable("o"),
				vol("n", 0, H{Generation: 2, Role: active, Move: "m", Peer: "o", PeerGen: 1}),
			},
			refusal: contract.VolumeFailing, volume: "o",
		},
		{
			name:   "the old volume is gone",
			finds:  []find{vol("n", 0, H{Generation: 2, Role: active, Move: "m", Peer: "o", PeerGen: 1})},
			active: "n",
		},
		{
			name: "a copy beside its original",
			finds: []find{
				vol("a", 0, H{Generation: 1, Role: active}),
				vol("copy", 0, H{Generation: 1, Role: active}, "a"),
			},
			refusal: contract.DuplicateGeneration, volume: "copy",
		},
		{
			name: "a copy beside its original, which is up",
			finds: []find{
				vol("a", 0, H{Generation: 1, Role: active}),
				vol("copy", 0, H{Generation: 1, Role: active}, "a"),
			},
			here: running{over: "253:7"}, active: "a",
		},
		{
			name:    "a copy alone",
			finds:   []find{vol("copy", 0, H{Generation: 1, Role: active}, "a")},
			refusal: contract.VolumeClone, volume: "copy",
		},
		{
			name:    "only a retired one",
			finds:   []find{vol("o", 0, H{Generation: 1, Role: retired})},
			refusal: contract.DiskIncomplete, volume: "o",
		},
		{
			name:    "only an incoming one",
			finds:   []find{vol("n", 0, H{Generation: 2, Role: in, Move: "m", Peer: "o"})},
			refusal: contract.DiskIncomplete, volume: "o",
		},
		{name: "nothing", refusal: contract.DiskUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := lookIn(c.finds, testDisk, c.here)
			if err == nil && v.suspect != nil {
				err = v.suspect
			}
			if c.refusal != "" {
				r, ok := contract.AsRefusal(err)
				require.True(t, ok, "%v", err)
				require.Equal(t, c.refusal, r.Code, "%v", r)
				require.Equal(t, c.volume, r.Volume, "%v", r)
				require.NotEmpty(t, r.Next)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.active, v.active.vols[0])
			if c.incoming == "" {
				require.Nil(t, v.incoming)
			} else {
				require.Equal(t, c.incoming, v.incoming.vols[0])
			}
		})
	}
}

// TestLookInBesideMute: a volume that does not answer may do so yet. Only where it can
// matter is there an error, and one that is worth another try.
func TestLookInBesideMute(t *testing.T) {
	type H = format.Header
	silent := func(id string, was contract.DiskID) find {
		return find{Candidate: volume.Candidate{ID: id}, err: fmt.Errorf("volume %s: %w", id, errMute), was: was}
	}
	const other = contract.DiskID("d-00000000000000002")
	one := vol("a", 0, H{Generation: 1, Role: format.Active})
	for name, c := range map[string]struct {
		finds []find
		ok    bool
	}{
		"another disk's":                         {[]find{one, silent("x", other)}, true},
		"nobody's":                               {[]find{one, silent("x", nobodys)}, true},
		"not known whose":                        {[]find{one, silent("x", "")}, true},
		"its own":                                {[]find{one, silent("x", testDisk)}, false},
		"a member":                               {[]find{vol("a", 0, H{Generation: 1, Role: format.Active}, "a", "x"), silent("x", "")}, false},
		"member 0":                               {[]find{vol("b", 1, H{Generation: 1, Role: format.Active}, "x", "b"), silent("x", "")}, false},
		"the peer of a commit":                   {[]find{vol("a", 0, H{Generation: 1, Role: format.Active, Move: "m", MovePhase: format.Committing, Peer: "x", PeerGen: 2}), silent("x", "")}, false},
		"the peer of an end that is not certain": {[]find{vol("a", 0, H{Generation: 2, Role: format.Active, Move: "m", Peer: "x", PeerGen: 1}), silent("x", "")}, false},
		"all there is":                           {[]find{silent("x", "")}, false},
		"all but a retired one":                  {[]find{vol("o", 0, H{Generation: 1, Role: format.Retired}), silent("x", "")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := lookIn(c.finds, testDisk, running{})
			if err == nil {
				err = v.suspect
			}
			if c.ok {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, errMute)
			require.ErrorContains(t, err, testDisk)
			_, refused := contract.AsRefusal(err)
			require.False(t, refused)
		})
	}
}

// TestWhoseAMuteVolumeWas: what it said last counts; what a disk has replaced holds
// back nothing of it.
func TestWhoseAMuteVolumeWas(t *testing.T) {
	type H = format.Header
	silent := func(id string) find {
		return find{Candidate: volume.Candidate{ID: id}, err: fmt.Errorf("volume %s: %w", id, errMute)}
	}
	var o owners
	o.note([]find{
		vol("old", 0, H{Generation: 1, Role: format.Retired}), vol("a", 0, H{Generation: 2, Role: format.Active, Peer: "old", PeerGen: 1}),
		vol("in", 0, H{Generation: 3, Role: format.Incoming}),
	})
	finds := []find{silent("old"), silent("a"), silent("in"), silent("new")}
	for range 2 { // it is remembered
		o.note(finds)
		require.Equal(t, []contract.DiskID{nobodys, testDisk, testDisk, ""}, []contract.DiskID{finds[0].was, finds[1].was, finds[2].was, finds[3].was})
	}
	v, err := lookIn([]find{finds[0], vol("a", 0, H{Generation: 2, Role: format.Active})}, testDisk, running{})
	require.NoError(t, err)
	require.NoError(t, v.suspect)
}

// TestPrefer: leftovers of other moves do not hide the one that is asked for.
func TestPrefer(t *testing.T) {
	type H = format.Header
	v, err := lookIn([]find{
		vol("a", 0, H{Generation: 1, Role: format.Active}),
		vol("x", 0, H{Generation: 2, Role: format.Incoming, Move: "m1", CreatedNS: 1}),
		vol("y", 0, H{Generation: 2, Role: format.Incoming, Move: "m2", CreatedNS: 2}),
	}, testDisk, running{})
	require.NoError(t, err)
	require.Equal(t, "y", v.incoming.vols[0])
	v.prefer("m1")
	require.Equal(t, "x", v.incoming.vols[0])
	v.prefer("m0")
	require.Equal(t, "x", v.incoming.vols[0])
}
