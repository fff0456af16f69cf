package cmd

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
	"github.com/ebb-storage/ebb/starter/internal/control"
)

func TestHeadroomGrowth(t *testing.T) {
	const overhead = 64 << 20
	m := contract.Measurement{
		SizeBytes: 1000 * contract.GiB, OverheadBytes: overhead, PoolBytes: 100*contract.GiB - overhead, PoolUsedBytes: 76 * contract.GiB,
		Members: []contract.Member{{Bytes: 60 * contract.GiB}, {Bytes: 40 * contract.GiB}},
	}
	for name, c := range map[string]struct {
		bytes    int64
		from, to int64
		ceiling  bool
	}{
		"free already":      {20 * contract.GiB, 0, 0, false},
		"more":              {200 * contract.GiB, 100, 277, false},
		"more than a disk":  {5000 * contract.GiB, 100, 1001, true},
		"exactly the disk":  {924 * contract.GiB, 100, 1001, false},
		"one byte too much": {924*contract.GiB + contract.GiB, 100, 1001, true},
	} {
		v := headroomView{Bytes: c.bytes}
		v.grow(m, 0)
		require.Equal(t, []any{c.from, c.to, c.ceiling}, []any{v.FromGiB, v.ToGiB, v.Ceiling}, name)
		if c.to > 0 && !c.ceiling {
			require.GreaterOrEqual(t, c.to*contract.GiB-overhead-m.PoolUsedBytes, c.bytes, name)
		}
	}
	v := headroomView{Bytes: 200 * contract.GiB}
	v.grow(m, 8*contract.GiB)
	require.EqualValues(t, 285, v.ToGiB, "with what the policy keeps free")
	v = headroomView{Bytes: 920 * contract.GiB}
	v.grow(m, 8*contract.GiB)
	require.EqualValues(t, 1001, v.ToGiB)
	require.False(t, v.Ceiling, "the room itself fits")
	// A backing that holds the whole disk cannot grow.
	m.PoolBytes, m.Members = 1001*contract.GiB-overhead, []contract.Member{{Bytes: 1001 * contract.GiB}}
	v = headroomView{Bytes: 2000 * contract.GiB}
	v.grow(m, 0)
	require.Zero(t, v.ToGiB)
	require.True(t, v.Ceiling)
}

// TestHeadroomSuffices: the planner, which keeps the room free from then on, wants no
// growth after it.
func TestHeadroomSuffices(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, backing := rapid.Int64Range(10, 16000).Draw(t, "sizeGiB"), rapid.Int64Range(2, 4000).Draw(t, "backingGiB")
		m := contract.Measurement{SizeBytes: size * contract.GiB, OverheadBytes: plan.OverheadBytes(backing), Members: []contract.Member{{Bytes: backing * contract.GiB}}}
		m.PoolBytes = backing*contract.GiB - m.OverheadBytes
		m.PoolUsedBytes = rapid.Int64Range(0, min(m.PoolBytes, m.SizeBytes)).Draw(t, "used")
		now := time.Now()
		r := plan.DefaultRule()
		v := headroomView{Bytes: rapid.Int64Range(1, 8000*contract.GiB).Draw(t, "bytes")}
		v.grow(m, r.Headroom(now, m.PoolUsedBytes, 0))
		if v.ToGiB == 0 {
			return
		}
		r.ExtraBytes, r.ExtraUntil = v.Bytes, now.Add(time.Hour)
		more := v.ToGiB - backing
		f := plan.Facts{
			SizeBytes: m.SizeBytes, UsedBytes: m.PoolUsedBytes, OverheadBytes: m.OverheadBytes + more*contract.GiB/1000 + 4<<20,
			Volumes: []plan.Volume{{ID: "vol-00000001", GiB: v.ToGiB, Type: "gp3"}},
		}
		d := plan.Decide(now, f, plan.History{}, r, plan.DefaultLimits(), plan.Prices{})
		require.NotContains(t, []plan.Action{plan.Grow, plan.Append}, d.Wanted, "%v", d.Reasons)
	})
}

// TestHeadroomOfACluster: EC2 and the node do not tell the cluster, which is the worker's.
func TestHeadroomOfACluster(t *testing.T) {
	p, err := policy.Load([]byte("apiVersion: ebb.io/v1alpha1\nkind: Policy\nrules:\n- {name: here, match: {clusters: lab}, headroom: {bytes: 50GiB}}\n"))
	require.NoError(t, err)
	seen := control.Decided{Facts: []plan.Facts{{Disk: "d-00000000000000001"}, {Disk: "d-00000000000000002", Cluster: "lab"}}}
	last := func() (control.Decided, error) { return seen, nil }
	f := plan.Facts{Disk: "d-00000000000000003"}
	require.Equal(t, 50*contract.GiB, keptFree(time.Now(), p, f, last))
	require.Equal(t, 5*contract.GiB, keptFree(time.Now(), p, f, func() (control.Decided, error) { return seen, errors.New("there was no run yet") }))
	// Nobody is asked where no rule is for a cluster.
	require.Equal(t, 5*contract.GiB, keptFree(time.Now(), &policy.Policy{}, f, nil))
}
