package price_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/price"
)

func TestBuiltInHasWhatPlanningNeeds(t *testing.T) {
	b := price.BuiltIn()
	require.NotEmpty(t, b.Source)
	for region := range b.Regions {
		p, ok := b.In(region)
		require.True(t, ok)
		require.Equal(t, region, p.Region)
		require.Equal(t, b.Date, p.Date)
		require.Positive(t, p.SnapshotGiBMonth)
		for name := range plan.DefaultLimits().Types {
			require.Positive(t, p.Types[name].GiB, "%s in %s", name, region)
		}
		require.Less(t, p.Types["gp3"].GiB, p.Types["gp2"].GiB)
	}
}

// Examples from the public price page for us-east-1.
func TestVolumeMonth(t *testing.T) {
	p, _ := price.BuiltIn().In("us-east-1")
	for _, tt := range []struct {
		v    plan.Volume
		want float64
	}{
		{plan.Volume{Type: "gp3", GiB: 100, IOPS: 3000, ThroughputMiBs: 125}, 8},
		{plan.Volume{Type: "gp3", GiB: 100, IOPS: 4000, ThroughputMiBs: 225}, 8 + 5 + 4},
		{plan.Volume{Type: "gp2", GiB: 100}, 10},
		{plan.Volume{Type: "io1", GiB: 10, IOPS: 1000}, 1.25 + 65},
		{plan.Volume{Type: "io2", GiB: 100, IOPS: 70000}, 12.5 + 32000*.065 + 32000*.046 + 6000*.032},
	} {
		require.InDelta(t, tt.want, p.VolumeMonth(tt.v), 1e-9, "%+v", tt.v)
	}
	require.InDelta(t, 18, p.BackingMonth([]plan.Volume{{Type: "gp2", GiB: 100}, {Type: "gp3", GiB: 100}}), 1e-9)
}

func TestUnknownRegionIsSaid(t *testing.T) {
	p, ok := price.BuiltIn().In("mars-north-1")
	require.False(t, ok)
	require.Equal(t, price.DefaultRegion, p.Region)
}

// A list of other regions alone must not make everything cost nothing.
func TestUnknownRegionHasPricesAllTheSame(t *testing.T) {
	b := price.BuiltIn()
	b.Regions = map[string]price.Table{"eu-west-1": b.Regions["us-west-2"]}
	p, ok := b.In("mars-north-1")
	require.False(t, ok)
	require.Equal(t, price.DefaultRegion, p.Region)
	require.Positive(t, p.Types["gp3"].GiB)
}

func TestRegionHasADateOfItsOwn(t *testing.T) {
	b := price.BuiltIn()
	own := b.Regions["us-west-2"]
	own.Date, own.Source = "2026-10-01", "elsewhere"
	b.Regions["us-west-2"] = own
	p, _ := b.In("us-west-2")
	require.Equal(t, []string{"2026-10-01", "elsewhere"}, []string{p.Date, p.Source})
	p, _ = b.In("us-east-1")
	require.Equal(t, []string{b.Date, b.Source}, []string{p.Date, p.Source})
	own.Date = "soon"
	b.Regions["us-west-2"] = own
	data, err := b.JSON()
	require.NoError(t, err)
	_, err = price.Load(data)
	require.ErrorContains(t, err, `us-west-2: date "soon": want a day`)
}

func TestBookSurvivesJSON(t *testing.T) {
	b := price.BuiltIn()
	data, err := b.JSON()
	require.NoError(t, err)
	again, err := price.Load(data)
	require.NoError(t, err)
	require.Equal(t, b, again)
}

func TestLoadRefuses(t *testing.T) {
	good, err := price.BuiltIn().JSON()
	require.NoError(t, err)
	for name, tt := range map[string]struct{ old, with, want string }{
		"unknown field": {`"date"`, `"day"`, "unknown field"},
		"date":          {price.BuiltIn().Date, "yesterday", `date "yesterday": want a day`},
		"negative":      {`"snapshotGiBMonth": 0.05`, `"snapshotGiBMonth": -1`, "a price is negative"},
		"no gp3":        {`"gp3"`, `"gp9"`, "no price for gp3"},
		"free":          {`"gib": 0.08,`, `"gib": 0,`, "gp3: gib: want more than 0"},
		"tiers":         {`"from": 32000`, `"from": 99999`, "want ascending from"},
		"not JSON":      {"{", "[", "price list"},
		"twice":         {"\n}\n", "\n}\n{}", "after the list"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := price.Load([]byte(strings.Replace(string(good), tt.old, tt.with, 99)))
			require.ErrorContains(t, err, tt.want)
		})
	}
	_, err = price.Load([]byte(`{"date": "2026-01-01", "source": "", "regions": {}}`))
	require.ErrorContains(t, err, "no region")
}
