package ec2sim

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// The admin endpoint: what the Go methods of Server do, for processes that
// have only the address. JSON in and out; see README.md.

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.serveAPI)

	mux.HandleFunc("GET /_admin/volumes", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Volumes()) })
	mux.HandleFunc("GET /_admin/snapshots", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Snapshots()) })
	mux.HandleFunc("GET /_admin/instances", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Instances()) })
	mux.HandleFunc("POST /_admin/instances", adminBody(func(_ *http.Request, i Instance) (any, error) { return nil, s.AddInstance(i) }))
	mux.HandleFunc("POST /_admin/seed", adminBody(func(_ *http.Request, in Seed) (any, error) {
		ids, err := s.Seed(in)
		return map[string][]string{"volumes": ids}, err
	}))
	mux.HandleFunc("GET /_admin/instances/{id}/attached", func(w http.ResponseWriter, r *http.Request) {
		reply(w, s.Attached(r.PathValue("id")))
	})
	mux.HandleFunc("GET /_admin/instances/{id}/imds", func(w http.ResponseWriter, r *http.Request) {
		reply(w, map[string]string{"url": s.IMDSURL(r.PathValue("id"))})
	})
	mux.HandleFunc("POST /_admin/instances/{id}/terminate", func(w http.ResponseWriter, r *http.Request) {
		done(w, nil, s.Terminate(r.PathValue("id")))
	})
	mux.HandleFunc("POST /_admin/instances/{id}/detach", func(w http.ResponseWriter, r *http.Request) {
		done(w, nil, s.DetachAll(r.PathValue("id")))
	})
	mux.HandleFunc("POST /_admin/instances/{id}/state", adminBody(func(r *http.Request, in struct{ State string }) (any, error) {
		return nil, s.SetInstanceState(r.PathValue("id"), in.State)
	}))
	mux.HandleFunc("POST /_admin/volumes/{id}/health", adminBody(func(r *http.Request, in struct{ Health string }) (any, error) {
		return nil, s.SetVolumeHealth(r.PathValue("id"), in.Health)
	}))

	mux.HandleFunc("GET /_admin/calls", func(w http.ResponseWriter, r *http.Request) {
		reply(w, s.Calls(r.URL.Query().Get("action")))
	})
	mux.HandleFunc("GET /_admin/counts", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Counts()) })
	mux.HandleFunc("DELETE /_admin/calls", func(w http.ResponseWriter, _ *http.Request) { s.ResetCalls(); done(w, nil, nil) })
	mux.HandleFunc("GET /_admin/faults", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Faults()) })
	mux.HandleFunc("POST /_admin/faults", adminBody(func(_ *http.Request, f Fault) (any, error) {
		return map[string]string{"id": s.AddFault(f)}, nil
	}))
	mux.HandleFunc("DELETE /_admin/faults", func(w http.ResponseWriter, _ *http.Request) { s.ClearFaults(); done(w, nil, nil) })
	mux.HandleFunc("DELETE /_admin/faults/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !s.RemoveFault(r.PathValue("id")) {
			http.NotFound(w, r)
			return
		}
		done(w, nil, nil)
	})

	mux.HandleFunc("POST /_admin/clock", adminBody(func(_ *http.Request, in struct{ Advance Duration }) (any, error) {
		return nil, s.Advance(time.Duration(in.Advance))
	}))
	mux.HandleFunc("PUT /_admin/stale", adminBody(func(_ *http.Request, in struct{ Age Duration }) (any, error) {
		s.SetStaleDescribe(time.Duration(in.Age))
		return nil, nil
	}))
	mux.HandleFunc("PUT /_admin/lag", adminBody(func(_ *http.Request, in Lag) (any, error) { s.SetLag(in); return nil, nil }))
	mux.HandleFunc("PUT /_admin/throttle", adminBody(func(_ *http.Request, in map[string]Bucket) (any, error) {
		s.SetThrottle(in)
		return nil, nil
	}))
	mux.HandleFunc("PUT /_admin/policy", adminBody(func(_ *http.Request, in json.RawMessage) (any, error) {
		if string(in) == `""` {
			return nil, s.SetPolicy("")
		}
		return nil, s.SetPolicy(string(in))
	}))
	return mux
}

// adminBody decodes the body, refusing unknown fields, and answers what f returns.
func adminBody[In any](f func(*http.Request, In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<20))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&in); err != nil {
			done(w, nil, apiErr("InvalidParameterValue", "body: %v", err))
			return
		}
		out, err := f(r, in)
		done(w, out, err)
	}
}

func done(w http.ResponseWriter, out any, err error) {
	if err == nil {
		if out == nil {
			out = map[string]bool{"ok": true}
		}
		reply(w, out)
		return
	}
	status := http.StatusBadRequest
	var e *apiError
	if errors.As(err, &e) && e.Status != 0 {
		status = e.Status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client is gone when this fails
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client is gone when this fails
}
