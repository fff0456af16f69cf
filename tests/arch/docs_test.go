package arch

import (
	"encoding/json"
	"go/ast"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// pages is the documentation, by path from the module's root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	require.NoError(t, err)
	out := map[string]string{}
	for _, name := range append(names, filepath.Join(root, "README.md")) {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		rel, err := filepath.Rel(root, name)
		require.NoError(t, err)
		out[rel] = string(b)
	}
	return out
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noise   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchor is what a heading is called in a link.
func anchor(h string) string {
	return strings.ReplaceAll(noise.ReplaceAllString(strings.ToLower(strings.TrimSpace(h)), ""), " ", "-")
}

func TestLinks(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, fragment, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: %s is not there", page, m[1])
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(all[target], -1) {
				anchors = append(anchors, anchor(h[1]))
			}
			if fragment != "" && !slices.Contains(anchors, fragment) {
				t.Errorf("%s: %s has no heading %q", page, target, fragment)
			}
		}
	}
}

// words finds all matches in the string literals of a folder's code.
func words(t *testing.T, folder string, re *regexp.Regexp) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, s := range sources(t, folder, isCode) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				for _, w := range re.FindAllString(lit.Value, -1) {
					out[w] = true
				}
			}
			return true
		})
	}
	return out
}

// TestMetricsExist wants every metric that a page names in the code. That each is
// explained, with its labels, is for tests/monitoring.
func TestMetricsExist(t *testing.T) {
	metric := regexp.MustCompile(`\bebb_[a-z_]+\b`)
	code := map[string]bool{}
	for _, folder := range []string{"nodeagent/agent", "worker/control", "activities/fleet"} {
		maps.Copy(code, words(t, folder, metric))
	}
	for page, text := range pages(t) {
		for _, w := range metric.FindAllString(text, -1) {
			if !code[w] {
				t.Errorf("%s: there is no metric %s", page, w)
			}
		}
	}
}

// TestPermissionsAreDocumented compares the EC2 calls that the activities can
// make with the policy that the operator is given, both ways.
func TestPermissionsAreDocumented(t *testing.T) {
	text := pages(t)[filepath.Join("docs", "security.md")]
	_, text, ok := strings.Cut(text, "```json\n")
	require.True(t, ok)
	text, _, ok = strings.Cut(text, "```")
	require.True(t, ok)
	var policy struct{ Statement []struct{ Action any } }
	require.NoError(t, json.Unmarshal([]byte(text), &policy))
	granted := map[string]bool{}
	for _, s := range policy.Statement {
		actions, list := s.Action.([]any)
		if !list {
			actions = []any{s.Action}
		}
		for _, a := range actions {
			name, ok := a.(string)
			require.True(t, ok, "%v", a)
			granted[name] = true
		}
	}
	called := map[string]bool{}
	for _, s := range sources(t, "activities/ec2", isCode) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != "API" {
				return true
			}
			if api, ok := spec.Type.(*ast.InterfaceType); ok {
				for _, m := range api.Methods.List {
					for _, name := range m.Names {
						called["ec2:"+name.Name] = true
					}
				}
			}
			return false
		})
	}
	require.NotEmpty(t, called)
	require.Equal(t, called, granted, "docs/security.md: the policy is not what activities/ec2.API calls")
}

// TestRefusalsAreDocumented wants every refusal code an operator may meet for
// trouble with volumes or EC2 explained in the runbooks.
func TestRefusalsAreDocumented(t *testing.T) {
	self := []string{ // their message says all there is
		"BadInput", "DiskUnknown", "DiskExists", "BelowUsed", "NoRoomToShrink", "NothingToGrow", "NothingToRetype", "DiskBusy",
	}
	text := pages(t)[filepath.Join("docs", "operations.md")]
	found := 0
	for _, s := range sources(t, "internal/contract", isCode) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if kind, ok := v.Type.(*ast.Ident); !ok || kind.Name != "RefusalCode" {
				return true
			}
			found++
			if name := v.Names[0].Name; !slices.Contains(self, name) && !strings.Contains(text, name) {
				t.Errorf("docs/operations.md does not explain %s", name)
			}
			return true
		})
	}
	require.Positive(t, found)
}
