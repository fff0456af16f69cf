package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/price"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// ebb runs the command line.
func ebb(ctx context.Context, args ...string) (code exit.Code, out, talk string) {
	var o, e bytes.Buffer
	code = Main(ctx, "", args, ui.Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

// priceServer has the samples of two regions, with edits made to them.
func priceServer(t *testing.T, edit func(region, text string) string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		region := strings.Split(r.URL.Path, "/")[1]
		b, err := os.ReadFile(filepath.Join("..", "pricelist", "testdata", filepath.Base(region)+".csv"))
		if err != nil {
			w.WriteHeader(http.StatusForbidden) // as S3 answers for what it does not have
			return
		}
		_, _ = io.WriteString(w, edit(region, string(b)))
	}))
	t.Cleanup(s.Close)
	return s.URL + "/{region}/index.csv"
}

func asItIs(_, text string) string { return text }

func TestPriceRefreshAndShow(t *testing.T) {
	url := priceServer(t, asItIs)
	file := filepath.Join(t.TempDir(), "prices.json")
	refresh := []string{"price", "refresh", "--url", url, "--out", file, "--region"}

	code, out, talk := ebb(t.Context(), append(refresh, "us-east-1,ap-northeast-1", "--dry-run", "-o", "json")...)
	require.Equal(t, exit.Done, code, talk)
	require.Contains(t, talk, "was not changed")
	require.NoFileExists(t, file)
	var got refreshedPrices
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.False(t, got.Written)
	require.Len(t, got.Regions, 2)
	require.True(t, got.Regions[0].New)
	require.Equal(t, "ap-northeast-1", got.Regions[0].Region)
	require.Equal(t, "2026-10-05", got.Regions[0].Date)

	code, out, talk = ebb(t.Context(), append(refresh, "us-east-1", "--region", "ap-northeast-1")...)
	require.Equal(t, exit.Done, code, talk)
	require.Contains(t, out, "ap-northeast-1   2026-10-05   gp3        MiB/s-month     125         -     0.048")
	require.Contains(t, talk, "note: ap-northeast-1: no prices of standard in the list")
	require.Contains(t, talk, "wrote "+file)

	// The worker reads what was written.
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	book, err := price.Load(data)
	require.NoError(t, err)
	require.Equal(t, "2026-09-21", book.Date)
	p, ok := book.In("ap-northeast-1")
	require.True(t, ok)
	require.Equal(t, strings.ReplaceAll(url, "{region}", "ap-northeast-1"), p.Source)

	// Again: nothing changes, the other region is kept.
	code, out, talk = ebb(t.Context(), append(refresh, "us-east-1")...)
	require.Equal(t, exit.Done, code, talk)
	require.Contains(t, out, "no change")
	require.Contains(t, talk, "kept as they were: ap-northeast-1")
	again, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(data), string(again))

	// A price went up.
	up := priceServer(t, func(_, text string) string { return strings.ReplaceAll(text, `"0.0800000000"`, `"0.0880000000"`) })
	code, out, talk = ebb(t.Context(), "price", "refresh", "--url", up, "--out", file, "--region", "us-east-1")
	require.Equal(t, exit.Done, code, talk)
	require.Equal(t, "us-east-1   2026-09-21   gp3    GiB-month             0.08     0.088", strings.Split(out, "\n")[1])

	code, out, _ = ebb(t.Context(), "price", "show", "--file", file, "--region", "us-east-1")
	require.Equal(t, exit.Done, code)
	require.Contains(t, out, "2026-09-21")
	require.Contains(t, out, strings.ReplaceAll(up, "{region}", "us-east-1"))
	require.Contains(t, out, "io2        IOPS-month    64000   0.03185\n")
	require.Contains(t, out, "snapshot   GiB-month                0.05\n")
	require.NotContains(t, out, "ap-northeast-1")
}

func TestPriceRefreshLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "prices.json")
	old, err := price.BuiltIn().JSON()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, old, 0o600))
	twoPrices := func(region, text string) string {
		if region == "us-east-1" {
			return text
		}
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, `"C8Y3GJZBQTH8T5JV"`) {
				return text + strings.Replace(line, `"0.0960000000"`, `"0.0970000000"`, 1)
			}
		}
		return ""
	}
	good, page := priceServer(t, asItIs), priceServer(t, func(string, string) string { return "<html>sign in</html>" })
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5000")
		_, _ = io.WriteString(w, "\"FormatVersion\",\"v1.0\"\n")
	}))
	t.Cleanup(cut.Close)
	bad := filepath.Join(dir, "bad.json")
	require.NoError(t, os.WriteFile(bad, []byte("{"), 0o600))
	for name, tt := range map[string]struct {
		regions, url, out string
		code              exit.Code
		want, next        string
	}{
		"two prices in one of two":  {"us-east-1,ap-northeast-1", priceServer(t, twoPrices), file, exit.Refused, `SKU "C8Y3GJZBQTH8T5JV": EBS:VolumeUsage.gp3 costs 0.097 USD here and 0.096 USD`, file + " was not changed"},
		"no gp3":                    {"us-east-1", priceServer(t, func(_, s string) string { return strings.ReplaceAll(s, "VolumeUsage.gp3", "VolumeUsage.gp4") }), file, exit.Refused, "EBS:VolumeUsage.gp3 (Storage, per GiB-month) is missing", "try again later"},
		"region that is no name":    {"frankfurt", good, file, exit.Usage, `"frankfurt" is no name of a region, such as eu-central-1`, "--help"},
		"region that is not there":  {"eu-central-9", good, file, exit.Failed, "region eu-central-9: http://127.0.0.1", "aws ec2 describe-regions"},
		"region in China":           {"cn-north-1", good, file, exit.Usage, "in CNY", ""},
		"page":                      {"us-east-1", page, file, exit.Failed, "it is a web page (HTML)", "a proxy or a login page"},
		"cut off":                   {"us-east-1", cut.URL + "/{region}", file, exit.Failed, "it ends after 23 of 5000 bytes", "try again"},
		"http":                      {"us-east-1", "http://mirror.example.com/{region}", file, exit.Usage, "want https", ""},
		"one address, two regions":  {"us-east-1,eu-west-1", "https://mirror.example.com/list.csv", file, exit.Usage, "--url is the same for eu-west-1 and us-east-1", "{region}"},
		"no directory":              {"us-east-1", good, filepath.Join(dir, "none", "p.json"), exit.Usage, "no such file or directory", "mkdir -p " + filepath.Join(dir, "none")},
		"a directory":               {"us-east-1", good, dir, exit.Usage, dir + " is not a file", "another file"},
		"a file that is no list":    {"us-east-1", good, bad, exit.Usage, bad + ": price list:", "move this one away"},
		"no region":                 {",", good, file, exit.Usage, "", ""},
		"a file under a plain file": {"us-east-1", good, filepath.Join(bad, "p.json"), exit.Usage, "not a directory", ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, talk := ebb(t.Context(), "price", "refresh", "--url", tt.url, "--out", tt.out, "--region", tt.regions)
			require.Equal(t, tt.code, code, talk)
			require.Empty(t, out)
			require.Contains(t, talk, tt.want)
			require.Contains(t, talk, tt.next)
			now, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(old), string(now))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 2, "nothing is left behind")
		})
	}
}

func TestPriceRefreshInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := priceServer(t, func(_, text string) string { cancel(); return text[:5000] })
	file := filepath.Join(t.TempDir(), "prices.json")
	code, _, talk := ebb(ctx, "price", "refresh", "--url", url, "--out", file, "--region", "us-east-1")
	require.Equal(t, exit.Detached, code)
	require.Contains(t, talk, "interrupted; "+file+" was not changed")
	require.NoFileExists(t, file)
}

func TestPriceShowBuiltIn(t *testing.T) {
	code, out, _ := ebb(t.Context(), "price", "show", "-o", "json")
	require.Equal(t, exit.Done, code)
	var got shownPrices
	require.NoError(t, json.Unmarshal([]byte(out), &got))
	require.True(t, got.BuiltIn)
	require.Len(t, got.Regions, len(price.BuiltIn().Regions))
	require.Contains(t, got.Regions[0].Prices, onePrice{Item: "gp3", Per: "IOPS-month", From: 3000, USD: .005})

	code, _, talk := ebb(t.Context(), "price", "show", "--region", "eu-west-1")
	require.Equal(t, exit.NotFound, code)
	require.Contains(t, talk, `no prices of region "eu-west-1" in the built-in list; it has us-east-1, us-east-2, us-west-2`)
	require.Contains(t, talk, "next: ebb price refresh --region eu-west-1 --out prices.json")

	code, _, talk = ebb(t.Context(), "price", "show", "--file", "/none.json")
	require.Equal(t, exit.Usage, code)
	require.Contains(t, talk, "/none.json: no such file")
}

func TestPriceShowWarnsOfOldPrices(t *testing.T) {
	day, err := time.Parse(time.DateOnly, price.BuiltIn().Date)
	require.NoError(t, err)
	for _, tt := range []struct {
		after time.Duration
		old   bool
	}{{-time.Hour, false}, {180*24*time.Hour + time.Hour, false}, {181 * 24 * time.Hour, true}} {
		var out, talk bytes.Buffer
		a := &app{output: ui.TableFormat, streams: ui.Streams{Out: &out, Err: &talk}}
		require.NoError(t, a.runPriceShow(priceShowOptions{region: "us-west-2"}, day.Add(tt.after)))
		require.Contains(t, out.String(), price.BuiltIn().Date+", built in")
		if !tt.old {
			require.Empty(t, talk.String())
			continue
		}
		require.Contains(t, talk.String(), "the prices of us-west-2 are up to 181 days old")
		require.Contains(t, talk.String(), "ebb price refresh --region us-west-2 --out prices.json")
	}
}

// ebb policy explain counts with the file, too: the same shrink saves more where
// a GiB costs more.
func TestExplainCountsWithAFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
		return name
	}
	policy := write("policy.yaml", "apiVersion: ebb.io/v1alpha1\nkind: Policy\ndefaults: {mode: enforce}\n")
	facts := write("disk.yaml", "sizeBytes: 2147483648000\nusedBytes: 268435456000\nvolumes: [{gib: 1000, type: gp3, iops: 3000, throughputMiBs: 125}]\n")
	list := filepath.Join(dir, "prices.json")
	code, _, talk := ebb(t.Context(), "price", "refresh", "--url", priceServer(t, asItIs), "--out", list, "--region", "ap-northeast-1")
	require.Equal(t, exit.Done, code, talk)
	saving := func(more ...string) float64 {
		code, out, talk := ebb(t.Context(), append([]string{"policy", "explain", "--policy", policy, "--facts", facts, "-o", "json"}, more...)...)
		require.Equal(t, exit.Done, code, talk)
		var got explanation
		require.NoError(t, json.Unmarshal([]byte(out), &got))
		require.NotNil(t, got.Plan)
		return got.Plan.SavingUSDMonth
	}
	builtIn := saving()
	require.Positive(t, builtIn)
	require.InEpsilon(t, builtIn*.096/.08, saving("--prices", list, "--region", "ap-northeast-1"), 1e-9)
	code, _, talk = ebb(t.Context(), "policy", "explain", "--policy", policy, "--facts", facts, "--prices", filepath.Join(dir, "none.json"))
	require.Equal(t, exit.Usage, code)
	require.Contains(t, talk, "no such file")
}

func TestDownloading(t *testing.T) {
	s := downloading("us-east-1", 100<<20, 300<<20, 10*time.Second)
	require.InDelta(t, 10, s.MiBs, 1e-9)
	require.Equal(t, 20*time.Second, s.ETA)
	require.InDelta(t, 1.0/3, s.Fraction(), 1e-9)
	require.Equal(t, "100 MiB", downloading("us-east-1", 100<<20, -1, time.Second).Note)
}
