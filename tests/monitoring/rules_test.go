package monitoring

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// rule is an alert of deploy/prometheus/rules.yaml.
type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t *testing.T) map[string]rule {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "deploy", "prometheus", "rules.yaml"))
	require.NoError(t, err)
	defer f.Close()
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	require.NoError(t, dec.Decode(&file))
	out := map[string]rule{}
	names := map[string]bool{}
	for _, g := range file.Groups {
		require.False(t, names[g.Name], g.Name)
		names[g.Name] = true
		for _, r := range g.Rules {
			require.NotContains(t, out, r.Alert)
			out[r.Alert] = r
		}
	}
	return out
}

var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

func TestRules(t *testing.T) {
	metrics := known(t)
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	require.NoError(t, err)
	anchors := map[string]bool{}
	for _, h := range heading.FindAllStringSubmatch(string(page), -1) {
		anchors[strings.ToLower(h[1])] = true
	}
	for name, r := range rules(t) {
		n, err := read(r.Expr)
		require.NoError(t, err, name)
		require.Equal(t, "vector", kind(n), name)
		require.NoError(t, checkNames(metrics, n), name)
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"], name)
		if r.For != "" {
			require.Positive(t, window(r.For), name)
		}
		require.NotEmpty(t, r.Annotations["summary"], name)
		if name != "EbbWorkerDown" { // which has nothing to name
			require.Regexp(t, `\$(labels|value)`, r.Annotations["summary"], name)
		}
		link := r.Annotations["runbook_url"]
		require.True(t, strings.HasPrefix(link, "https://github.com/ebb-storage/ebb/blob/main/docs/operations.md#"), name)
		_, anchor, _ := strings.Cut(link, "#")
		require.Equal(t, strings.ToLower(name), anchor)
		require.True(t, anchors[anchor], "docs/operations.md has no section %s", name)
		for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(r.Annotations["summary"], -1) {
			found := false
			walk(n, func(s selector) { found = found || slices.Contains(metrics[s.name], m[1]) })
			require.True(t, found, "%s: its summary names %s, which nothing has", name, m[1])
		}
	}
}

// fires is for how many minutes an alert fires in a world, and the labels of its
// first firing.
func fires(t *testing.T, r rule, w world, minutes int) (int, map[string]string) {
	t.Helper()
	n, err := read(r.Expr)
	require.NoError(t, err)
	wait := time.Duration(0)
	if r.For != "" {
		wait = window(r.For)
	}
	since, count := map[string]int{}, 0
	var first map[string]string
	for at := range minutes {
		now := map[string]int{}
		firing := false
		for _, s := range w.eval(n, at) {
			k := key(s.labels)
			begun, pending := since[k]
			if !pending {
				begun = at
			}
			now[k] = begun
			if time.Duration(at-begun)*step >= wait {
				firing = true
				if first == nil {
					first = s.labels
				}
			}
		}
		if firing {
			count++
		}
		since = now
	}
	return count, first
}

// line is values of a metric with labels: each value as many minutes as it is
// followed by.
func line(name string, labels map[string]string, parts ...float64) series {
	l := map[string]string{"__name__": name, "instance": "node-1:9465", "job": "ebb-agent"}
	maps.Copy(l, labels)
	s := series{labels: l}
	for i := 0; i+1 < len(parts); i += 2 {
		for range int(parts[i+1]) {
			s.values = append(s.values, parts[i])
		}
	}
	return s
}

// ramp rises by each every minute.
func ramp(name string, labels map[string]string, from, each float64, minutes int) series {
	s := line(name, labels)
	for i := range minutes {
		s.values = append(s.values, from+float64(i)*each)
	}
	return s
}

func TestAlertsFire(t *testing.T) {
	d := map[string]string{"disk": "d-1"}
	info := line("ebb_disk_info", map[string]string{"disk": "d-1", "name": "team/claim", "mount": "/data"}, 1, 2000)
	with := func(more map[string]string) map[string]string {
		out := maps.Clone(d)
		maps.Copy(out, more)
		return out
	}
	mode := func(m string) map[string]string {
		return map[string]string{"mode": m, "instance": "w-1", "job": "ebb-worker"}
	}
	worker := func(w string) map[string]string { return map[string]string{"instance": w, "job": "ebb-worker"} }
	played := map[string]bool{}
	for name, c := range map[string]struct {
		alert string
		world []series
		from  int // the first minute it fires in; -1: it does not
	}{
		"full":                   {"EbbDiskFull", []series{info, line("ebb_disk_full", d, 0, 10, 1, 50)}, 11},
		"full for a moment":      {"EbbDiskFull", []series{info, line("ebb_disk_full", d, 0, 10, 1, 1, 0, 40)}, -1},
		"full soon":              {"EbbDiskFullSoon", []series{info, line("ebb_disk_time_to_full_seconds", d, 0, 10, 1200, 50)}, 12},
		"full later":             {"EbbDiskFullSoon", []series{info, line("ebb_disk_time_to_full_seconds", d, 7200, 60)}, -1},
		"full soon, asked":       {"EbbDiskFullSoon", []series{info, line("ebb_disk_time_to_full_seconds", d, 1200, 60), ramp("ebb_pressure_signals_total", with(map[string]string{"kind": "pressure"}), 0, 1, 60)}, -1},
		"full soon, at ceiling":  {"EbbDiskFullSoon", []series{info, line("ebb_disk_time_to_full_seconds", d, 1200, 60), line("ebb_disk_at_ceiling", d, 1, 60)}, -1},
		"overdue":                {"EbbGrowthOverdue", []series{info, ramp("ebb_disk_growth_overdue_seconds", d, 0, 60, 10)}, 3},
		"at ceiling, full":       {"EbbDiskAtCeiling", []series{info, line("ebb_disk_used_bytes", d, 95, 60), line("ebb_disk_pool_bytes", d, 100, 60), line("ebb_disk_at_ceiling", d, 1, 60)}, 10},
		"at ceiling, half full":  {"EbbDiskAtCeiling", []series{info, line("ebb_disk_used_bytes", d, 50, 60), line("ebb_disk_pool_bytes", d, 100, 60), line("ebb_disk_at_ceiling", d, 1, 60)}, -1},
		"full, may grow":         {"EbbDiskAtCeiling", []series{info, line("ebb_disk_used_bytes", d, 95, 60), line("ebb_disk_pool_bytes", d, 100, 60), line("ebb_disk_at_ceiling", d, 0, 60)}, -1},
		"metadata":               {"EbbMetadataFull", []series{info, line("ebb_disk_metadata_used_bytes", d, 95, 60), line("ebb_disk_metadata_bytes", d, 100, 60)}, 10},
		"read error":             {"EbbVolumeFailing", []series{line("ebb_disk_events_total", map[string]string{"kind": "read-error"}, 0, 10, 1, 50)}, 10},
		"pressure is no failure": {"EbbVolumeFailing", []series{ramp("ebb_disk_events_total", map[string]string{"kind": "pressure"}, 0, 1, 60)}, -1},
		"stale":                  {"EbbMeasurementsStale", []series{info, line("ebb_disk_measured_timestamp_seconds", d, epoch, 60)}, 11},
		"fresh":                  {"EbbMeasurementsStale", []series{info, ramp("ebb_disk_measured_timestamp_seconds", d, epoch, 60, 60)}, -1},
		"stalled":                {"EbbMoveStalled", []series{info, line("ebb_disk_moving", d, 0, 10, 1, 90), line("ebb_move_copied_ratio", d, math.NaN(), 10, .3, 90)}, 44},
		"copying":                {"EbbMoveStalled", []series{info, line("ebb_disk_moving", d, 1, 90), ramp("ebb_move_copied_ratio", d, 0, .01, 90)}, -1},
		"comparing":              {"EbbMoveStalled", []series{info, line("ebb_disk_moving", d, 1, 90), line("ebb_move_copied_ratio", d, 1, 90), ramp("ebb_move_done_bytes", with(map[string]string{"phase": "verify"}), 0, 1, 90)}, -1},
		"agent gone":             {"EbbAgentDown", []series{line("up", nil, 1, 10, 0, 50)}, 15},
		"agent not ready":        {"EbbAgentDown", []series{line("up", nil, 1, 60), line("ebb_agent_ready", nil, 1, 10, 0, 50)}, 15},
		"another job gone":       {"EbbAgentDown", []series{line("up", map[string]string{"job": "node"}, 0, 60)}, -1},
		"no worker":              {"EbbWorkerDown", nil, 5},
		"one worker left":        {"EbbWorkerDown", []series{line("ebb_worker_ready", worker("w-1"), 0, 60), line("ebb_worker_ready", worker("w-2"), 1, 60)}, -1},
		"unheard":                {"EbbPressureUnheard", []series{ramp("ebb_pressure_signal_failures_total", nil, 0, 1, 60)}, 11},
		"not run":                {"EbbRightsizeNotRunning", []series{line("ebb_rightsize_last_run_timestamp_seconds", worker("w-1"), epoch, 100)}, 56},
		"run by another worker":  {"EbbRightsizeNotRunning", []series{line("ebb_rightsize_last_run_timestamp_seconds", worker("w-1"), epoch, 100), ramp("ebb_rightsize_last_run_timestamp_seconds", worker("w-2"), epoch, 60, 100)}, -1},
		"worker began anew":      {"EbbRightsizeNotRunning", []series{line("ebb_rightsize_last_run_timestamp_seconds", worker("w-1"), epoch, 5, 0, 30)}, 56},
		"runs with problems":     {"EbbRightsizeProblems", []series{ramp("ebb_rightsize_runs_total", with(map[string]string{"outcome": "problems"}), 0, 1./15, 100)}, 45},
		"runs":                   {"EbbRightsizeProblems", []series{ramp("ebb_rightsize_runs_total", with(map[string]string{"outcome": "done"}), 0, 1./15, 100)}, -1},
		"refusals rise":          {"EbbRefusalsRising", []series{line("ebb_activity_errors_total", map[string]string{"code": "EC2Refused"}, 0, 100, 4, 10, 8, 50)}, 120},
		"errors that pass":       {"EbbRefusalsRising", []series{ramp("ebb_activity_errors_total", map[string]string{"code": "other"}, 0, 5, 300)}, -1},
		"unmeasured": {"EbbDisksUnmeasured", []series{
			line("ebb_fleet_disks", mode("unmeasured"), 10, 60), line("ebb_fleet_disks", mode("observe"), 60, 60), line("ebb_fleet_disks", mode("enforce"), 40, 60),
			line("ebb_rightsize_last_run_timestamp_seconds", worker("w-1"), epoch, 60),
		}, 30},
		"few unmeasured": {"EbbDisksUnmeasured", []series{
			line("ebb_fleet_disks", mode("unmeasured"), 1, 60), line("ebb_fleet_disks", mode("observe"), 60, 60), line("ebb_rightsize_last_run_timestamp_seconds", worker("w-1"), epoch, 60),
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			r, ok := rules(t)[c.alert]
			require.True(t, ok, c.alert)
			minutes := 60
			for _, s := range c.world {
				if s.labels["__name__"] != "ebb_disk_info" {
					minutes = max(minutes, len(s.values))
				}
			}
			before, _ := fires(t, r, world{c.world}, max(c.from, 0))
			require.Zero(t, before, "it fires before minute %d", c.from)
			n, labels := fires(t, r, world{c.world}, minutes)
			if c.from < 0 {
				require.Zero(t, n)
				return
			}
			played[c.alert] = true
			after, labels2 := fires(t, r, world{c.world}, c.from+1)
			require.Positive(t, after, "it does not fire at minute %d; in all it fires %d minutes", c.from, n)
			require.Equal(t, labels, labels2)
			for _, m := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(r.Annotations["summary"], -1) {
				require.NotEmpty(t, labels[m[1]], "the summary names %s, which the alert lacks", m[1])
			}
		})
	}
	for name := range rules(t) {
		require.True(t, played[name], "%s is never seen to fire", name)
	}
}

// Refusals that come as ever do not rise, once a day of them is known.
func TestRefusalsAsEver(t *testing.T) {
	w := world{[]series{ramp("ebb_activity_errors_total", map[string]string{"code": "EC2Refused"}, 0, .2, 2000)}}
	n, err := read(rules(t)["EbbRefusalsRising"].Expr)
	require.NoError(t, err)
	for at := 1440; at < 2000; at += 10 {
		require.Empty(t, w.eval(n, at), "minute %d", at)
	}
}
