package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// source is a parsed file of the module.
type source struct {
	path string // from the module's root
	file *ast.File
	set  *token.FileSet
}

// sources parses the Go files below a folder whose name keep accepts.
func sources(t *testing.T, folder string, keep func(name string) bool) []source {
	t.Helper()
	var out []source
	require.NoError(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "build" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || !keep(path):
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		out = append(out, source{rel, f, set})
		return err
	}))
	require.NotEmpty(t, out)
	return out
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }
func isCode(name string) bool { return !isTest(name) }

// inFunc calls visit for every node inside a function, with the function's name;
// "" is outside of all.
func (s source) inFunc(visit func(fn string, n ast.Node)) {
	for _, d := range s.file.Decls {
		name := ""
		if f, ok := d.(*ast.FuncDecl); ok {
			name = f.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			visit(name, n)
			return true
		})
	}
}

// TestNoSuspend is invariant I3: a table swap is one RESUME ioctl, and no code
// path can leave a device suspended across a return to user space, since there
// is none that suspends.
func TestNoSuspend(t *testing.T) {
	users := map[string][]string{
		"cmdSuspend":  {"", "Resume", "rescue"}, // DM_DEV_SUSPEND: with its flag clear it resumes
		"flagSuspend": {"", "info"},
	}
	seen := map[string]bool{}
	for _, s := range sources(t, "nodeagent/dm", isCode) {
		s.inFunc(func(fn string, n ast.Node) {
			id, ok := n.(*ast.Ident)
			if !ok {
				return
			}
			if may, watched := users[id.Name]; watched {
				seen[id.Name+" "+fn] = true
				if !slices.Contains(may, fn) {
					t.Errorf("%s: %s uses %s", s.set.Position(id.Pos()), fn, id.Name)
				}
			}
		})
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && regexp.MustCompile(`(?i)suspend|freeze`).MatchString(f.Name.Name) {
				t.Errorf("%s: a function %s", s.set.Position(f.Pos()), f.Name.Name)
			}
		}
	}
	require.True(t, seen["cmdSuspend Resume"], "Resume was not found: this test proves nothing")

	// The flag that would make the ioctl suspend is looked at, never sent.
	for _, s := range sources(t, "nodeagent/dm", isCode) {
		s.inFunc(func(_ string, n ast.Node) {
			if b, ok := n.(*ast.BinaryExpr); ok && b.Op == token.OR && mentions(b, "flagSuspend") {
				t.Errorf("%s: flagSuspend is set", s.set.Position(b.Pos()))
			}
			if a, ok := n.(*ast.AssignStmt); ok && a.Tok != token.DEFINE && slices.ContainsFunc(a.Rhs, func(e ast.Expr) bool { return mentions(e, "flagSuspend") }) {
				t.Errorf("%s: flagSuspend is set", s.set.Position(a.Pos()))
			}
		})
	}

	// Nobody above goes another way: no tool, no filesystem freeze, no raw ioctl.
	outside := regexp.MustCompile(`(?i)dmsetup|fsfreeze|xfs_freeze|FIFREEZE`)
	for _, s := range sources(t, "nodeagent", isCode) {
		s.inFunc(func(_ string, n ast.Node) {
			switch x := n.(type) {
			case *ast.CallExpr:
				if sel, ok := x.Fun.(*ast.SelectorExpr); ok && regexp.MustCompile(`^(Suspend|Freeze)`).MatchString(sel.Sel.Name) {
					t.Errorf("%s: calls %s", s.set.Position(x.Pos()), sel.Sel.Name)
				}
				for _, a := range x.Args {
					if lit, ok := a.(*ast.BasicLit); ok && outside.MatchString(lit.Value) && isCommand(x) {
						t.Errorf("%s: runs %s", s.set.Position(lit.Pos()), lit.Value)
					}
				}
			case *ast.Ident:
				if outside.MatchString(x.Name) {
					t.Errorf("%s: %s", s.set.Position(x.Pos()), x.Name)
				}
			}
		})
	}
}

func mentions(n ast.Node, name string) bool {
	found := false
	ast.Inspect(n, func(n ast.Node) bool {
		id, ok := n.(*ast.Ident)
		found = found || ok && id.Name == name
		return !found
	})
	return found
}

// isCommand tells that a call starts a program.
func isCommand(c *ast.CallExpr) bool {
	switch f := c.Fun.(type) {
	case *ast.SelectorExpr:
		return strings.HasPrefix(f.Sel.Name, "Command")
	case *ast.Ident:
		return f.Name == "run"
	}
	return false
}

// TestEveryPackageSaysWhatItIs wants a doc comment on every package.
func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range ours(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no doc comment", p.short())
		}
	}
}

// TestNoReplace keeps the module usable by `go install` and by importers.
func TestNoReplace(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	require.NotRegexp(t, `(?m)^\s*(replace\b|[^/\n]*=>)`, string(b))
}

// sleeps are the calls of time.Sleep that tests may make, by file. Tests wait for
// conditions; a sleep is right only where time itself is what is tested.
var sleeps = map[string]struct {
	max int
	why string
}{
	"activities/ec2/ec2_test.go":       {2, "lets the simulator's describes catch up, or age, on purpose"},
	"nodeagent/agent/sentinel_test.go": {7, "in a synctest bubble, whose clock is not real"},
	"nodeagent/disk/crash_test.go":     {1, "a writer goes on for a moment before the power cut: the moment is the test"},
	"nodeagent/disk/fault_test.go":     {1, "a writer goes on for a moment on the old volume alone"},
	"nodeagent/dm/swap_test.go":        {2, "a pace for signals, and another moment of the swap for each kill"},
	"nodeagent/node_test.go":           {1, "measures what an idle agent costs"},
	"starter/story_test.go":            {1, "the pace of a wait for a condition"},
	"tests/ec2sim/model_test.go":       {1, "the pace of a wait for a condition"},
	"tests/node/booting_test.go":       {1, "attaches at several moments of a boot: the moments are the test"},
	"tests/node/life_test.go":          {2, "host writes settle before a power cut; a process waits to be killed"},
	"workflows/shrink_test.go":         {1, "runs inside an activity: the workflow gets the signal meanwhile"},
	"workflows/story_test.go":          {1, "runs inside an activity: the workflow gets the signal meanwhile"},
}

func TestNoSleep(t *testing.T) {
	found := map[string]int{}
	for _, s := range sources(t, ".", isTest) {
		s.inFunc(func(_ string, n ast.Node) {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Sleep" {
				return
			}
			if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "time" {
				return
			}
			found[s.path]++
			if found[s.path] > sleeps[s.path].max {
				t.Errorf("%s: time.Sleep in a test; wait for a condition", s.set.Position(sel.Pos()))
			}
		})
	}
	for path, s := range sleeps {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil && found[path] < s.max {
			t.Errorf("%s has %d sleeps and is allowed %d: lower the number", path, found[path], s.max)
		}
	}
}
