package nodetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/tests/node"
)

// controlEnv tells a test inside a node where its host listens.
const controlEnv = "EBB_NODE_CONTROL"

const controlTimeout = 2 * time.Minute

// order is what a test inside a node asks of its host.
type order struct {
	Do     string     `json:"do"`
	Volume string     `json:"volume"`
	Bytes  int64      `json:"bytes,omitempty"`
	Fault  node.Fault `json:"fault"`
}

// serveControl answers orders for one node until stop is called.
func serveControl(t testing.TB, n node.Node) (url string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{ReadHeaderTimeout: controlTimeout, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o order
		err := json.NewDecoder(r.Body).Decode(&o)
		if err == nil {
			err = obey(r.Context(), n, o)
		}
		switch {
		case errors.Is(err, node.ErrBusy):
			http.Error(w, err.Error(), http.StatusConflict)
		case err != nil:
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // always ends with an error, when closed
	}()
	port := l.Addr().(*net.TCPAddr).Port
	return "http://" + net.JoinHostPort(n.HostAddress(), strconv.Itoa(port)), func() {
		_ = server.Close()
		<-done
	}
}

func obey(ctx context.Context, n node.Node, o order) error {
	switch o.Do {
	case "attach":
		return n.Attach(ctx, o.Volume, "", VolumeFile(n, o.Volume), o.Bytes)
	case "detach":
		return n.Detach(ctx, o.Volume)
	case "resize":
		return n.Resize(ctx, o.Volume, o.Bytes)
	case "fault":
		return n.SetVolumeFault(ctx, o.Volume, o.Fault)
	case "delete":
		return os.Remove(VolumeFile(n, o.Volume))
	}
	return fmt.Errorf("unknown order %q", o.Do)
}

// Cloud is what a test inside a node has for EC2: it acts on the node that the test runs in. Its methods
// fail the test when the host does.
type Cloud struct {
	t   testing.TB
	url string
}

// Host returns the cloud of the node that the test runs in, or skips the test outside of a node.
func Host(t testing.TB) *Cloud {
	t.Helper()
	if !Inside() || os.Getenv(controlEnv) == "" {
		t.Skip("runs inside a node only: see nodetest.Run")
	}
	return &Cloud{t: t, url: os.Getenv(controlEnv)}
}

// Attach attaches a volume of that size: a new one, or one that was detached.
func (c *Cloud) Attach(volumeID string, sizeBytes int64) {
	c.t.Helper()
	require.NoError(c.t, c.post(order{Do: "attach", Volume: volumeID, Bytes: sizeBytes}))
}

// Detach detaches a volume, or returns an error that wraps node.ErrBusy when it is in use.
func (c *Cloud) Detach(volumeID string) error {
	c.t.Helper()
	return c.post(order{Do: "detach", Volume: volumeID})
}

// Delete throws the bytes of a detached volume away.
func (c *Cloud) Delete(volumeID string) {
	c.t.Helper()
	require.NoError(c.t, c.post(order{Do: "delete", Volume: volumeID}))
}

// Resize gives an attached volume a new size.
func (c *Cloud) Resize(volumeID string, sizeBytes int64) {
	c.t.Helper()
	require.NoError(c.t, c.post(order{Do: "resize", Volume: volumeID, Bytes: sizeBytes}))
}

// SetFault breaks or mends a volume.
func (c *Cloud) SetFault(volumeID string, f node.Fault) {
	c.t.Helper()
	require.NoError(c.t, c.post(order{Do: "fault", Volume: volumeID, Fault: f}))
}

func (c *Cloud) post(o order) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	// Not the test's context: clean-ups use it too.
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the host to %s %s: %w", o.Do, o.Volume, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusConflict:
		return fmt.Errorf("%w: %s", node.ErrBusy, bytes.TrimSpace(text))
	}
	return fmt.Errorf("host: %s %s: %s", o.Do, o.Volume, bytes.TrimSpace(text))
}
