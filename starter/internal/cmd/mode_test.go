package cmd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

func TestSelector(t *testing.T) {
	s, err := selector([]string{"disk=a/b", "namespace=n", "cluster=c", "rule=r + disk x", "tag:team=db=1", "tag:env=prod"})
	require.NoError(t, err)
	require.Equal(t, contract.Switch{Disk: "a/b", Namespace: "n", Cluster: "c", Rule: "r + disk x", Tags: map[string]string{"team": "db=1", "env": "prod"}}, s)
	require.Equal(t, "disk=a/b namespace=n cluster=c rule=r + disk x tag:env=prod tag:team=db=1", selectorWords(s))
	for _, bad := range [][]string{{"prod"}, {"namespace="}, {"=x"}, {"tag=x"}, {"tag:=x"}, {"tag:a=1", "tag:a=2"}, {"disk=a", "disk=b"}, {"claim=x"}} {
		_, err := selector(bad)
		require.Equal(t, exit.Usage, exit.CodeOf(err), bad)
	}
}

// Whatever was switched before: the new switch is the last, once, and is gone when
// it is taken away; without a selector nothing else is left; again changes nothing.
func TestSwitched(t *testing.T) {
	some := rapid.Custom(func(t *rapid.T) contract.Switch {
		s := contract.Switch{
			Mode: rapid.SampledFrom([]contract.Mode{contract.Observe, contract.Recommend, contract.Enforce}).Draw(t, "mode"),
			Disk: rapid.SampledFrom([]string{"", "a"}).Draw(t, "disk"), Namespace: rapid.SampledFrom([]string{"", "n"}).Draw(t, "namespace"),
		}
		if rapid.Bool().Draw(t, "tagged") {
			s.Tags = map[string]string{"k": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "tag")}
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		var have []contract.Switch
		for _, s := range rapid.SliceOfN(some, 0, 8).Draw(t, "before") {
			have = switched(have, s, false)
		}
		s := some.Draw(t, "switch")
		set := switched(have, s, false)
		require.Equal(t, s, set[len(set)-1])
		require.Equal(t, set, switched(set, s, false))
		gone := switched(set, s, true)
		require.Len(t, gone, len(set)-1)
		require.Equal(t, gone, switched(gone, s, true))
		if all(s) {
			require.Len(t, set, 1)
		}
	})
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		15 * time.Minute: "15m", 6 * time.Hour: "6h", 90 * time.Second: "1m30s", 90 * time.Minute: "1h30m", 45 * time.Second: "45s", 10 * time.Hour: "10h", 20 * time.Minute: "20m",
	} {
		require.Equal(t, want, duration(d))
	}
}
