package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
)

const head = "apiVersion: ebb.io/v1alpha1\nkind: Policy\n"

const full = head + `metadata:
  name: production
defaults:
  mode: recommend
  target: 85%
  headroom: {bytes: 1GiB, percent: 10%, fillTime: 20m}
  shrink: {lookBack: 3d, quiet: 12h, payback: 14d, min: 5GiB, minPercent: 12.5%}
  windows:
    - {days: [Mon-Fri], from: "22:00", to: "06:00", zone: Europe/Berlin}
    - {days: Sun, from: "00:00", to: "24:00"}
rules:
  - name: databases
    match:
      namespaces: [prod-*, billing]
      labels: {app: postgres*}
    mode: enforce
    target: 75%
    floor: 20GiB
    ceiling: 2TiB
    atCeiling: fail
    grow: {minStep: 2GiB, minStepPercent: 10%, maxStep: 500GiB}
    move: {verify: full, snapshot: true, snapshotRetention: 2w, grace: 1d12h, throttle: 200MiB/s}
    performance: {minIOPS: 6000, minThroughput: 250MiB/s, followPeak: true, peakHeadroom: 30%, types: [gp3, io2], maxStripes: 2}
  - name: notebooks
    match: {namespaces: notebooks, claims: "home-*", storageClasses: [ebb], clusters: [a], nodeGroups: [cpu], tags: {team: "*"}}
    headroom: {fillTime: 1h}
  - name: rest
disks:
  - disk: d-0123456789abcdef0
    mode: observe
  - disk: prod-a/data
    target: 60%
budgets: {movesPerNode: 1, movesPerZone: 10, moves: 40, extra: 5TiB, modificationsPerDay: 2000}
`

func load(t *testing.T, doc string) *policy.Policy {
	t.Helper()
	p, err := policy.Load([]byte(doc))
	require.NoError(t, err)
	return p
}

func TestFirstMatchWinsAndOverridesComeOnTop(t *testing.T) {
	p := load(t, full)
	require.Equal(t, []string{"databases", "notebooks", "rest"}, p.Rules())
	require.Equal(t, plan.Budgets{MovesPerNode: 1, MovesPerZone: 10, Moves: 40, ExtraGiB: 5120, ModificationsPerDay: 2000}, p.Budgets)

	db := plan.Facts{Disk: "d-aaaaaaaaaaaaaaaaa", Namespace: "prod-a", Labels: map[string]string{"app": "postgres15"}}
	r, name := p.For(db)
	require.Equal(t, "databases", name)
	require.Equal(t, "databases", r.Name)
	want := plan.DefaultRule()
	want.Name, want.Mode, want.Target = "databases", plan.Enforce, 0.75
	want.HeadroomBytes, want.HeadroomPercent, want.HeadroomTime = 1<<30, 0.10, 20*time.Minute
	want.FloorGiB, want.CeilingGiB, want.AtCeiling = 20, 2048, plan.AtCeilingFail
	want.MinStepGiB, want.MinStep, want.MaxStepGiB = 2, 0.10, 500
	want.LookBack, want.ShrinkQuiet, want.Payback, want.MinShrinkGiB, want.MinShrink = 72*time.Hour, 12*time.Hour, 14*24*time.Hour, 5, 0.125
	want.SnapshotRetention, want.GracePeriod, want.ThrottleMiBs = 14*24*time.Hour, 36*time.Hour, 200
	want.MinIOPS, want.MinMiBs, want.FollowPeak, want.PeakHeadroom = 6000, 250, true, 0.30
	want.Types, want.MaxStripes = []string{"gp3", "io2"}, 2
	require.Len(t, r.Windows, 2)
	require.Equal(t, [7]bool{false, true, true, true, true, true, false}, r.Windows[0].Days)
	require.Equal(t, "Europe/Berlin", r.Windows[0].Location.String())
	want.Windows = r.Windows
	require.Equal(t, want, r)

	db.Name = "prod-a/data"
	r, name = p.For(db)
	require.Equal(t, "databases + override for prod-a/data", name)
	require.InDelta(t, 0.60, r.Target, 1e-9)
	require.Equal(t, plan.Enforce, r.Mode)

	_, name = p.For(plan.Facts{Namespace: "prod-a"})
	require.Equal(t, "rest", name, "a label that is not there matches nothing")
	note := plan.Facts{Namespace: "notebooks", Claim: "home-ada", StorageClass: "ebb", Cluster: "a", NodeGroup: "cpu", Tags: map[string]string{"team": "ml"}}
	r, name = p.For(note)
	require.Equal(t, "notebooks", name)
	require.Equal(t, time.Hour, r.HeadroomTime)
	require.EqualValues(t, 1<<30, r.HeadroomBytes, "the rest of a group stays as in the defaults")
	for _, miss := range []func(*plan.Facts){
		func(f *plan.Facts) { f.Cluster = "b" }, func(f *plan.Facts) { f.NodeGroup = "" }, func(f *plan.Facts) { f.Claim = "work" },
		func(f *plan.Facts) { f.StorageClass = "gp3" }, func(f *plan.Facts) { f.Tags = nil },
	} {
		f := note
		miss(&f)
		_, name = p.For(f)
		require.Equal(t, "rest", name)
	}
	r, name = p.For(plan.Facts{Disk: "d-0123456789abcdef0"})
	require.Equal(t, "rest + override for d-0123456789abcdef0", name)
	require.Equal(t, plan.Observe, r.Mode)
}

func TestEmptyPolicyObserves(t *testing.T) {
	r, name := load(t, head).For(plan.Facts{})
	require.Equal(t, policy.DefaultsName, name)
	want := plan.DefaultRule()
	want.Name = policy.DefaultsName
	require.Equal(t, want, r)
	require.Equal(t, plan.Observe, r.Mode)
}

func TestExplainNamesTheLine(t *testing.T) {
	p := load(t, full)
	got := map[string]policy.Source{}
	for _, s := range p.Explain(plan.Facts{Name: "prod-a/data", Namespace: "billing", Labels: map[string]string{"app": "postgres"}}) {
		got[s.Field] = s
	}
	require.Equal(t, policy.Source{Field: "target", Value: "60%", From: "override for prod-a/data", Line: 34}, got["target"])
	require.Equal(t, policy.Source{Field: "floor", Value: "20GiB", From: "databases", Line: 20}, got["floor"])
	require.Equal(t, policy.Source{Field: "shrink.minPercent", Value: "12.5%", From: "defaults", Line: 9}, got["shrink.minPercent"])
	require.Equal(t, "Mon,Tue,Wed,Thu,Fri 22:00-06:00 Europe/Berlin; Sun 00:00-24:00 UTC", got["windows"].Value)
	require.Equal(t, "36h", got["move.grace"].Value)
	for _, s := range load(t, head).Explain(plan.Facts{}) {
		require.Equal(t, "built in", s.From, s.Field)
	}
}

func TestCheckFleet(t *testing.T) {
	p := load(t, head+`defaults: {ceiling: 100GiB}
rules:
  - name: big
    match: {namespaces: big}
    ceiling: 1TiB
disks:
  - disk: d-0123456789abcdef0
    floor: 500GiB
  - disk: gone
    mode: enforce
`)
	wrong, idle := p.CheckFleet([]plan.Facts{{Disk: "d-0123456789abcdef0"}})
	require.Len(t, wrong, 2)
	require.Equal(t, "line 10, column 12: disks[0].floor: a floor of 500 GiB is above the ceiling of 100 GiB", wrong[0].String())
	require.Equal(t, `line 11, column 5: disks[1].disk: an override for no disk: there is none with the id or name "gone"`, wrong[1].String())
	require.Len(t, idle, 1)
	wrong, idle = p.CheckFleet([]plan.Facts{{Disk: "d-0123456789abcdef0", Namespace: "big"}, {Name: "gone"}})
	require.Empty(t, wrong)
	require.Empty(t, idle)
}

func TestBadDocuments(t *testing.T) {
	for name, tt := range map[string]struct {
		doc  string
		want []string // a line of the error each
	}{
		"empty":            {"", []string{"line 1, column 1: the document is empty; it begins with apiVersion: ebb.io/v1alpha1"}},
		"comment only":     {"# nothing\n", []string{"the document is empty"}},
		"not YAML":         {"a: [1\nb: 2\n", []string{"not YAML: "}},
		"a tab":            {head + "defaults:\n\tmode: observe\n", []string{"line 4, column 1: not YAML: found character that cannot start any token"}},
		"a list":           {"- a\n", []string{"line 1, column 1: want a mapping with the fields apiVersion, kind"}},
		"two documents":    {head + "---\n" + head, []string{"line 3, column 1: a policy is one document; a second one begins here"}},
		"no version":       {"kind: Policy\n", []string{"apiVersion: missing; want apiVersion: ebb.io/v1alpha1"}},
		"other version":    {"apiVersion: ebb.io/v2\nkind: Policy\n", []string{`line 1, column 13: apiVersion: "ebb.io/v2": want ebb.io/v1alpha1`}},
		"other kind":       {"apiVersion: ebb.io/v1alpha1\nkind: Rule\n", []string{`line 2, column 7: kind: "Rule": want Policy`}},
		"unknown field":    {head + "budget: {}\n", []string{"line 3, column 1: budget: unknown field; did you mean budgets?"}},
		"unknown setting":  {head + "defaults:\n  headroom:\n    byte: 1GiB\n", []string{"line 5, column 5: defaults.headroom.byte: unknown field; did you mean bytes?"}},
		"unknown, far off": {head + "defaults: {frobnicate: 1}\n", []string{"line 3, column 12: defaults.frobnicate: unknown field; known are mode, target,"}},
		"twice":            {head + "defaults:\n  mode: observe\n  mode: enforce\n", []string{"line 5, column 3: defaults.mode: set twice, first in line 4"}},
		"merge key":        {head + "defaults: &d {mode: observe}\nrules:\n- name: a\n  <<: *d\n", []string{"line 6, column 3: rules[0]: merge keys and nested keys are not understood"}},

		"decimal unit":       {head + "defaults: {floor: 20GB}\n", []string{`line 3, column 19: defaults.floor: "20GB": did you mean 20GiB? Ebb counts in binary units only`}},
		"no unit":            {head + "defaults: {floor: 20}\n", []string{`defaults.floor: "20": the unit is missing; did you mean 20GiB?`}},
		"fraction":           {head + "defaults: {ceiling: 1.5TiB}\n", []string{"no fractions"}},
		"not whole GiB":      {head + "defaults: {floor: 1536MiB}\n", []string{"EBS volumes come in whole GiB; did you mean 2GiB?"}},
		"too large":          {head + "defaults: {ceiling: 65TiB}\n", []string{`"65TiB": want at most 64TiB`}},
		"overflow":           {head + "defaults: {ceiling: 99999999999999TiB}\n", []string{"too large"}},
		"zero":               {head + "defaults: {ceiling: 0GiB}\n", []string{`"0GiB": want at least 1GiB`}},
		"rate":               {head + "defaults: {move: {throttle: 200MB/s}}\n", []string{`defaults.move.throttle: "200MB/s": did you mean 200MiB/s?`}},
		"rate without time":  {head + "defaults: {move: {throttle: 200MiB}}\n", []string{"did you mean 200MiB/s?"}},
		"share for percent":  {head + "defaults: {target: 0.8}\n", []string{`defaults.target: "0.8": want a percentage; did you mean 80%?`}},
		"number for percent": {head + "defaults: {target: 80}\n", []string{"did you mean 80%?"}},
		"target 0":           {head + "defaults: {target: 0%}\n", []string{`"0%": want at least 10%`}},
		"target above 95":    {head + "defaults: {target: 96%}\n", []string{`"96%": want at most 95%`}},
		"negative":           {head + "defaults: {target: -5%}\n", []string{"want a percentage, such as 80%"}},
		"duration":           {head + "defaults: {shrink: {quiet: 24}}\n", []string{"did you mean 24m, 24h or 24d?"}},
		"no duration":        {head + "defaults: {shrink: {quiet: soon}}\n", []string{"want a duration, such as 30m, 24h or 7d"}},
		"look-back":          {head + "defaults: {shrink: {lookBack: 1000d}}\n", []string{`"1000d": want at most 170d`}},
		"mode":               {head + "defaults: {mode: enforced}\n", []string{`defaults.mode: "enforced": want observe, recommend or enforce; did you mean enforce?`}},
		"yes":                {head + "defaults: {move: {snapshot: yes}}\n", []string{`"yes": want true or false`}},
		"count":              {head + "defaults: {performance: {minIOPS: 3k}}\n", []string{"want a whole number"}},
		"type":               {head + "defaults: {performance: {types: [gp3, st1]}}\n", []string{`defaults.performance.types[1]: "st1": want gp3, gp2, io2 or io1`}},
		"type twice":         {head + "defaults: {performance: {types: [gp3, gp3]}}\n", []string{"gp3 is listed twice"}},
		"a list for a value": {head + "defaults: {mode: [observe]}\n", []string{"line 3, column 18: defaults.mode: want a single value"}},
		"null":               {head + "defaults:\n  mode:\n", []string{"defaults.mode: the value is missing"}},

		"unknown zone":       {head + "defaults: {windows: [{from: '22:00', to: '23:00', zone: CEST}]}\n", []string{`defaults.windows[0].zone: unknown time zone "CEST"`}},
		"local zone":         {head + "defaults: {windows: [{from: '22:00', to: '23:00', zone: Local}]}\n", []string{"want a time zone such as UTC"}},
		"no end":             {head + "defaults: {windows: [{from: '22:00'}]}\n", []string{"defaults.windows[0].to: missing"}},
		"clock":              {head + "defaults: {windows: [{from: '25:00', to: '9pm'}]}\n", []string{`"25:00": want a time from "00:00" to "24:00"`, `"9pm": want a time of day such as "22:30"`}},
		"day":                {head + "defaults: {windows: [{days: [Monday], from: '22:00', to: '23:00'}]}\n", []string{`unknown day "Monday"; did you mean Mon?`}},
		"no day":             {head + "defaults: {windows: [{days: [Xyz], from: '22:00', to: '23:00'}]}\n", []string{`unknown day "Xyz": want Sun, Mon`}},
		"empty days":         {head + "defaults: {windows: [{days: [], from: '22:00', to: '23:00'}]}\n", []string{"the list is empty"}},
		"never open":         {head + "defaults: {windows: [{from: '22:00', to: '22:00'}]}\n", []string{"the window begins when it ends; for the whole day write"}},
		"hardly open":        {head + "defaults: {windows: [{from: '22:00', to: '22:05'}]}\n", []string{"the window is open for 5m"}},
		"after the day":      {head + "defaults: {windows: [{from: '24:00', to: '02:00'}]}\n", []string{`did you mean "00:00"?`}},
		"no windows":         {head + "defaults: {windows: []}\n", []string{"the list is empty; leave the field out instead"}},
		"window is a string": {head + "defaults: {windows: [night]}\n", []string{"want a mapping with the fields days, from, to or zone"}},

		"floor above ceiling":    {head + "defaults: {floor: 20GiB, ceiling: 10GiB}\n", []string{"line 3, column 19: defaults.floor: a floor of 20 GiB is above the ceiling of 10 GiB"}},
		"against the defaults":   {head + "defaults: {floor: 20GiB}\nrules:\n- name: a\n  ceiling: 10GiB\n", []string{"line 6, column 12: rules[0].ceiling: a floor of 20 GiB is above the ceiling of 10 GiB"}},
		"headroom and target":    {head + "defaults: {headroom: {percent: 50%}}\n", []string{"with a headroom of 50% of what is used at most 66% can be used: a target of 80% is impossible"}},
		"headroom and ceiling":   {head + "defaults: {headroom: {bytes: 10GiB}, ceiling: 10GiB}\n", []string{"a headroom of 10GiB leaves nothing of a ceiling of 10 GiB"}},
		"no headroom":            {head + "defaults: {headroom: {bytes: 0GiB, percent: 0%, fillTime: 0s}}\n", []string{"no headroom at all"}},
		"steps":                  {head + "defaults: {grow: {minStep: 10GiB, maxStep: 5GiB}}\n", []string{"the least step of 10 GiB is above the greatest of 5 GiB"}},
		"snapshot that is not":   {head + "defaults: {move: {snapshot: false, snapshotRetention: 7d}}\n", []string{"there is no snapshot to keep: move.snapshot is false"}},
		"grace above payback":    {head + "defaults: {move: {grace: 20d}, shrink: {payback: 10d}}\n", []string{"the old volume is kept, and paid for, for 20d: no shrink pays for itself within 10d"}},
		"the peak of no time":    {head + "defaults: {shrink: {lookBack: 0s}, performance: {followPeak: true}}\n", []string{"line 3, column 62: defaults.performance.followPeak: there is no peak to follow: shrink.lookBack is 0s"}},
		"more than a type gives": {head + "defaults: {performance: {minIOPS: 100000, types: [gp3]}}\n", []string{"no volume type of [gp3] gives 100000 IOPS"}},

		"rule without name":   {head + "rules:\n- mode: observe\n", []string{"line 4, column 3: rules[0].name: missing; decisions and reports name the rule they follow"}},
		"rule name":           {head + "rules:\n- name: defaults\n", []string{`"defaults": want 1 to 63 letters`}},
		"same name":           {head + "rules:\n- {name: a, match: {claims: x}}\n- {name: a, match: {claims: y}}\n", []string{`line 5, column 3: rules[1].name: rule "a" exists already, in line 4`}},
		"unreachable":         {head + "rules:\n- name: a\n- name: b\n  match: {claims: x}\n", []string{`line 5, column 3: rules[1]: rule "b" is never reached: rule "a" before it matches every disk`}},
		"by an earlier one":   {head + "rules:\n- {name: a, match: {namespaces: [dev, prod-*], tags: {app: '*'}}}\n- {name: b, match: {namespaces: [prod-eu, dev], claims: x, tags: {app: db, team: y}}}\n", []string{`line 5, column 3: rules[1]: rule "b" is never reached: rule "a" before it matches every disk that it would`}},
		"unknown selector":    {head + "rules:\n- name: a\n  match: {namespace: x}\n", []string{"rules[0].match.namespace: unknown field; did you mean namespaces?"}},
		"empty pattern":       {head + "rules:\n- name: a\n  match: {claims: ['']}\n", []string{"the pattern is empty"}},
		"broken pattern":      {head + "rules:\n- name: a\n  match: {claims: 'a[b'}\n", []string{`the pattern "a[b" is not complete`}},
		"rules no list":       {head + "rules: {name: a}\n", []string{"line 3, column 8: rules: want a list"}},
		"override for nobody": {head + "disks:\n- mode: observe\n", []string{"line 4, column 3: disks[0].disk: missing; an override for no disk"}},
		"override for what":   {head + "disks:\n- {disk: 'Data 1', mode: observe}\n", []string{`"Data 1": want a disk's id`}},
		"override twice":      {head + "disks:\n- {disk: a, mode: observe}\n- {disk: a, mode: enforce}\n", []string{"line 5, column 3: disks[1].disk: a has an override already, in line 4"}},
		"override of nothing": {head + "disks:\n- {disk: a}\n", []string{"the override sets nothing"}},
		"override contradicts every rule": {
			head + "defaults: {ceiling: 10GiB}\nrules:\n- {name: a, ceiling: 20GiB}\ndisks:\n- {disk: a, floor: 30GiB}\n",
			[]string{"disks[0].floor: a floor of 30 GiB is above the ceiling of"},
		},

		"budget of nothing":  {head + "budgets: {moves: 0}\n", []string{`line 3, column 18: budgets.moves: "0": nothing could ever begin; to only watch, write mode: observe`}},
		"budget, negative":   {head + "budgets: {moves: -1}\n", []string{"want a whole number of at least 1"}},
		"budget unit":        {head + "budgets: {extra: 5TB}\n", []string{`budgets.extra: "5TB": did you mean 5TiB?`}},
		"budget of no GiB":   {head + "budgets: {extra: 0GiB}\n", []string{"no move could ever begin"}},
		"budgets contradict": {head + "budgets: {moves: 2, movesPerNode: 3}\n", []string{"budgets.movesPerNode: more than budgets.moves allows in all"}},
		"several at once": {head + "defaults: {mode: x, target: 99%, floor: 1GB}\n", []string{
			"line 3, column 18: defaults.mode", "line 3, column 29: defaults.target", "line 3, column 41: defaults.floor",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Load([]byte(tt.doc))
			require.Error(t, err)
			require.Nil(t, p)
			var ps policy.Problems
			require.ErrorAs(t, err, &ps)
			for _, want := range tt.want {
				require.Contains(t, err.Error(), want)
			}
			require.Len(t, ps, max(len(tt.want), 1), "nothing else: %v", err)
			require.Len(t, strings.Split(err.Error(), "\n"), len(ps))
		})
	}
}

// TestRulesThatLeaveSomething are reached, and taken.
func TestRulesThatLeaveSomething(t *testing.T) {
	for earlier, later := range map[string]string{
		"namespaces: [prod-*]":                "namespaces: [prod-eu, dev]",
		"namespaces: [prod-eu]":               "namespaces: [prod-*]",
		"namespaces: ['prod-?']":              "namespaces: ['prod-*']",
		"namespaces: ['prod-[ab]']":           "namespaces: ['prod-[a-c]']",
		"namespaces: [prod-*], claims: [a]":   "namespaces: [prod-eu]",
		"tags: {app: db}":                     "tags: {team: x}",
		"labels: {app: db, team: x}":          "labels: {app: db}",
		"tags: {path: 'a*'}":                  "tags: {path: 'a/b'}",
		"clusters: [one], namespaces: [prod]": "clusters: ['*'], namespaces: [prod]",
		"claims: ['*']":                       "namespaces: [prod]",
	} {
		load(t, head+"rules:\n- {name: a, match: {"+earlier+"}}\n- {name: b, match: {"+later+"}}\n")
	}
}

// TestCoveredRulesMatchNoDisk: what is said to be never reached never is.
func TestCoveredRulesMatchNoDisk(t *testing.T) {
	pattern := rapid.StringOf(rapid.SampledFrom([]rune("ab/*?")))
	rapid.Check(t, func(t *rapid.T) {
		p, q := pattern.Draw(t, "earlier"), pattern.Draw(t, "later")
		if p == "" || q == "" {
			return
		}
		_, err := policy.Load([]byte(head + "rules:\n- {name: a, match: {tags: {k: '" + p + "'}}}\n- {name: b, match: {tags: {k: '" + q + "'}}}\n"))
		if err == nil {
			return
		}
		require.ErrorContains(t, err, "never reached")
		value := map[string]string{"k": strings.NewReplacer("*", rapid.SampledFrom([]string{"", "a", "ba"}).Draw(t, "star"), "?", "b").Replace(q)}
		later, earlier := policy.Match{Tags: map[string]string{"k": q}}, policy.Match{Tags: map[string]string{"k": p}}
		require.True(t, !later.Matches(plan.Facts{Tags: value}) || earlier.Matches(plan.Facts{Tags: value}), "%q %q %q", p, q, value["k"])
	})
}

// TestCheckFleetFindsADiskTwice: by its id and by its name.
func TestCheckFleetFindsADiskTwice(t *testing.T) {
	p := load(t, head+"disks:\n- {disk: data, mode: enforce}\n- {disk: d-0123456789abcdef0, mode: observe}\n")
	wrong, _ := p.CheckFleet([]plan.Facts{{Disk: "d-0123456789abcdef1"}, {Disk: "d-0123456789abcdef0", Name: "data"}})
	require.Len(t, wrong, 1)
	require.Equal(t, `line 5, column 3: disks[1].disk: disk d-0123456789abcdef0 has an override already, in line 4 as "data"`, wrong[0].String())
	wrong, _ = p.CheckFleet([]plan.Facts{{Disk: "d-0123456789abcdef0"}, {Disk: "d-0123456789abcdef1", Name: "data"}})
	require.Empty(t, wrong)
}

func TestOverrideNeedsToFitOneRuleOnly(t *testing.T) {
	load(t, head+"defaults: {ceiling: 10GiB}\nrules:\n- {name: a, match: {claims: x}, ceiling: 40GiB}\ndisks:\n- {disk: a, floor: 30GiB}\n")
}

func TestAliasesAreFollowedAndBounded(t *testing.T) {
	p := load(t, head+"defaults: {windows: &w [{from: '22:00', to: '23:00'}]}\nrules:\n- {name: a, windows: *w}\n")
	r, _ := p.For(plan.Facts{})
	require.Len(t, r.Windows, 1)

	bomb := head + "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'j'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n"
	}
	start := time.Now()
	_, err := policy.Load([]byte(bomb))
	require.Error(t, err)
	require.Less(t, time.Since(start), 5*time.Second)
	_, err = policy.Load([]byte(head + strings.Repeat("#", 1<<20)))
	require.ErrorContains(t, err, "a policy has at most")
}

// TestLoadSurvivesEverything: damaged documents are refused with problems that
// point into them, or give rules that make sense.
func TestLoadSurvivesEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := []byte(full)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			from := rapid.IntRange(0, len(doc)-1).Draw(t, "from")
			to := min(len(doc), from+rapid.IntRange(0, 12).Draw(t, "length"))
			other := rapid.SampledFrom([]string{"", "0", "-", ": ", "\n", "  ", "[", "}", "*a", "&a ", "GB", "%", "\x00", "observe", "1e9"}).Draw(t, "with")
			doc = append(append(append([]byte{}, doc[:from]...), other...), doc[to:]...)
			if len(doc) == 0 {
				return
			}
		}
		p, err := policy.Load(doc)
		if err == nil {
			r, _ := p.For(plan.Facts{Namespace: "billing", Labels: map[string]string{"app": "postgres"}})
			require.True(t, r.Target > 0 && r.Target <= 0.95 && (r.CeilingGiB == 0 || r.FloorGiB <= r.CeilingGiB), "%+v", r)
			return
		}
		var ps policy.Problems
		require.ErrorAs(t, err, &ps)
		require.NotEmpty(t, ps)
		for _, problem := range ps {
			require.NotEmpty(t, problem.Message)
			require.Positive(t, problem.Column)
			require.True(t, problem.Line >= 1 && problem.Line <= strings.Count(string(doc), "\n")+1, problem.String())
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(head + "defaults: {windows: [{from: '22:00', to: '22:00'}]}"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Load(data)
		if err == nil {
			r, _ := p.For(plan.Facts{})
			if r.Target <= 0 || r.Target > 0.95 || r.CeilingGiB > 0 && r.FloorGiB > r.CeilingGiB {
				t.Fatalf("%+v", r)
			}
		}
	})
}
