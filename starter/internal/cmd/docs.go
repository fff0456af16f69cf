package cmd

import (
	"bytes"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ebb-storage/ebb/starter/internal/reference"
)

type docsOptions struct{ dir string }

// newDocs is for the build: it writes the command reference.
func (a *app) newDocs() *cobra.Command {
	var o docsOptions
	c := &cobra.Command{
		Use:    "docs",
		Short:  "Write the command reference as Markdown",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(c *cobra.Command, _ []string) error { return a.runDocs(c.Root(), o) },
	}
	c.Flags().StringVar(&o.dir, "dir", "", "write cli.md in this directory instead of standard output")
	return c
}

func (a *app) runDocs(root *cobra.Command, o docsOptions) error {
	var b bytes.Buffer
	reference.Write(&b, root)
	if o.dir == "" {
		_, err := a.streams.Out.Write(b.Bytes())
		return err
	}
	return os.WriteFile(filepath.Join(o.dir, "cli.md"), b.Bytes(), 0o644)
}
