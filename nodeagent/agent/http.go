package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// state is why the agent is not ready: an empty map means it is.
type state struct {
	ready prometheus.Gauge

	mu    sync.Mutex
	not   map[string]string // what is missing -> in words
	notes []string          // problems that do not make it unready
}

func newState(ready prometheus.Gauge) *state {
	return &state{ready: ready, not: map[string]string{
		"preflight": "not done yet", "reconcile": "not done yet", "worker": "not started yet",
	}}
}

// set says why a part is not ready; an empty reason says that it is.
func (s *state) set(part, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reason == "" {
		delete(s.not, part)
	} else {
		s.not[part] = reason
	}
	s.ready.Set(flag(len(s.not) == 0))
}

func (s *state) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, text)
}

// describe is the text of /readyz.
func (s *state) describe() (ready bool, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	if len(s.not) == 0 {
		fmt.Fprintln(&b, "ready")
	} else {
		fmt.Fprintln(&b, "not ready")
	}
	for _, part := range slices.Sorted(maps.Keys(s.not)) {
		fmt.Fprintf(&b, "%s: %s\n", part, s.not[part])
	}
	for _, n := range s.notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	return len(s.not) == 0, b.String()
}

// handler serves /metrics, /healthz and /readyz.
func (s *state) handler(m *Metrics) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{Timeout: 10 * time.Second, MaxRequestsInFlight: 2}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, text := s.describe()
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprint(w, text)
	})
	return mux
}

// listen serves h on addr until the returned function is called. The chosen
// address is logged: port 0 picks a free one.
func listen(ctx context.Context, addr string, h http.Handler, log *slog.Logger) (chosen string, stop func(), err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return "", nil, fmt.Errorf("listen for probes and metrics: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving probes and metrics ended", "error", err)
		}
	}()
	chosen = l.Addr().String()
	log.Info("listening", "address", chosen)
	return chosen, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
		<-done
	}, nil
}
