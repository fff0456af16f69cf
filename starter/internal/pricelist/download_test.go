package pricelist_test

import (
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/starter/internal/pricelist"
)

// serve answers every request with answer and returns a pattern of addresses.
func serve(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL + "/offers/{region}/index.csv"
}

func TestDownload(t *testing.T) {
	text := sample(t, "us-east-1")
	for name, packed := range map[string]bool{"plain": false, "gzip": true} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/offers/us-east-1/index.csv" || !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
					http.NotFound(w, r)
					return
				}
				if !packed {
					w.Header().Set("Content-Length", strconv.Itoa(len(text)))
					_, _ = io.WriteString(w, text)
					return
				}
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				_, _ = io.WriteString(z, text)
				_ = z.Close()
			})
			var done, total int64
			l, err := pricelist.Download(t.Context(), "us-east-1", pricelist.Options{
				URL: url + "?token=secret", Progress: func(d, t int64) { done, total = d, t },
			})
			require.NoError(t, err)
			require.InDelta(t, .08, l.Table.Types["gp3"].GiB, 1e-12)
			require.Equal(t, "2026-09-21", l.Table.Date)
			require.Equal(t, strings.ReplaceAll(url, "{region}", "us-east-1"), l.Table.Source, "without what may be secret")
			if packed {
				require.Less(t, done, int64(len(text)))
			} else {
				require.Equal(t, []int64{int64(len(text)), int64(len(text))}, []int64{done, total})
			}
		})
	}
}

func TestDownloadThatFails(t *testing.T) {
	text := sample(t, "us-east-1")
	half := text[:strings.LastIndex(text[:len(text)-1], "\n")+1] // a whole row short
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		o      pricelist.Options
		kind   error
		want   string
	}{
		"404": {answer: http.NotFound, kind: pricelist.ErrNoList, want: "region us-east-1: http://127.0.0.1"},
		"403": {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, kind: pricelist.ErrNoList, want: "answers HTTP 403"},
		"503": {answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, kind: pricelist.ErrDownload, want: "answers HTTP 503"},
		"page": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
		}, kind: pricelist.ErrFormat, want: "web page"},
		"page as text": {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, kind: pricelist.ErrFormat, want: "web page"},
		"cut off": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			_, _ = io.WriteString(w, half)
		}, kind: pricelist.ErrDownload, want: "it ends after " + strconv.Itoa(len(half)) + " of " + strconv.Itoa(len(text)) + " bytes"},
		"cut off in a row": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(text)))
			_, _ = io.WriteString(w, text[:len(text)-30])
		}, kind: pricelist.ErrDownload, want: "it ends after"},
		"cut off, size unknown": {answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, half)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, kind: pricelist.ErrDownload, want: "it ends in the middle"},
		"gzip cut off": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, text)
			_ = z.Flush() // without the end
		}, kind: pricelist.ErrDownload, want: "it ends in the middle"},
		"no gzip": {answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, text)
		}, kind: pricelist.ErrFormat, want: "gzip: invalid header"},
		"other packing": {answer: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "br") }, kind: pricelist.ErrFormat, want: `packed with "br"`},
		"too long":      {answer: func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }, o: pricelist.Options{MaxBytes: 5000}, kind: pricelist.ErrFormat, want: "more than 5000 bytes"},
		"stands still": {answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, half)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, o: pricelist.Options{Stall: 50 * time.Millisecond}, kind: pricelist.ErrDownload, want: "nothing came for too long: 50ms"},
		"never answers": {answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, o: pricelist.Options{Stall: 50 * time.Millisecond}, kind: pricelist.ErrDownload, want: ""},
		"takes too long": {answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, half)
			<-r.Context().Done()
		}, o: pricelist.Options{Total: 50 * time.Millisecond}, kind: pricelist.ErrDownload, want: "took longer than 50ms"},
		"redirected to http":   {answer: http.RedirectHandler("http://prices.example.com/x", http.StatusFound).ServeHTTP, kind: pricelist.ErrURL, want: "want https"},
		"redirected in a ring": {answer: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, kind: pricelist.ErrURL, want: "again and again"},
		"refused, in the list": {answer: func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.ReplaceAll(text, `"USD"`, `"EUR"`))
		}, kind: pricelist.ErrPrices, want: "its price is in EUR"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.o.URL = serve(t, tt.answer)
			_, err := pricelist.Download(t.Context(), "us-east-1", tt.o)
			require.ErrorIs(t, err, tt.kind)
			require.ErrorContains(t, err, tt.want)
			require.NotErrorIs(t, err, context.Canceled, "nobody interrupted it")
		})
	}
}

// A download may take longer than nothing may come.
func TestSlowIsNotStalled(t *testing.T) {
	const stall, tick, ticks = time.Second, 100 * time.Millisecond, 15
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		every := time.NewTicker(tick)
		defer every.Stop()
		text := sample(t, "us-east-1")
		for range ticks {
			n := min(500, len(text))
			_, _ = io.WriteString(w, text[:n])
			_ = http.NewResponseController(w).Flush()
			text = text[n:]
			<-every.C
		}
		_, _ = io.WriteString(w, text)
	})
	began := time.Now()
	_, err := pricelist.Download(t.Context(), "us-east-1", pricelist.Options{URL: url, Stall: stall})
	require.NoError(t, err)
	require.Greater(t, time.Since(began), stall)
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	_, err = pricelist.Download(t.Context(), "us-east-1", pricelist.Options{URL: "http://" + addr + "/{region}"})
	require.ErrorIs(t, err, pricelist.ErrDownload)
	require.ErrorContains(t, err, "connection refused")
}

func TestInterruptedDownload(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, sample(t, "us-east-1"))
		_ = http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
	})
	_, err := pricelist.Download(ctx, "us-east-1", pricelist.Options{URL: url})
	require.ErrorIs(t, err, context.Canceled)
}

func TestAddresses(t *testing.T) {
	got, err := pricelist.ListURL("", "us-gov-west-1")
	require.NoError(t, err)
	require.Equal(t, "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonEC2/current/us-gov-west-1/index.csv", got)
	for _, ok := range []string{"http://localhost:80/x", "http://[::1]/x", "http://127.0.0.2/x", "https://mirror.example.com/{region}.csv"} {
		_, err := pricelist.ListURL(ok, "eu-west-1")
		require.NoError(t, err, ok)
	}
	for bad, want := range map[string]string{
		"http://mirror.example.com/x":    "want https",
		"http://localhost.example.com/x": "want https",
		"file:///etc/passwd":             "names no host",
		"mirror.example.com/x":           "names no host",
		"https://me:word@example.com/x":  "me:xxxxx@example.com",
		"https://%zz/":                   "cannot be read",
	} {
		_, err := pricelist.ListURL(bad, "eu-west-1")
		require.ErrorIs(t, err, pricelist.ErrURL)
		require.ErrorContains(t, err, want, bad)
	}
	for region, want := range map[string]string{
		"":                 "no name of a region",
		"eu_west_1":        "no name of a region",
		"us-east-1a":       "no name of a region",
		"../us-east-1":     "no name of a region",
		"us-west-2-lax-1":  "no name of a region",
		"Europe (Ireland)": "no name of a region",
		"cn-north-1":       "in CNY",
	} {
		_, err := pricelist.ListURL("", region)
		require.ErrorIs(t, err, pricelist.ErrURL)
		require.ErrorContains(t, err, want, region)
	}
}
