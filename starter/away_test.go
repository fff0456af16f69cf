package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/starter/internal/cmd"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// run is the command in this process.
func run(ctx context.Context, out, talk io.Writer, args ...string) exit.Code {
	return cmd.Main(ctx, "", args, ui.Streams{Out: out, Err: talk, In: strings.NewReader("")})
}

// nobodyWorks starts an operation that no worker takes up: it is told what is
// missing, and Ctrl-C leaves the operation waiting for a worker.
func nobodyWorks(t *testing.T, address string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	idle := []string{"--address", address, "--namespace", "idle"}
	var seen syncBuffer
	require.Zero(t, run(ctx, io.Discard, &seen, append(idle, "setup")...), seen.String())
	interrupt, cancelRun := context.WithCancel(ctx)
	code := make(chan exit.Code, 1)
	go func() {
		code <- run(interrupt, &seen, &seen, append(idle, "grow", "d-fffffffffffffffff", "--refresh", "50ms")...)
	}()
	require.Eventually(t, func() bool { return strings.Contains(seen.String(), "no worker serves the queue ebb-control") }, 20*time.Second, 20*time.Millisecond)
	cancelRun()
	require.Equal(t, exit.Detached, <-code)
	require.Contains(t, seen.String(), "Detached. The grow of disk d-fffffffffffffffff goes on.")
	require.Equal(t, exit.Busy, run(ctx, io.Discard, &seen, append(idle, "grow", "d-fffffffffffffffff")...))
}

// temporalGoesAway cuts the connection while an operation is watched: the
// watcher says so and sees the end all the same.
func temporalGoesAway(t *testing.T, address string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var talk bytes.Buffer
	direct := []string{"--address", address}
	require.Zero(t, run(ctx, io.Discard, &talk, append(direct, "disk", "create", "away", "--size", "64GiB", "--node", nodeA)...), &talk)
	require.Zero(t, run(ctx, io.Discard, &talk, append(direct, "shrink", "away", "--throttle", "1MiB/s", "--detach")...), &talk)

	wire := newWire(t, address)
	var seen syncBuffer
	code := make(chan exit.Code, 1)
	go func() {
		code <- run(ctx, &seen, &seen, "--address", wire.Addr(), "watch", "away", "--refresh", "50ms")
	}()
	wait := func(text string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(seen.String(), text) }, 20*time.Second, 20*time.Millisecond, "want %q in:\n%s", text, &seen)
	}
	wait("copy  30%")
	wire.Cut()
	wait("Temporal does not answer; the operation goes on all the same")
	require.Zero(t, run(ctx, io.Discard, &talk, append(direct, "throttle", "away", "off")...), &talk)
	wire.Mend()
	select {
	case c := <-code:
		require.Zero(t, c, seen.String())
	case <-ctx.Done():
		t.Fatal(seen.String())
	}
	require.Contains(t, seen.String(), "backing        4 GiB -> 2 GiB")
}

// wire is a TCP connection to Temporal that can be cut.
type wire struct {
	t        *testing.T
	listener net.Listener
	mu       sync.Mutex
	cut      bool
	open     []net.Conn
	done     sync.WaitGroup
}

func newWire(t *testing.T, target string) *wire {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{t: t, listener: l}
	w.done.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil || !w.keep(in, out) {
				_ = in.Close()
				continue
			}
			w.done.Go(func() { _, _ = io.Copy(in, out); _ = in.Close() })
			w.done.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.Cut()
		w.done.Wait()
	})
	return w
}

func (w *wire) Addr() string { return w.listener.Addr().String() }

// keep notes a connection, or closes it when the wire is cut.
func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		for _, c := range conns {
			_ = c.Close()
		}
		return false
	}
	w.open = append(w.open, conns...)
	return true
}

// Cut breaks all connections and lets no new one live.
func (w *wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}

// Mend lets connections live again.
func (w *wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = false
}

// syncBuffer may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
