package ec2sim

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The instance metadata service, version 2 only, as on an instance that
// requires tokens. Each instance has its own port.

const (
	imageID   = "ami-0ebb00000000ec2f5"
	tokenHead = "X-Aws-Ec2-Metadata-Token"
	ttlHead   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

func privateDNSName(instanceID string) string {
	return strings.TrimPrefix(instanceID, "i-") + ".ec2.internal"
}

// IMDSURL is the instance's metadata endpoint, for
// AWS_EC2_METADATA_SERVICE_ENDPOINT or the imds client's Endpoint option: a
// port of its own, because the SDK drops an endpoint's path. The port stays
// the same over restarts while it is free. The host is the one the server
// listens on; a node behind a gateway replaces it. "" for an unknown instance.
func (s *Server) IMDSURL(instanceID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ln, ok := s.imdsAt[instanceID]; ok {
		return "http://" + ln.Addr().String()
	}
	return ""
}

// openIMDS gives the instance its metadata port. Lock held.
func (s *Server) openIMDS(i *Instance) error {
	host, _, err := net.SplitHostPort(s.opt.Addr)
	if err != nil {
		return fmt.Errorf("ec2sim: address: %w", err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(i.IMDSPort)))
	if err != nil && i.IMDSPort != 0 {
		ln, err = net.Listen("tcp", net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return fmt.Errorf("ec2sim: metadata service of %s: %w", i.ID, err)
	}
	i.IMDSPort = ln.Addr().(*net.TCPAddr).Port
	s.journal.instances.mark(i.ID)
	s.imdsAt[i.ID] = ln
	id := i.ID
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.serveIMDS(w, r, id, strings.TrimPrefix(r.URL.Path, "/"))
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	s.imdsServers = append(s.imdsServers, srv)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			s.opt.Logger.Error("serve metadata", "instance", id, "err", err)
		}
	}()
	return nil
}

type imdsToken struct {
	instance string
	expires  time.Time
}

type imdsTokens struct {
	mu     sync.Mutex
	tokens map[string]imdsToken
}

func (t *imdsTokens) issue(instance string, expires time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tokens == nil {
		t.tokens = map[string]imdsToken{}
	}
	name := rand.Text()
	t.tokens[name] = imdsToken{instance, expires}
	return name
}

func (t *imdsTokens) valid(name, instance string, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	tok, ok := t.tokens[name]
	if ok && now.After(tok.expires) {
		delete(t.tokens, name)
	}
	return ok && tok.instance == instance && !now.After(tok.expires)
}

func (s *Server) serveIMDS(w http.ResponseWriter, r *http.Request, id, path string) {
	s.mu.Lock()
	inst, ok := s.st.Instances[id]
	if ok {
		inst = inst.clone()
	}
	s.mu.Unlock()
	now := s.clk.Now()
	switch {
	case !ok || inst.State == StateTerminated:
		http.NotFound(w, r)
	case path == "latest/api/token" && r.Method == http.MethodPut:
		ttl, err := strconv.Atoi(r.Header.Get(ttlHead))
		if err != nil || ttl < 1 || ttl > 21600 {
			http.Error(w, "Bad Request", http.StatusBadRequest)
			return
		}
		w.Header().Set(ttlHead, strconv.Itoa(ttl))
		_, _ = w.Write([]byte(s.imds.issue(id, now.Add(time.Duration(ttl)*time.Second))))
	case r.Method != http.MethodGet:
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	case !s.imds.valid(r.Header.Get(tokenHead), id, now):
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	default:
		body, ok := s.metadata(inst, path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(body))
	}
}

// metadata is the document at a path, or the names below it.
func (s *Server) metadata(i *Instance, path string) (string, bool) {
	const root = "latest/meta-data/"
	docs := map[string]string{
		root + "ami-id":                         imageID,
		root + "hostname":                       privateDNSName(i.ID),
		root + "instance-id":                    i.ID,
		root + "instance-life-cycle":            "on-demand",
		root + "instance-type":                  i.Type,
		root + "local-hostname":                 privateDNSName(i.ID),
		root + "local-ipv4":                     "10.0.2.15",
		root + "placement/availability-zone":    i.Zone,
		root + "placement/availability-zone-id": s.zoneID(i.Zone),
		root + "placement/region":               s.opt.Region,
		root + "services/domain":                "amazonaws.com",
		root + "services/partition":             "aws",
	}
	docs["latest/dynamic/instance-identity/document"] = s.identityDocument(i)
	if d, ok := docs[path]; ok {
		return d, true
	}
	dir := strings.TrimSuffix(path, "/")
	if dir != "" {
		dir += "/"
	}
	var names []string
	for p := range docs {
		if rest, ok := strings.CutPrefix(p, dir); ok {
			head, _, below := strings.Cut(rest, "/")
			if below {
				head += "/"
			}
			names = append(names, head)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return strings.Join(names, "\n"), len(names) > 0
}

func (s *Server) identityDocument(i *Instance) string {
	data, err := json.MarshalIndent(map[string]any{
		"accountId": s.opt.AccountID, "architecture": "x86_64", "availabilityZone": i.Zone, "imageId": imageID,
		"instanceId": i.ID, "instanceType": i.Type, "pendingTime": i.Launched.UTC().Format(time.RFC3339),
		"privateIp": "10.0.2.15", "region": s.opt.Region, "version": "2017-09-30",
	}, "", "  ")
	if err != nil {
		return "{}" // strings always encode
	}
	return string(data)
}
