package report

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func sample() *Report {
	r := &Report{
		Title: "A <fleet> & more", About: "For a test.", From: time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 4, 5, 0, 0, 0, 0, time.UTC),
		Totals: Totals{Disks: 10000, Days: 90, ProvisionedFirstBytes: 2e15, ProvisionedLastBytes: 7e14, UtilizationFirst: .25, UtilizationAfterWeek: .81, Grows: 1234, Shrinks: 567, OutOfSpace: 0},
		Money:  Money{Without: 174797, Volumes: 80000, Net: 90000, Payback: 1.5, Region: "us-east-1", PricedAt: "2026-11-22", Own: []OwnCost{{"moves", 400}}},
		Classes: []Group{
			{Name: "training", Disks: 5, UsedBytes: 20, BackingBytes: 25, WithoutBytes: 100, NetUSDMonth: 12},
			{Name: "<script>alert(1)</script>", Disks: 5},
		},
		Done:       []Reason{{What: "shrink", Why: "less is needed", Times: 3, Example: Example{Disk: "d-1", Text: "shrink from 5 to 3 GiB"}}},
		Operations: []Operation{{Disk: "d-1", What: "shrink", FromGiB: 5, ToGiB: 3, Why: "\"quoted\", with a comma"}},
		Notes:      []string{"A note."},
	}
	for i := range 720 {
		at := r.From.Add(time.Duration(i) * 3 * time.Hour)
		have := max(2e15-float64(i)*5e13, 7e14)
		r.Series = append(r.Series, Point{At: at, UsedBytes: 5e14, BackingBytes: int64(have), PaidBytes: int64(have) + 1e13, WithoutBytes: 2e15, Grows: i % 7, Urgent: i % 3, Shrinks: i % 5})
		r.Money.Cumulated = append(r.Money.Cumulated, SumPoint{at, float64(i)*100 - 500})
	}
	return r
}

func TestHTMLIsOnePageOfItsOwn(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, sample().HTML(&b))
	html := b.String()
	require.NotRegexp(t, `(?i)<script|<link|<img|<iframe|@import|url\(|https?://|\son[a-z]+=`, html)
	require.NotContains(t, html, "ZgotmplZ")
	require.NotContains(t, html, "NaN")
	require.Contains(t, html, "A &lt;fleet&gt; &amp; more")
	require.Contains(t, html, "&lt;script&gt;alert(1)")
	require.Contains(t, html, "2.00 PB")
	require.Contains(t, html, "$90,000")
	require.Equal(t, 4, strings.Count(html, "<svg "))
}

func TestHTMLOfNothing(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, (&Report{Money: Money{Payback: -1}}).HTML(&b))
	require.NotContains(t, b.String(), "NaN")
	require.Contains(t, b.String(), "never")
}

func TestJSONAndCSV(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, sample().JSON(&b))
	var back Report
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, *sample(), back)
	b.Reset()
	require.NoError(t, sample().CSV(&b))
	rows := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Len(t, rows, 721)
	require.Equal(t, "2026-01-05T00:00:00Z,500000000000000,2000000000000000,2010000000000000,2000000000000000,0.2500,0,0,0,0", rows[1])
	b.Reset()
	w := NewOperationsWriter(&b)
	require.NoError(t, w.Write(sample().Operations[0]))
	require.NoError(t, w.Flush())
	require.Contains(t, b.String(), `d-1,,,shrink,false,5,3,0,0,"""quoted"", with a comma"`)
}

func TestThinKeepsSums(t *testing.T) {
	s := sample().Series
	short := thin(s, 90)
	require.LessOrEqual(t, len(short), 90)
	a, b := 0, 0
	for _, p := range s {
		a += p.Grows
	}
	for _, p := range short {
		b += p.Grows
	}
	require.Equal(t, a, b)
}

func TestNiceStep(t *testing.T) {
	for span, want := range map[float64]float64{100: 20, 1: .2, 7: 2, 0: 1, 1999: 500, math.Inf(1): 1} {
		require.InDelta(t, want, niceStep(span, 5), 1e-9, "%v", span)
	}
}

func TestWords(t *testing.T) {
	require.Equal(t, "1,234,567", commas(1234567))
	require.Equal(t, "-1,234", commas(-1234))
	require.Equal(t, "−$1,235", usd(-1234.6))
	require.Equal(t, "0", Bytes(0))
	require.Equal(t, "3 GiB", Bytes(3<<30))
	require.Equal(t, "200.0 TB", Bytes(2e14))
}
