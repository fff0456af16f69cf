package control

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/internal/probe"
)

func TestEndpoints(t *testing.T) {
	m := newMetrics("v1", prometheus.NewRegistry())
	s := newState(m.ready)
	srv := httptest.NewServer(probe.Handler(m.registry, s.describe))
	defer srv.Close()
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		require.NoError(t, err)
		res, err := srv.Client().Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(b)
	}
	code, body := get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Contains(t, body, "not started yet")
	code, _ = get("/healthz")
	require.Equal(t, http.StatusOK, code)
	s.set("")
	code, body = get("/readyz")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ready\n", body)
	_, body = get("/metrics")
	require.Contains(t, body, "ebb_worker_ready 1")
	require.Contains(t, body, `version="v1"`)
}
