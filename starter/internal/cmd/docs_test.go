package cmd

import (
	"bytes"
	"os"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/ebb-storage/ebb/starter/internal/exit"
	"github.com/ebb-storage/ebb/starter/internal/ui"
)

func TestReferenceIsUpToDate(t *testing.T) {
	var out, talk bytes.Buffer
	require.Equal(t, exit.Done, Main(t.Context(), "", []string{"docs"}, ui.Streams{Out: &out, Err: &talk}))
	var again bytes.Buffer
	require.Equal(t, exit.Done, Main(t.Context(), "", []string{"docs"}, ui.Streams{Out: &again, Err: &talk}))
	require.Equal(t, out.String(), again.String(), "not deterministic")
	have, err := os.ReadFile("../../../docs/cli.md")
	require.NoError(t, err)
	require.Equal(t, string(have), out.String(), "docs/cli.md is old; run: go run ./starter docs --dir docs")
}

// Every command that people use has an example, every one that changes
// something a dry run.
func TestCommandsAreComplete(t *testing.T) {
	a := &app{output: ui.TableFormat}
	reads := map[string]bool{"ebb disk list": true, "ebb disk show": true, "ebb disk history": true, "ebb watch": true, "ebb preflight": true, "ebb policy lint": true, "ebb policy explain": true, "ebb policy schema": true, "ebb report": true, "ebb top": true, "ebb schedule list": true, "ebb plan": true, "ebb price show": true, "ebb proposals": true, "ebb simulate": true, "ebb version": true}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if c.HasSubCommands() || c.Hidden {
			return
		}
		require.NotEmpty(t, c.Short, c.CommandPath())
		if c.Name() != "version" {
			require.NotEmpty(t, c.Example, c.CommandPath())
		}
		if !reads[c.CommandPath()] {
			require.NotNil(t, c.Flags().Lookup("dry-run"), c.CommandPath())
		}
	}
	visit(a.newRoot())
}
