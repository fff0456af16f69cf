// Guest is the half of the benchmark that runs inside a node: it drives the data
// plane and its rivals (dd, rsync, the raw volume) side by side. It is started by
// the host's half and speaks the language of package wire with it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ebb-storage/ebb/nodeagent/disk"
	"github.com/ebb-storage/ebb/nodeagent/dm"
	"github.com/ebb-storage/ebb/nodeagent/volume"
	"github.com/ebb-storage/ebb/tests/bench/wire"
)

// guestTime bounds one experiment.
const guestTime = 15 * time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), guestTime)
	err := run(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench guest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if len(os.Args) != 3 {
		return errors.New("usage: guest EXPERIMENT PARAMS")
	}
	experiments := map[string]func(context.Context, *rig) error{
		"move": moveExperiment, "aged": agedExperiment, "fsync": fsyncExperiment, "stack": stackExperiment,
		"grow": growExperiment, "disks": disksExperiment, "spin": spinExperiment,
	}
	e, ok := experiments[os.Args[1]]
	if !ok {
		return fmt.Errorf("unknown experiment %q", os.Args[1])
	}
	r := &rig{host: &host{in: bufio.NewReader(os.Stdin), out: os.Stdout}, group: os.Args[1]}
	if err := json.Unmarshal([]byte(os.Args[2]), &r.p); err != nil {
		return fmt.Errorf("parameters: %w", err)
	}
	c, err := dm.Open()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	r.dm = c
	r.m, err = disk.NewManager(disk.Options{
		Node: os.Getenv("EBB_NODE_ID"), DM: c, Locator: volume.Auto(c), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return errors.Join(e(ctx, r), r.close(ctx))
}

// host is the way to the host's half.
type host struct {
	mu  sync.Mutex
	in  *bufio.Reader
	out *os.File
}

func (h *host) send(m wire.Message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = h.out.Write(append(b, '\n'))
	return err
}

// row reports a result.
func (h *host) row(r wire.Row) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.send(wire.Message{Row: &r})
}

// ask has an order carried out.
func (h *host) ask(o wire.Order) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.send(wire.Message{Order: &o}); err != nil {
		return err
	}
	line, err := h.in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s %s: no answer from the host: %w", o.Do, o.Volume, err)
	}
	var a wire.Answer
	if err := json.Unmarshal(line, &a); err != nil {
		return fmt.Errorf("answer of the host: %w", err)
	}
	if a.Error != "" {
		return fmt.Errorf("%s %s: %s", o.Do, o.Volume, a.Error)
	}
	return nil
}
