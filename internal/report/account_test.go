package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func account() *Account {
	from := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	a := &Account{
		Format: AccountFormat, Title: "A <fleet> & more", About: "For a test.", From: from, To: from.Add(30 * 24 * time.Hour),
		Scope: Scope{Namespace: "<b>team</b>"}, Prices: PriceList{Region: "us-east-1", Date: "2026-11-22", Source: "a list", BuiltIn: true},
		Totals:     Sums{Disks: 100, Known: 99, Unknown: 1, Utilization: .8, MeanUtilization: .7, FullUtilization: .2, Grows: 5, Shrinks: 4, Pauses: 8, LongestMS: 4.25, DiskHours: 90, GapHours: 10},
		Money:      Savings{Full: 1000, Backing: 300, Own: []Cost{{"moves", 50}}, OwnSum: 50, Net: 650, NetMonth: 659.1, Payback: 2.5},
		Namespaces: []Part{{Name: "<script>alert(1)</script>", Disks: 5, UsedBytes: 20, BackingBytes: 25, SizeBytes: 100, NetUSD: 1.5}},
		Classes:    []Part{{Name: "training", Disks: 5}},
		Disks:      []DiskLine{{Disk: "d-1", Name: "team/claim"}},
		Unknown:    []Unknown{{Disk: "d-2", Node: "i-1", Why: "no agent answers"}},
		Done:       []Reason{{What: "shrink", Why: "asked for by Rightsize", Times: 4, Example: Example{Disk: "d-1", Text: "from 5 to 3 GiB"}}},
		Refused:    []Reason{{What: "grow: ModificationLimit", Why: "EBS refuses", Times: 2}},
		Held:       []Reason{{What: "held back", Why: "a budget", Times: 3}},
		Operations: []OperationRow{{
			Began: from, Ended: from.Add(time.Minute), Disk: "d-1", Name: "=HYPERLINK(1)", Operation: "shrink", Outcome: OutcomeDone, FromGiB: 5, ToGiB: 3, By: "Rightsize", Why: "\"quoted\", with a comma",
		}},
		Notes: []string{"A note."},
	}
	for i := range 720 {
		have := max(int64(2e12)-int64(i)*4e9, 7e11)
		a.Hours = append(a.Hours, Sample{
			At: from.Add(time.Duration(i) * time.Hour), UsedBytes: 5e11, BackingBytes: have, ExtraBytes: int64(i%50) * 1e9, SizeBytes: 2e12, Disks: 100, Recorded: 90,
			Grows: i % 3, Shrinks: i % 2, Refused: i / 700, NetUSD: float64(i) - 20,
		})
	}
	a.Series = Thin(a.Hours, MaxSamples)
	return a
}

func TestAccountIsOnePageOfItsOwn(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, account().HTML(&b))
	html := b.String()
	require.NotRegexp(t, `(?i)<script|<link|<img|<iframe|@import|url\(|https?://|\son[a-z]+=`, html)
	for _, not := range []string{"ZgotmplZ", "NaN", "<b>team"} {
		require.NotContains(t, html, not)
	}
	for _, want := range []string{
		"A &lt;fleet&gt; &amp; more", "&lt;script&gt;alert(1)", "$650", "2.5 days", "90.0%", "4.2 ms", "no agent answers", "EBS refuses", "a budget", "Prices are Ebb&#39;s built-in list", "as of 2026-11-22",
	} {
		require.True(t, strings.Contains(html, want) || strings.Contains(html, strings.ReplaceAll(want, "&#39;", "'")), want)
	}
	require.Equal(t, 4, strings.Count(html, "<svg "))
}

func TestAccountAsJSON(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, account().JSON(&b))
	var back Account
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	want := *account()
	want.Hours = nil
	require.Equal(t, want, back)
}

func TestAccountAsCSV(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, account().CSV(&b))
	rows, err := csv.NewReader(&b).ReadAll()
	require.NoError(t, err)
	require.Equal(t, []string{
		"2026-01-05T00:00:00Z", "2026-01-05T00:01:00Z", "d-1", "'=HYPERLINK(1)", "", "", "shrink", "done", "5", "3", "0", "0", "60", "0.000", "Rightsize", "", `"quoted", with a comma`,
	}, rows[1])
	b.Reset()
	require.NoError(t, account().CSVHours(&b))
	rows, err = csv.NewReader(&b).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 721)
	require.Equal(t, []string{"2026-01-05T01:00:00Z", "100", "90", "500000000000", "1996000000000", "1000000000", "2000000000000", "0.2505", "1", "1", "0", "0", "-19.0000"}, rows[2])
}

func TestThinKeepsWhatCounts(t *testing.T) {
	hours := account().Hours
	for _, n := range []int{1, 7, 360, 719, 720, 1000} {
		short := Thin(hours, n)
		require.LessOrEqual(t, len(short), n)
		grows, want := 0, 0
		for _, s := range short {
			grows += s.Grows
		}
		for _, s := range hours {
			want += s.Grows
		}
		require.Equal(t, want, grows)
		require.InDelta(t, hours[719].NetUSD, short[len(short)-1].NetUSD, 0)
	}
	require.Empty(t, Thin(nil, 5))
}
