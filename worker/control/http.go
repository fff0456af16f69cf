package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// state is why the worker is not ready; empty means it is.
type state struct {
	ready prometheus.Gauge

	mu  sync.Mutex
	why string
}

func newState(ready prometheus.Gauge) *state {
	return &state{ready: ready, why: "not started yet"}
}

func (s *state) set(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why = why
	if why == "" {
		s.ready.Set(1)
	} else {
		s.ready.Set(0)
	}
}

func (s *state) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// handler serves /metrics, /healthz and /readyz.
func (s *state) handler(m *metrics) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Timeout: 10 * time.Second, MaxRequestsInFlight: 2}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := s.get(); why != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "not ready:", why)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	return mux
}

// listen serves h on addr until the returned function is called. The chosen
// address is logged: port 0 picks a free one.
func listen(ctx context.Context, addr string, h http.Handler, log *slog.Logger) (stop func(), err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for probes and metrics: %w", err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("serving probes and metrics ended", "error", err)
		}
	}()
	log.Info("listening", "address", l.Addr().String())
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(ctx) != nil {
			_ = srv.Close()
		}
		<-done
	}, nil
}
