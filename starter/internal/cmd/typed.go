package cmd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// typed waits until a person types a line; unless it is what is wanted, nothing is
// done. After Ctrl-C, too: what is typed then goes unread, or counts for nothing.
func (a *app) typed(ctx context.Context, want, done string) error {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() { // a read cannot be called off; it ends with the process at the latest
		line, err := bufio.NewReader(a.streams.In).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
		got <- answer{strings.TrimSpace(line), err}
	}()
	select {
	case <-ctx.Done():
	case is := <-got:
		if ctx.Err() != nil {
			break
		}
		if is.line != want {
			return exit.New(exit.Cancelled, "not confirmed; nothing was %s", done).Because(is.err)
		}
		return nil
	}
	return exit.New(exit.Detached, "interrupted; nothing was %s", done)
}
