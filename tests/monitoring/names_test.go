package monitoring

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/activities/fleet"
	"github.com/ebb-storage/ebb/nodeagent/agent"
	"github.com/ebb-storage/ebb/worker/control"
)

const root = "../.."

// registered is the metrics of a program with their labels, as it registers them.
func registered(t *testing.T, r *prometheus.Registry) map[string][]string {
	t.Helper()
	descs := make(chan *prometheus.Desc, 1000)
	r.Describe(descs)
	close(descs)
	re := regexp.MustCompile(`fqName: "([^"]+)".*constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}`)
	out := map[string][]string{}
	for d := range descs {
		m := re.FindStringSubmatch(d.String())
		require.NotNil(t, m, d.String())
		if !strings.HasPrefix(m[1], "ebb_") {
			continue
		}
		labels := []string{}
		for _, l := range strings.Split(m[2]+","+m[3], ",") {
			if name, _, _ := strings.Cut(strings.TrimSpace(l), "="); name != "" {
				labels = append(labels, name)
			}
		}
		slices.Sort(labels)
		out[m[1]] = labels
	}
	require.NotEmpty(t, out)
	return out
}

func programs(t *testing.T) map[string]map[string][]string {
	t.Helper()
	worker := prometheus.NewRegistry()
	control.New(control.Connection{}, control.Options{Version: "v", Log: slog.New(slog.DiscardHandler), Metrics: worker})
	fleet.New(fleet.Options{Metrics: worker})
	return map[string]map[string][]string{
		"Agent": registered(t, agent.NewMetrics(agent.NewUsage(), "v").Registry), "Worker": registered(t, worker),
	}
}

// row is a metric of docs/metrics.md.
type row struct {
	kind, unit, meaning string
	labels              []string
}

// documented is the tables of docs/metrics.md by heading.
func documented(t *testing.T) map[string]map[string]row {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs", "metrics.md"))
	require.NoError(t, err)
	out := map[string]map[string]row{}
	part := ""
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			part = h
			out[part] = map[string]row{}
		}
		if !strings.HasPrefix(line, "| `ebb_") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		require.Len(t, cells, 5, line)
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		labels := []string{}
		for _, l := range strings.Split(cells[2], ",") {
			if l = strings.TrimSpace(l); l != "" {
				labels = append(labels, l)
			}
		}
		slices.Sort(labels)
		name := strings.Trim(cells[0], "`")
		require.NotContains(t, out[part], name, "twice in the table")
		out[part][name] = row{cells[1], cells[3], cells[4], labels}
	}
	return out
}

func TestMetricsPage(t *testing.T) {
	docs := documented(t)
	for program, code := range programs(t) {
		for name, labels := range code {
			r, ok := docs[program][name]
			if !ok {
				t.Errorf("docs/metrics.md, %s: %s%v is missing", program, name, labels)
				continue
			}
			if !slices.Equal(labels, r.labels) {
				t.Errorf("docs/metrics.md: %s has the labels %v, not %v", name, labels, r.labels)
			}
			if strings.HasSuffix(name, "_total") != (r.kind == "counter") {
				t.Errorf("docs/metrics.md: %s is a %s?", name, r.kind)
			}
			if r.unit == "" || r.meaning == "" {
				t.Errorf("docs/metrics.md: %s lacks its unit or meaning", name)
			}
		}
		for name := range docs[program] {
			if _, ok := code[name]; !ok {
				t.Errorf("docs/metrics.md: the %s has no metric %s", strings.ToLower(program), name)
			}
		}
	}
}

// known is every metric that an expression may use, with its labels. Prometheus
// adds job and instance.
func known(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{"up": {}, "process_start_time_seconds": {}}
	for program, code := range programs(t) {
		for name, labels := range code {
			out[name] = append(labels, out[name]...) // ebb_build_info is of both
			if documented(t)[program][name].kind == "histogram" {
				out[name+"_bucket"], out[name+"_sum"], out[name+"_count"] = append(slices.Clone(labels), "le"), labels, labels
			}
		}
	}
	for name, labels := range out {
		out[name] = append(slices.Clone(labels), "job", "instance")
	}
	return out
}

// checkNames finds metrics and labels in an expression that do not exist.
func checkNames(metrics map[string][]string, n node) error {
	var wrong []string
	walk(n, func(s selector) {
		labels, ok := metrics[s.name]
		if !ok {
			wrong = append(wrong, "there is no metric "+s.name)
		}
		for _, m := range s.matchers {
			if ok && !slices.Contains(labels, m.label) {
				wrong = append(wrong, s.name+" has no label "+m.label)
			}
		}
	})
	groupings(n, func(labels []string, under []selector) {
		for _, l := range labels {
			if !slices.ContainsFunc(under, func(s selector) bool { return slices.Contains(metrics[s.name], l) }) {
				wrong = append(wrong, "nothing there has a label "+l)
			}
		}
	})
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return nil
}

// dashboard is what of a Grafana dashboard is checked.
type dashboard struct {
	ID         any    `json:"id"`
	UID        string `json:"uid"`
	Title      string `json:"title"`
	Templating struct {
		List []struct {
			Name       string          `json:"name"`
			Type       string          `json:"type"`
			Query      json.RawMessage `json:"query"`
			Definition string          `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID         int    `json:"id"`
	Title      string `json:"title"`
	Type       string `json:"type"`
	Datasource struct {
		UID string `json:"uid"`
	} `json:"datasource"`
	GridPos struct{ X, Y, W, H int } `json:"gridPos"`
	Targets []struct {
		Expr       string `json:"expr"`
		Legend     string `json:"legendFormat"`
		RefID      string `json:"refId"`
		Datasource struct {
			UID string `json:"uid"`
		} `json:"datasource"`
	} `json:"targets"`
}

var (
	interval = regexp.MustCompile(`\$__(rate_interval|range|interval)\b`)
	variable = regexp.MustCompile(`\$\{?([a-zA-Z_]+)`)
)

func TestDashboards(t *testing.T) {
	metrics := known(t)
	files, err := filepath.Glob(filepath.Join(root, "deploy", "grafana", "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 3)
	uids, used := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		var d dashboard
		require.NoError(t, json.Unmarshal(data, &d), file)
		require.Nil(t, d.ID, "%s: an id is of one Grafana only", file)
		require.NotEmpty(t, d.UID)
		require.False(t, uids[d.UID], "%s: its uid is another dashboard's", file)
		uids[d.UID] = true
		vars := map[string]bool{}
		for _, v := range d.Templating.List {
			vars[v.Name] = true
			if m := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(v.Definition); v.Type == "query" {
				require.NotNil(t, m, "%s: variable %s", file, v.Name)
				require.Contains(t, metrics[m[1]], m[2], "%s: variable %s", file, v.Name)
			}
		}
		require.True(t, vars["datasource"], "%s: it does not ask for the data source", file)
		ids := map[int]bool{}
		for i, p := range d.Panels {
			where := fmt.Sprintf("%s: %s", filepath.Base(file), p.Title)
			require.False(t, ids[p.ID], where)
			ids[p.ID] = true
			require.Equal(t, "${datasource}", p.Datasource.UID, where)
			require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, where)
			for _, o := range d.Panels[:i] {
				a, b := p.GridPos, o.GridPos
				require.False(t, a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H, "%s lies over %s", where, o.Title)
			}
			require.NotEmpty(t, p.Targets, where)
			for _, target := range p.Targets {
				require.Equal(t, "${datasource}", target.Datasource.UID, where)
				for _, m := range variable.FindAllStringSubmatch(interval.ReplaceAllString(target.Expr, ""), -1) {
					require.True(t, vars[m[1]], "%s: there is no variable %s", where, m[1])
				}
				n, err := read(interval.ReplaceAllString(target.Expr, "5m"))
				require.NoError(t, err, where)
				require.NoError(t, checkNames(metrics, n), "%s: %s", where, target.Expr)
				walk(n, func(s selector) { used[s.name] = true })
			}
		}
	}
	// What is worth a metric is worth a look, but for what says how old things are.
	for name := range programs(t)["Agent"] {
		if !used[name] && !used[name+"_bucket"] && !slices.Contains([]string{"ebb_build_info", "ebb_disk_measured_timestamp_seconds", "ebb_disk_trimmed_bytes_total", "ebb_move_bytes"}, name) {
			t.Errorf("no dashboard shows %s", name)
		}
	}
}

// The checks find what they are for.
func TestWrongNamesAreFound(t *testing.T) {
	metrics := known(t)
	for expr, want := range map[string]string{
		`ebb_disk_used_byte`:                         "no metric",
		`sum(ebb_disk_full{node="x"})`:               "no label node",
		`sum by (node) (ebb_disk_full)`:              "has a label node",
		`ebb_disk_full and on (claim) ebb_disk_info`: "has a label claim",
		`rate(ebb_disk_full)`:                        "wrong kind",
		`ebb_disk_full[5m]`:                          "no result",
		`sum(ebb_disk_full`:                          "want",
		`ebb_disk_full >`:                            "too early",
		`increase(ebb_disk_events_total[5 minutes])`: "duration",
		`ebb_disk_full and 1`:                        "wants vectors",
		`foo(ebb_disk_full)`:                         "unknown here",
		`ebb_disk_full{disk=~"a"} ; ebb_disk_full`:   "unknown characters",
	} {
		n, err := read(expr)
		if err == nil {
			err = checkNames(metrics, n)
		}
		require.ErrorContains(t, err, want, expr)
	}
	require.True(t, slices.IsSorted(slices.Sorted(maps.Keys(metrics))))
}
