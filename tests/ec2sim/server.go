package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Server is a running simulator. Its methods may be called from any goroutine.
type Server struct {
	opt  Options
	clk  Clock
	ln   net.Listener
	http *http.Server

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // plug calls and the HTTP server

	faults   faultSet
	calls    callLog
	throttle throttle
	imds     imdsTokens

	// mu guards everything below. Never held while a Plug runs or contents
	// are copied.
	mu       sync.Mutex
	closed   bool
	st       *state
	plug     Plug
	lag      Lag
	stale    time.Duration
	jitter   bool
	rng      *rand.Rand
	journal  journal
	policy   *policy // nil: everything is allowed
	history  history
	plugging map[string]bool   // volumes a plug call is under way for
	timers   map[string]func() // stops the timer of a volume or snapshot

	imdsAt      map[string]net.Listener // metadata services, by instance
	imdsServers []*http.Server
}

// New starts a server on the state directory. Close it when done.
func New(opt Options) (*Server, error) {
	if opt.StateDir == "" {
		return nil, errors.New("ec2sim: Options.StateDir is required")
	}
	opt.setDefaults()
	for _, d := range []string{"volumes", "snapshots"} {
		if err := os.MkdirAll(filepath.Join(opt.StateDir, d), 0o700); err != nil {
			return nil, fmt.Errorf("ec2sim: state directory: %w", err)
		}
	}
	pol, err := parsePolicy(opt.Policy)
	if err != nil {
		return nil, err
	}
	st, err := loadState(opt.StateDir, opt.Seed)
	if err != nil {
		return nil, fmt.Errorf("ec2sim: %w", err)
	}
	if w, ok := opt.Clock.(*WarpClock); ok && st.Warp > w.Offset() {
		w.Advance(st.Warp - w.Offset())
	}
	s := &Server{
		opt: opt, clk: opt.Clock, st: st, plug: opt.Plug, policy: pol,
		lag: opt.Lag, stale: opt.StaleDescribe, jitter: opt.StaleJitter,
		rng:      rand.New(rand.NewPCG(uint64(opt.Seed), uint64(st.Serial))),
		plugging: map[string]bool{}, timers: map[string]func(){}, imdsAt: map[string]net.Listener{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.throttle.set(opt.Throttle)
	s.history.init()
	s.http = &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	s.ln, err = net.Listen("tcp", opt.Addr)
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("ec2sim: listen: %w", err)
	}
	if err := s.resume(); err != nil {
		return nil, errors.Join(fmt.Errorf("ec2sim: %w", err), s.Close(), s.ln.Close())
	}
	for _, i := range opt.Instances {
		if err := s.AddInstance(i); err != nil {
			return nil, errors.Join(err, s.Close(), s.ln.Close())
		}
		s.alwaysThere(i.ID)
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		if err := s.http.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
			s.opt.Logger.Error("serve", "err", err)
		}
	}()
	return s, nil
}

// resume takes up the transitions a former server left unfinished.
func (s *Server) resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumeContents()
	for _, v := range s.st.Volumes {
		s.history.volumes.seed(v.ID, v.clone())
	}
	for _, sn := range s.st.Snapshots {
		s.history.snapshots.seed(sn.ID, sn.clone())
	}
	for _, i := range s.st.Instances {
		if err := s.openIMDS(i); err != nil {
			return err
		}
		s.history.instances.seed(i.ID, i.clone())
	}
	for _, id := range sortedKeys(s.st.Volumes) {
		s.settleVolume(id)
	}
	for _, id := range sortedKeys(s.st.Snapshots) {
		s.settleSnapshot(id)
	}
	return s.commit()
}

// URL of the EC2 endpoint, for the SDK's BaseEndpoint or AWS_ENDPOINT_URL_EC2.
func (s *Server) URL() string { return "http://" + s.ln.Addr().String() }

// Close stops the server and waits for what it started. The state directory
// keeps everything, transitions under way included. Calls after the first do
// nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for _, stop := range s.timers {
		stop()
	}
	s.mu.Unlock()
	s.cancel()
	err := errors.Join(s.http.Close(), s.journal.close())
	for _, srv := range s.imdsServers {
		err = errors.Join(err, srv.Close())
	}
	s.wg.Wait()
	return err
}

// SetPlug replaces the plug; for a bench whose nodes need the server's URL first.
func (s *Server) SetPlug(p Plug) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plug = p
}

// SetLag replaces the lags of transitions that begin from now on.
func (s *Server) SetLag(l Lag) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag = l
}

// SetStaleDescribe replaces Options.StaleDescribe.
func (s *Server) SetStaleDescribe(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stale = d
}

// SetThrottle replaces Options.Throttle and fills the buckets.
func (s *Server) SetThrottle(t map[string]Bucket) { s.throttle.set(t) }

// Advance moves the clock forward; an error when the clock is not a [WarpClock].
func (s *Server) Advance(d time.Duration) error {
	w, ok := s.clk.(*WarpClock)
	if !ok {
		return errors.New("ec2sim: this clock cannot be advanced")
	}
	w.Advance(d)
	return s.update(func() error { s.st.Warp = w.Offset(); s.journal.dirty = true; return nil })
}

// update runs f with the lock held and makes what it changed durable. An
// error of f is returned after that.
func (s *Server) update(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return apiErr("Unavailable", "The server is shutting down.")
	}
	err := f()
	if cerr := s.commit(); cerr != nil {
		return cerr
	}
	return err
}

func (s *Server) commit() error {
	if err := s.journal.commit(s.st, s.opt.StateDir); err != nil {
		s.opt.Logger.Error("state not saved", "err", err)
		return err
	}
	return nil
}

// Volumes returns the true state of all volumes, ordered by id.
func (s *Server) Volumes() []Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Volume
	for _, id := range sortedKeys(s.st.Volumes) {
		out = append(out, *s.st.Volumes[id].clone())
	}
	return out
}

// Volume returns the true state of one volume.
func (s *Server) Volume(id string) (Volume, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.st.Volumes[id]
	if !ok {
		return Volume{}, false
	}
	return *v.clone(), true
}

// Snapshots returns the true state of all snapshots, ordered by id.
func (s *Server) Snapshots() []Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Snapshot
	for _, id := range sortedKeys(s.st.Snapshots) {
		out = append(out, *s.st.Snapshots[id].clone())
	}
	return out
}

// Instances returns all instances, ordered by id.
func (s *Server) Instances() []Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Instance
	for _, id := range sortedKeys(s.st.Instances) {
		out = append(out, *s.st.Instances[id].clone())
	}
	return out
}

// Attached returns the volumes whose attachment to the instance is complete,
// ordered by device: what a node must find when it boots.
func (s *Server) Attached(instanceID string) []Volume {
	var out []Volume
	for _, v := range s.Volumes() {
		if a := v.Attachment; a != nil && a.InstanceID == instanceID && a.State == StateAttached {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b Volume) int { return strings.Compare(a.Attachment.Device, b.Attachment.Device) })
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
