package cmd

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/starter/internal/control"
	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

// TestCtrlCAtAPrompt: it ends the command, and nothing that is typed afterwards
// counts.
func TestCtrlCAtAPrompt(t *testing.T) {
	for name, ask := range map[string]func(context.Context, *app) error{
		"delete": func(ctx context.Context, a *app) error {
			return a.confirm(ctx, control.Disk{ID: "d-00000000000000001"}, false)
		},
		"answer": func(ctx context.Context, a *app) error {
			return a.confirmAll(ctx, nil, answerOptions{word: "approved"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			in, person := io.Pipe()
			var talk bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			answered := make(chan error, 1)
			go func() { answered <- ask(ctx, &app{streams: ui.Streams{In: in, Err: &talk}}) }()
			cancel()
			select {
			case err := <-answered:
				require.Equal(t, exit.Detached, exit.CodeOf(err))
				require.ErrorContains(t, err, "interrupted; nothing was")
			case <-time.After(5 * time.Second):
				t.Error("it goes on asking")
			}
			_ = person.Close()
		})
	}
	a := &app{streams: ui.Streams{In: strings.NewReader("d-00000000000000001\n"), Err: io.Discard}}
	require.NoError(t, a.confirm(t.Context(), control.Disk{ID: "d-00000000000000001"}, false))
	a.streams.In = strings.NewReader("no\n")
	require.Equal(t, exit.Cancelled, exit.CodeOf(a.confirm(t.Context(), control.Disk{ID: "d-00000000000000001"}, false)))
}
