package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/ebb-storage/ebb/tests/acked"
	"github.com/ebb-storage/ebb/tests/lab"
	"github.com/ebb-storage/ebb/tests/node"
)

// writer is the checking writer of one disk. It is started again where the disk
// is after a power cut; what it was doing then may have failed.
type writer struct {
	lab            *lab.Lab
	mount, journal string
	bytes, pause   string // of each file, between two

	runs   int
	proc   node.Process
	out    *buffer
	status string
	total  acked.Stats // of all runs
}

// buffer is what a program in a node has printed.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start begins a run on node i as soon as the disk is mounted there.
func (w *writer) start(ctx context.Context, i int) error {
	if err := w.lab.Until(ctx, 3*time.Minute, w.mount+" is mounted on "+lab.NodeID(i), func(ctx context.Context) error {
		_, err := w.lab.Sh(ctx, i, "mountpoint -q "+w.mount)
		return err
	}); err != nil {
		return err
	}
	w.runs++
	w.status = fmt.Sprintf("%s.status-%d", w.journal, w.runs)
	w.out = &buffer{}
	p, err := w.lab.Nodes[i].Start(context.WithoutCancel(ctx), node.Command{
		Path:   w.lab.Bin("ackwriter"),
		Args:   []string{"write", w.mount, w.journal, "-bytes", w.bytes, "-pause", w.pause, "-status", w.status},
		Stdout: w.out, Stderr: w.out,
	})
	w.proc = p
	return err
}

// lost ends a run whose node has lost its power. Its last word counts; its very
// last writes may have failed with the node.
func (w *writer) lost() {
	if w.proc == nil {
		return
	}
	<-w.proc.Done()
	w.proc = nil
	if s, err := w.said(); err == nil {
		s.Failed = 0
		w.add(s)
	}
}

// said is what the present run has reported.
func (w *writer) said() (s acked.Stats, err error) {
	b, err := os.ReadFile(w.status)
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	return s, err
}

// stop ends the last run, in which no write may have failed.
func (w *writer) stop(ctx context.Context) error {
	if w.proc == nil {
		return nil
	}
	p := w.proc
	w.proc = nil
	if err := w.lab.Until(ctx, time.Minute, "the writer writes", func(context.Context) error {
		if s, err := w.said(); err != nil || s.Acked > 0 {
			return err
		}
		return fmt.Errorf("no write was acknowledged: %s", w.out)
	}); err != nil {
		return err
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the writer: %w: %s", err, w.out)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		return fmt.Errorf("the writer does not stop: a write waits: %w", ctx.Err())
	}
	code, err := p.Wait()
	var s acked.Stats
	if err == nil {
		err = json.Unmarshal([]byte(w.out.String()), &s)
	}
	if err != nil || code != 0 {
		return fmt.Errorf("the writer ended with %d, %w: %s", code, err, w.out)
	}
	w.add(s)
	if w.total.Failed > 0 {
		return fmt.Errorf("%d writes failed", w.total.Failed)
	}
	if s.Acked == 0 {
		return fmt.Errorf("the writer's last run wrote nothing")
	}
	return nil
}

func (w *writer) add(s acked.Stats) {
	w.total.Acked += s.Acked
	w.total.Bytes += s.Bytes
	w.total.Failed += s.Failed
	w.total.LongestStallMS = max(w.total.LongestStallMS, s.LongestStallMS)
}

// check reads every acknowledged write back, from the device.
func (w *writer) check(ctx context.Context, i int) error {
	_, err := w.lab.Sh(ctx, i, fmt.Sprintf("sync; echo 3 > /proc/sys/vm/drop_caches; %s check %s %s", w.lab.Bin("ackwriter"), w.mount, w.journal))
	return err
}

func newWriter(l *lab.Lab, name, mount string) *writer {
	return &writer{lab: l, mount: mount, journal: filepath.Join(l.Shared(), name), bytes: "16384", pause: "30ms"}
}
