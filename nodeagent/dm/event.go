package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// blindInterval is how often one looks where the kernel cannot tell of events.
	blindInterval = time.Second
	// waitInterval bounds how long WaitEvent trusts that it is told of every event.
	waitInterval = 30 * time.Second
)

// Poll waits until any device has had an event since the last Poll returned (the first: since Open), until
// the timeout, or until ctx ends, which alone is an error. Devices that come, go or change their table
// count too, and events from before it was called are not lost: read the state after Poll, then call it
// again. One goroutine may call it at a time. On kernels before 4.13 it just returns after a second.
func (c *Client) Poll(ctx context.Context, timeout time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !c.canPoll() {
		return pause(ctx, min(timeout, blindInterval))
	}
	if err := awaitReadable(ctx, c.events, timeout); err != nil {
		return wrapWait("", err)
	}
	// From here on events count for the next call; the caller sees earlier ones when it reads the state.
	if _, err := ioctl(c.events, cmdArmPoll, request{}, headerLen); err != nil {
		return fail(opWait, "", err)
	}
	return nil
}

// WaitEvent waits until the device's event number is not eventNr, and returns its state. It fails when ctx
// ends or the device is removed (ErrNotFound). Any number of goroutines may call it.
func (c *Client) WaitEvent(ctx context.Context, name string, eventNr uint32) (Info, error) {
	var events *os.File
	if c.canPoll() {
		f, err := openControl()
		if err != nil {
			return Info{}, err
		}
		defer func() { _ = f.Close() }()
		events = f
	}
	for {
		if events != nil {
			// Before the state is read: what happens after that wakes the poll below.
			if _, err := ioctl(events, cmdArmPoll, request{}, headerLen); err != nil {
				return Info{}, fail(opWait, name, err)
			}
		}
		info, err := c.device(opWait, cmdStatus, request{name: name})
		if err != nil || info.EventNr != eventNr {
			return info, err
		}
		if events == nil {
			err = pause(ctx, blindInterval)
		} else {
			err = awaitReadable(ctx, events, waitInterval)
		}
		if err != nil {
			return Info{}, wrapWait(name, err)
		}
	}
}

func (c *Client) canPoll() bool { return c.version[1] >= minorListEvent }

func wrapWait(name string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fail(opWait, name, err)
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// awaitReadable polls f until it is readable, the timeout has passed or ctx ends.
func awaitReadable(ctx context.Context, f *os.File, timeout time.Duration) error {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	defer func() { _ = unix.Close(wake) }()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 1}) // not zero in either byte order
	})
	defer func() {
		if !stop() {
			<-woken // before the descriptor is closed, and its number given to another
		}
	}()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = pollTwo(int(fd), wake, timeout) }); e != nil {
		return e
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// pollTwo waits until fd or wake is readable, or the timeout has passed.
func pollTwo(fd, wake int, timeout time.Duration) error {
	end := time.Now().Add(timeout)
	for {
		left := max(0, time.Until(end))
		set := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		ts := unix.NsecToTimespec(left.Nanoseconds())
		_, err := unix.Ppoll(set, &ts, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("poll: %w", err)
		case set[0].Revents&^unix.POLLIN != 0:
			return fmt.Errorf("poll: events %#x", set[0].Revents)
		}
		return nil
	}
}
