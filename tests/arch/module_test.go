package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// module is the path of Ebb's Go module.
const module = "github.com/ebb-storage/ebb"

// pkg is what `go list` says of a package.
type pkg struct {
	Dir          string
	ImportPath   string
	Name         string
	Standard     bool
	Imports      []string
	Deps         []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Doc          string
	Incomplete   bool
}

// short is a package's path inside the module.
func (p pkg) short() string { return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/") }

// packages lists the module's packages and all they depend on, by import path.
// Tests' own imports are not part of it.
var packages = sync.OnceValues(func() (map[string]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-deps", "-json=Dir,ImportPath,Name,Standard,Imports,Deps,GoFiles,TestGoFiles,XTestGoFiles,Doc,Incomplete", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, errors.New(err.Error() + ": " + stderr.String())
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all[p.ImportPath] = p
	}
})

// listed is packages, or the end of the test.
func listed(t *testing.T) map[string]pkg {
	t.Helper()
	// The go command's reading does not count for the test cache: look at what it
	// looks at, so that a change anywhere makes this test run again.
	_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			_, err = os.Stat(path)
		}
		return err
	})
	all, err := packages()
	require.NoError(t, err)
	require.Contains(t, all, module+"/workflows")
	return all
}

// ours is the module's own packages.
func ours(t *testing.T) []pkg {
	t.Helper()
	var out []pkg
	for path, p := range listed(t) {
		if path == module || strings.HasPrefix(path, module+"/") {
			out = append(out, p)
		}
	}
	return out
}

// matches tells whether a path is a pattern's, or lies below one that ends in
// "/...". Patterns that begin with "./" are of this module.
func matches(pattern, path string) bool {
	if rest, ok := strings.CutPrefix(pattern, "./"); ok {
		pattern = module + "/" + rest
	}
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	return path == pattern
}

func matchesAny(patterns []string, path string) bool {
	for _, p := range patterns {
		if matches(p, path) {
			return true
		}
	}
	return false
}

// way is one chain of imports from a package to another, for people to read.
func way(all map[string]pkg, from, to string) string {
	before := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == to {
			chain := at
			for at = before[at]; at != ""; at = before[at] {
				chain = at + " -> " + chain
			}
			return chain
		}
		for _, next := range all[at].Imports {
			if _, seen := before[next]; !seen {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return from + " -> ... -> " + to
}
