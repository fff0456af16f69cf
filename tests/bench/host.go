package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ebb-storage/ebb/tests/bench/wire"
	"github.com/ebb-storage/ebb/tests/node"
)

const module = "github.com/ebb-storage/ebb"

// build compiles a package of this module into a static program that the node
// sees.
func build(ctx context.Context, n node.Node, pkg, name string) (string, error) {
	out := filepath.Join(n.Dir(), name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, module+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, text)
	}
	return out, nil
}

// bench is a run of the benchmark on one node.
type bench struct {
	node   node.Node
	guest  string
	params wire.Params
	env    []string
	talk   io.Writer // for people, while it runs
	rows   []wire.Row
}

func (b *bench) add(r wire.Row) {
	b.rows = append(b.rows, r)
	_, _ = fmt.Fprintf(b.talk, "  %s: %s  %s\n", r.Name, number(r), r.Note)
}

// run carries out one experiment in the node.
func (b *bench) run(ctx context.Context, experiment string) error {
	begin := time.Now()
	_, _ = fmt.Fprintf(b.talk, "%s ...\n", experiment)
	params, err := json.Marshal(b.params)
	if err != nil {
		return err
	}
	answers, in := io.Pipe()
	out, outW := io.Pipe()
	errs := &tail{}
	p, err := b.node.Start(ctx, node.Command{Path: b.guest, Args: []string{experiment, string(params)}, Env: b.env, Stdin: answers, Stdout: outW, Stderr: errs})
	if err != nil {
		return err
	}
	listened := make(chan error, 1)
	go func() { listened <- b.listen(ctx, out, in) }()
	code, err := p.Wait()
	_ = outW.Close()
	_ = in.Close()
	if e := <-listened; err == nil {
		err = e
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", experiment, err, errs)
	}
	_, _ = fmt.Fprintf(b.talk, "  (%s)\n", time.Since(begin).Round(time.Second))
	return nil
}

// listen takes results and carries out orders until the program has ended.
func (b *bench) listen(ctx context.Context, out io.Reader, in io.Writer) error {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var m wire.Message
		if err := json.Unmarshal(line, &m); err != nil {
			return fmt.Errorf("unexpected output %q: %w", line, err)
		}
		if m.Row != nil {
			b.add(*m.Row)
		}
		if m.Order != nil {
			var a wire.Answer
			if err := b.obey(ctx, *m.Order); err != nil {
				a.Error = err.Error()
			}
			text, err := json.Marshal(a)
			if err != nil {
				return err
			}
			if _, err := in.Write(append(text, '\n')); err != nil {
				return err
			}
		}
	}
}

func (b *bench) obey(ctx context.Context, o wire.Order) error {
	file := filepath.Join(b.node.Dir(), o.Volume+".img")
	switch o.Do {
	case wire.Attach:
		if err := prefill(file, o.Bytes); err != nil {
			return err
		}
		return b.node.Attach(ctx, o.Volume, "", file, o.Bytes)
	case wire.Detach:
		if err := b.node.Detach(ctx, o.Volume); err != nil {
			return err
		}
		return os.Remove(file)
	case wire.Resize:
		return b.node.Resize(ctx, o.Volume, o.Bytes)
	}
	return fmt.Errorf("unknown order %q", o.Do)
}

// prefill writes every byte of a volume, so that the host has its room ready.
func prefill(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	zero := make([]byte, 4<<20)
	for n > 0 && err == nil {
		k := min(n, int64(len(zero)))
		_, err = f.Write(zero[:k])
		n -= k
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-4000):]
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
