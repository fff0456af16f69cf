package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ebb-storage/ebb/tests/node/internal/ebs"
	"github.com/ebb-storage/ebb/tests/node/internal/wire"
)

const (
	idleConnections = 3 // kept open for the host to use
	dialTimeout     = 10 * time.Second
	volumeTimeout   = 60 * time.Second
)

// server answers the host's requests over connections that it dials itself, since nothing can dial in.
type server struct {
	config  wire.Config
	contact atomic.Int64 // unix nanoseconds of the last sign of life from the host
	volumes sync.Mutex   // one volume operation at a time

	commands sync.Map // the process ids of commands that run
}

func serve() error {
	c, err := readConfig()
	if err != nil {
		return err
	}
	s := &server{config: c}
	s.contact.Store(time.Now().UnixNano())
	for range idleConnections {
		go s.offer()
	}
	for {
		time.Sleep(time.Second)
		lost := time.Since(time.Unix(0, s.contact.Load()))
		if c.OrphanSeconds > 0 && lost > time.Duration(c.OrphanSeconds)*time.Second {
			fmt.Printf("guest: no host for %s, powering off\n", lost.Round(time.Second))
			return powerOff()
		}
	}
}

// offer keeps one connection waiting for a request, for ever.
func (s *server) offer() {
	for {
		conn, err := s.dial()
		if err != nil {
			time.Sleep(200 * time.Millisecond)
			continue
		}
		r := bufio.NewReader(conn)
		var req wire.Request
		if err := s.await(conn, r, &req); err != nil {
			_ = conn.Close()
			continue
		}
		go s.handle(conn, r, req)
	}
}

func (s *server) dial() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(s.config.HostAddress, strconv.Itoa(s.config.Port)), dialTimeout)
	if err != nil {
		return nil, err
	}
	if err := wire.WriteJSON(conn, wire.Hello, wire.Greeting{Token: s.config.Token}); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// await waits for the request that comes over an idle connection. slirp accepts a connection before it
// has reached the host, so only a connection that lasts is a sign of life.
func (s *server) await(conn net.Conn, r *bufio.Reader, req *wire.Request) error {
	opened := time.Now()
	for {
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		_, err := r.Peek(1)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.contact.Store(time.Now().UnixNano())
			continue
		}
		if err != nil {
			if time.Since(opened) < time.Second {
				time.Sleep(200 * time.Millisecond)
			}
			return err
		}
		break
	}
	s.contact.Store(time.Now().UnixNano())
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return wire.ReadJSON(r, wire.Ask, req)
}

func (s *server) handle(conn net.Conn, r *bufio.Reader, req wire.Request) {
	defer func() { _ = conn.Close() }()
	if req.Op == wire.OpExec && req.Exec != nil {
		s.run(conn, r, *req.Exec)
		return
	}
	reply := wire.Reply{}
	if err := s.do(req); err != nil {
		reply.Error = err.Error()
		if errors.Is(err, ebs.ErrBusy) {
			reply.Code = wire.CodeBusy
		}
	}
	_ = wire.WriteJSON(conn, wire.Answer, reply) // the host notices a broken connection by itself
}

func (s *server) do(req wire.Request) error {
	ctx, cancel := context.WithTimeout(context.Background(), volumeTimeout)
	defer cancel()
	var v ebs.Volume
	if req.Volume != nil {
		w := req.Volume
		v = ebs.Volume{ID: w.ID, Disk: w.Disk, Bytes: w.Bytes, Fault: w.Fault, DelayMS: w.Delay, Blocks: w.Blocks}
		s.volumes.Lock()
		defer s.volumes.Unlock()
	}
	switch req.Op {
	case wire.OpPing:
		return nil
	case wire.OpAttach:
		if err := waitDisk(ctx, v); err != nil {
			return err
		}
		return ebs.Create(ctx, v)
	case wire.OpReload:
		if err := waitDisk(ctx, v); err != nil {
			return err
		}
		return ebs.Reload(ctx, v)
	case wire.OpDetach:
		return ebs.Remove(ctx, v.ID)
	case wire.OpSignal:
		if req.Signal != nil {
			return s.signal(*req.Signal)
		}
	case wire.OpPowerOff:
		go shutDown()
		return nil
	}
	return fmt.Errorf("unknown operation %q", req.Op)
}

// waitDisk waits until the kernel shows the hot-plugged disk at the size that the volume needs.
func waitDisk(ctx context.Context, v ebs.Volume) error {
	var err error
	for {
		var size uint64
		if size, err = diskBytes(v.Disk); err == nil {
			if int64(size) >= v.Bytes {
				return nil
			}
			err = fmt.Errorf("%s has %d bytes, volume %s needs %d", v.Disk, size, v.ID, v.Bytes)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func diskBytes(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	n, err := f.Seek(0, 2)
	return uint64(n), err
}

// shutDown ends every process, politely first, writes everything back and stops the machine.
func shutDown() {
	time.Sleep(50 * time.Millisecond) // lets the answer leave
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		signalOthers(sig)
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && len(others()) > 0; {
			time.Sleep(50 * time.Millisecond)
		}
	}
	unmountAll()
	if err := powerOff(); err != nil {
		fmt.Println("guest: power off:", err)
	}
}
