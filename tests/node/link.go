package node

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/tests/node/internal/ebs"
	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

const (
	helloTimeout   = 20 * time.Second
	requestTimeout = 2 * time.Minute // a busy machine is slow, a broken link is for ever
)

// link is the host's end of the control channel of one boot: a listener that the guest dials, and the
// idle connections it keeps there. Each connection serves one request.
type link struct {
	listener net.Listener
	token    string
	idle     chan *line
	down     chan struct{} // closed by close
	once     sync.Once
	wg       sync.WaitGroup

	mu    sync.Mutex
	lines map[*line]struct{}
}

// line is one connection from the guest.
type line struct {
	net.Conn
	r     *bufio.Reader
	spoke chan struct{} // closed when the guest has said something, or is gone
	err   error         // set before spoke is closed: the guest is gone
}

func newLink() (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the guest: %w", err)
	}
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	k := &link{listener: l, token: hex.EncodeToString(b), idle: make(chan *line, 64), down: make(chan struct{}), lines: map[*line]struct{}{}}
	k.wg.Go(k.accept)
	return k, nil
}

func (k *link) port() int { return k.listener.Addr().(*net.TCPAddr).Port }

// close breaks every connection and waits for the link's goroutines.
func (k *link) close() {
	k.once.Do(func() {
		close(k.down)
		_ = k.listener.Close()
		k.mu.Lock()
		for n := range k.lines {
			_ = n.Close()
		}
		k.mu.Unlock()
	})
	k.wg.Wait()
}

func (k *link) accept() {
	for {
		c, err := k.listener.Accept()
		if err != nil {
			select {
			case <-k.down:
				return
			case <-time.After(50 * time.Millisecond): // out of file descriptors
				continue
			}
		}
		n := &line{Conn: c, r: bufio.NewReaderSize(c, 64<<10), spoke: make(chan struct{})}
		k.mu.Lock()
		select {
		case <-k.down:
			_ = c.Close()
		default:
			k.lines[n] = struct{}{}
			k.wg.Go(func() { k.watch(n) })
		}
		k.mu.Unlock()
	}
}

// watch admits a connection, offers it for use and notices when the guest lets go of it.
func (k *link) watch(n *line) {
	defer close(n.spoke)
	var hello wire.Greeting
	_ = n.SetReadDeadline(time.Now().Add(helloTimeout))
	err := wire.ReadJSON(n.r, wire.Hello, &hello)
	if err == nil && subtle.ConstantTimeCompare([]byte(hello.Token), []byte(k.token)) != 1 {
		err = errors.New("wrong token")
	}
	if err == nil {
		err = n.SetReadDeadline(time.Time{})
	}
	if err == nil {
		select {
		case k.idle <- n:
			_, err = n.r.Peek(1)
		case <-k.down:
			err = net.ErrClosed
		}
	}
	if err != nil {
		n.err = err
		k.drop(n)
	}
}

// drop closes a connection. It is safe to repeat.
func (k *link) drop(n *line) {
	_ = n.Close()
	k.mu.Lock()
	delete(k.lines, n)
	k.mu.Unlock()
}

// pick returns an idle connection that is not known to be broken.
func (k *link) pick(ctx context.Context) (*line, error) {
	for {
		select {
		case n := <-k.idle:
			select {
			case <-n.spoke: // nothing was asked: it is broken
				k.drop(n)
				continue
			default:
				return n, nil
			}
		case <-k.down:
			return nil, ErrNotRunning
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the guest: %w", context.Cause(ctx))
		}
	}
}

// ask sends a request over a fresh connection and waits for the guest's first word, which the caller reads.
func (k *link) ask(ctx context.Context, req wire.Request) (*line, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	n, err := k.pick(ctx)
	if err != nil {
		return nil, err
	}
	if err := wire.WriteJSON(n, wire.Ask, req); err != nil {
		k.drop(n)
		return nil, fmt.Errorf("ask the guest to %s: %w", req.Op, err)
	}
	select {
	case <-n.spoke:
		if n.err == nil {
			return n, nil
		}
		err = n.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	k.drop(n)
	return nil, fmt.Errorf("ask the guest to %s: %w", req.Op, err)
}

// call does a request that has one answer.
func (k *link) call(ctx context.Context, req wire.Request) error {
	n, err := k.ask(ctx, req)
	if err != nil {
		return err
	}
	defer k.drop(n)
	var reply wire.Reply
	if err := wire.ReadJSON(n.r, wire.Answer, &reply); err != nil {
		return fmt.Errorf("answer of the guest to %s: %w", req.Op, err)
	}
	switch {
	case reply.Error == "":
		return nil
	case reply.Code == wire.CodeBusy:
		return fmt.Errorf("%w: %s", ebs.ErrBusy, reply.Error)
	}
	return fmt.Errorf("guest: %s: %s", req.Op, reply.Error)
}
