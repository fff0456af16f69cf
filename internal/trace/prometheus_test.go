package trace

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func answer(series ...string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[` + strings.Join(series, ",") + `]},"infos":[]}`
}

func series(metric, claim, values string) string {
	return fmt.Sprintf(`{"metric":{"__name__":%q,"namespace":"ml","persistentvolumeclaim":%q,"node":"n1"},"values":[%s]}`, metric, claim, values)
}

func TestPrometheus(t *testing.T) {
	var p Prometheus
	require.NoError(t, p.Add("used.json", strings.NewReader(answer(
		series(metricUsed, "data", `[1767571200,"1000000"],[1767574800,"2e6"],[1767578400,"NaN"]`),
		series(metricUsed, "data", `[1767574800,"1900000"],[1767661200,"3000000"]`), // the pod moved
		series(metricUsed, "once", `[1767571200,"1"]`),
	))))
	require.NoError(t, p.Add("capacity.json", strings.NewReader(answer(
		series(metricCapacity, "data", `[1767571200,"107374182400"],[1767661200,"214748364800"]`),
		series(metricCapacity, "once", `[1767571200,"107374182400"]`),
	))))
	disks, warnings, err := p.Disks()
	require.NoError(t, err)
	require.Len(t, disks, 1)
	require.Equal(t, "ml/data", disks[0].ID)
	require.Equal(t, "n1", disks[0].Node)
	require.Equal(t, []Sample{
		{At: 1767571200, Used: 1000000, Capacity: 100 * GiB},
		{At: 1767574800, Used: 2000000, Capacity: 100 * GiB},
		{At: 1767661199, Used: 2000000, Capacity: 100 * GiB},
		{At: 1767661200, Used: 3000000, Capacity: 200 * GiB},
	}, disks[0].Samples)
	require.Equal(t, []string{"ml/data: 1 gaps, the longest taken as not mounted", "ml/once: left out, it has one sample only"}, warnings)
	require.Len(t, collect(t, p.Play), 1)
}

func TestBadPrometheus(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":      {"", "x.json: byte 0: not the JSON of a range query: the document ends too early"},
		"html":       {"<html>", "x.json: byte 0: not the JSON of a range query: "},
		"list":       {"[]", "x.json: byte 1: not the JSON of a range query: [ where { is wanted"},
		"failed":     {`{"status":"error","error":"query timed out"}`, `x.json: status: "error", want success: the query failed: query timed out`},
		"instant":    {`{"status":"success","data":{"resultType":"vector","result":[]}}`, `x.json: data.resultType: "vector", want matrix: ask /api/v1/query_range`},
		"cut":        {answer(series(metricUsed, "a", ""))[:100], "not the JSON of a range query"},
		"metric":     {answer(series("up", "a", "")), `x.json: data.result[0].metric: "up", want kubelet_volume_stats_used_bytes or`},
		"labels":     {answer(series(metricUsed, "", "")), "x.json: data.result[0].metric: it has no namespace or no persistentvolumeclaim label"},
		"back":       {answer(series(metricUsed, "a", `[1767571200,"1"],[1767571100,"1"]`)), "x.json: data.result[0] (ml/a).values[1]: time goes back: 1767571100 after 1767571200"},
		"number":     {answer(series(metricUsed, "a", `[1767571200,1]`)), "x.json: data.result[0] (ml/a).values[0]: the value 1 is not a string with a number"},
		"word":       {answer(series(metricUsed, "a", `[1767571200,"much"]`)), `the value "much" is not a number`},
		"infinite":   {answer(series(metricUsed, "a", `[1767571200,"+Inf"]`)), "the value +Inf is not a number of bytes"},
		"time":       {answer(series(metricUsed, "a", `["x","1"]`)), `the time "x" is not a number of seconds`},
		"ms":         {answer(series(metricUsed, "a", `[1767571200000,"1"]`)), "the time 1767571200000 is not in Unix seconds"},
		"three":      {answer(series(metricUsed, "a", `{"a":1}`)), "not the JSON of a range query"},
		"no results": {`{"status":"success"}`, `x.json: data.resultType: "", want matrix`},
	} {
		t.Run(name, func(t *testing.T) {
			var p Prometheus
			require.ErrorContains(t, p.Add("x.json", strings.NewReader(c.text)), c.want)
		})
	}
}

func TestPrometheusWantsBoth(t *testing.T) {
	var p Prometheus
	require.NoError(t, p.Add("x", strings.NewReader(answer(series(metricUsed, "a", `[1767571200,"1"],[1767571300,"1"]`)))))
	_, _, err := p.Disks()
	require.EqualError(t, err, "ml/a: there is no kubelet_volume_stats_capacity_bytes of it")
}
