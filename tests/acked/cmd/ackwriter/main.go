// Command ackwriter writes, deletes or checks acknowledged files (see package
// acked) and prints what it saw as one line of JSON.
//
//	ackwriter write DIR JOURNAL [-for 30s] [-bytes N] [-pause 5ms] [-until N]   until SIGTERM by default
//	ackwriter delete DIR JOURNAL -keep 4       keeps every 4th file
//	ackwriter check DIR JOURNAL
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ebb-storage/ebb/tests/acked"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "ackwriter:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) < 4 {
		return fmt.Errorf("usage: ackwriter write|delete|check DIR JOURNAL [flags]")
	}
	verb, dir, journal := os.Args[1], os.Args[2], os.Args[3]
	fs := flag.NewFlagSet("ackwriter", flag.ContinueOnError)
	for_ := fs.Duration("for", 0, "stop after this long")
	size := fs.Int("bytes", 0, "size of a file, give or take half; 0: mixed sizes")
	pause := fs.Duration("pause", 0, "pause between files")
	until := fs.Uint64("until", 0, "stop after this many acknowledged bytes")
	keep := fs.Uint64("keep", 4, "keep every n-th file")
	status := fs.String("status", "", "write statistics to this file every 200 ms")
	if err := fs.Parse(os.Args[4:]); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var out any
	var err error
	switch verb {
	case "write":
		if *for_ > 0 {
			c, cancel := context.WithTimeout(ctx, *for_)
			defer cancel()
			ctx = c
		}
		c, cancel := context.WithCancel(ctx)
		defer cancel()
		w := &acked.Writer{Dir: dir, Journal: journal, Pause: *pause}
		if *size > 0 {
			w.Bytes = func(i uint64) int { return *size/2 + int(i*2654435761%uint64(*size)) }
		}
		done := make(chan struct{})
		go func() { // ends with the run
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
					s := w.Stats()
					if *until > 0 && s.Bytes >= *until {
						cancel()
					}
					if *status != "" {
						if b, err := json.Marshal(s); err == nil {
							_ = os.WriteFile(*status+".tmp", b, 0o644)
							_ = os.Rename(*status+".tmp", *status)
						}
					}
				}
			}
		}()
		out, err = w.Run(c)
		close(done)
	case "delete":
		err = acked.Delete(dir, journal, func(i uint64) bool { return i%*keep == 0 })
		out = struct{}{}
	case "check":
		var r acked.Report
		r, err = acked.Check(dir, journal)
		if out = r; err == nil && !r.OK() {
			_ = json.NewEncoder(os.Stdout).Encode(r)
			return fmt.Errorf("%d lost, %d wrong", r.Lost, r.Wrong)
		}
	default:
		return fmt.Errorf("unknown verb %q", verb)
	}
	if e := json.NewEncoder(os.Stdout).Encode(out); err == nil {
		err = e
	}
	return err
}
