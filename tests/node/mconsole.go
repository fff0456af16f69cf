package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// The management console of a User Mode Linux kernel: datagrams over a unix socket.
const (
	mconsoleMagic   = 0xcafebabe
	mconsoleVersion = 2
	mconsoleData    = 512
	mconsoleTimeout = 20 * time.Second
)

// errConfigured is the kernel's word for a disk that is there already.
const errConfigured = "already configured"

// errMconsole is what the kernel answered to a command that it refused.
var errMconsole = errors.New("management console")

type mconsole struct {
	socket string          // the kernel's
	local  string          // path prefix for our own sockets
	calls  *atomic.Int64   // numbers them
	down   <-chan struct{} // closed when the kernel has ended
}

// do executes one command; an error carries the kernel's answer.
func (m mconsole) do(ctx context.Context, command string) error {
	if len(command) >= mconsoleData {
		return fmt.Errorf("%w: command of %d bytes", errMconsole, len(command))
	}
	// An abstract socket leaves nothing behind.
	local := &net.UnixAddr{Net: "unixgram", Name: fmt.Sprintf("@%s-%d", m.local, m.calls.Add(1))}
	conn, err := net.DialUnix("unixgram", local, &net.UnixAddr{Net: "unixgram", Name: m.socket})
	if err != nil {
		return fmt.Errorf("%w: %w", errMconsole, err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, mconsoleTimeout)
	defer cancel()
	answered := make(chan struct{})
	defer close(answered)
	go func() {
		select {
		case <-m.down:
			_ = conn.Close()
		case <-ctx.Done():
			_ = conn.Close()
		case <-answered:
		}
	}()
	req := make([]byte, 12+mconsoleData)
	binary.NativeEndian.PutUint32(req[0:], mconsoleMagic)
	binary.NativeEndian.PutUint32(req[4:], mconsoleVersion)
	binary.NativeEndian.PutUint32(req[8:], uint32(len(command)))
	copy(req[12:], command)
	if _, err := conn.Write(req); err != nil {
		return fmt.Errorf("%w: %s: %w", errMconsole, command, err)
	}
	var text bytes.Buffer
	for reply := make([]byte, 12+mconsoleData); ; {
		n, err := conn.Read(reply)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", errMconsole, command, errors.Join(err, context.Cause(ctx)))
		}
		if n < 12 {
			return fmt.Errorf("%w: %s: short answer", errMconsole, command)
		}
		failed, more := binary.NativeEndian.Uint32(reply[0:]), binary.NativeEndian.Uint32(reply[4:])
		size := min(int(binary.NativeEndian.Uint32(reply[8:])), n-12)
		text.Write(bytes.TrimRight(reply[12:12+size], "\x00"))
		if failed != 0 {
			return fmt.Errorf("%w: %s: %s", errMconsole, command, strings.TrimSpace(text.String()))
		}
		if more == 0 {
			return nil
		}
	}
}
