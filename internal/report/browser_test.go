package report

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// browser finds a Chromium, or skips the test.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("Chromium is not installed (Debian: apt-get install chromium): the report is not rendered")
	return ""
}

// render shows a page in a real browser, writes a picture of it and returns what the
// browser made of it. The page must violate no policy of its own and ask nothing of
// the network.
func render(t *testing.T, html []byte, shot string) (dom string) {
	t.Helper()
	program := browser(t)
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/favicon.ico" {
			asked = append(asked, r.URL.Path)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.Copy(w, bytes.NewReader(html))
	}))
	defer server.Close()
	flags := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking", "--enable-logging=stderr",
		"--user-data-dir=" + filepath.Join(t.TempDir(), "profile"),
	}
	run := func(more ...string) (string, string) {
		c := exec.CommandContext(t.Context(), program, append(append([]string{}, flags...), more...)...)
		var out, log bytes.Buffer
		c.Stdout, c.Stderr = &out, &log
		require.NoError(t, c.Run(), log.String())
		return out.String(), log.String()
	}
	_, log := run("--window-size=1160,2000", "--screenshot="+shot, server.URL+"/report.html")
	require.NotContains(t, log, "Content Security Policy")
	info, err := os.Stat(shot)
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(20_000), "the picture is nearly empty")
	dom, _ = run("--dump-dom", server.URL+"/report.html")
	require.Equal(t, []string{"/report.html", "/report.html"}, asked, fmt.Sprint("the page asked for more: ", asked))
	return dom
}

// TestInChromium renders both pages, which must draw all their charts. With
// EBB_REPORT (a page's HTML) and EBB_SCREENSHOT (a PNG to write) it makes the
// pictures of docs/simulate.md and docs/report.md instead.
func TestInChromium(t *testing.T) {
	pages := map[string]func(io.Writer) error{"simulated": sample().HTML, "recorded": account().HTML}
	shot := filepath.Join(t.TempDir(), "report.png")
	if name := os.Getenv("EBB_REPORT"); name != "" {
		pages = map[string]func(io.Writer) error{"given": func(w io.Writer) error {
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			_, err = w.Write(data)
			return err
		}}
		shot = os.Getenv("EBB_SCREENSHOT")
	}
	for name, write := range pages {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			require.NoError(t, write(&b))
			dom := render(t, b.Bytes(), shot)
			require.Equal(t, 4, strings.Count(dom, "<svg "))
			require.Contains(t, dom, `class="area used"`)
		})
	}
}
