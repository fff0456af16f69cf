package arch

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The clouds, clusters and processes that pure code must not reach.
var (
	aws        = []string{"github.com/aws/..."}
	kubernetes = []string{"k8s.io/...", "sigs.k8s.io/controller-runtime/..."}
	node       = []string{"./nodeagent/..."}
)

// never says what packages must not reach, however indirectly.
var never = []struct {
	from   []string
	to     []string
	except []string
	why    string
}{
	{
		from: []string{"./workflows/...", "./internal/plan", "./internal/fleet", "./internal/contract"},
		to:   slices.Concat(aws, kubernetes, node, []string{"os/exec", "./activities/...", "./worker/...", "./starter/..."}),
		why:  "a workflow is replayed: whatever touches the world is an activity",
	},
	{
		from:   node,
		to:     []string{"github.com/aws/..."},
		except: []string{"github.com/aws/smithy-go/...", "github.com/aws/aws-sdk-go-v2/aws/...", "github.com/aws/aws-sdk-go-v2/internal/...", "github.com/aws/aws-sdk-go-v2/feature/ec2/imds/..."},
		why:    "a node holds no AWS credentials: it may ask the metadata service who it is, and nothing else",
	},
	{
		from: node,
		to:   slices.Concat(kubernetes, []string{"./workflows/...", "./activities/...", "./worker/...", "./starter/...", "./internal/plan"}),
		why:  "a node carries out; it decides nothing",
	},
	{
		from: []string{"./starter/..."},
		to:   slices.Concat(aws, node, []string{"./activities/...", "./worker/...", "./workflows/..."}),
		why:  "the command speaks to Temporal alone",
	},
	{
		from: []string{"./activities/...", "./worker/..."},
		to:   slices.Concat(node, []string{"./starter/..."}),
		why:  "control activities reach a node through its queue only",
	},
	{
		from: []string{"./activities/...", "./worker/control"}, // the AWS SDK's credential chain in main may
		to:   []string{"os/exec"},
		why:  "control activities make API calls and nothing else",
	},
	{
		from: []string{"./nodeagent/dm", "./nodeagent/format", "./nodeagent/thinmap", "./nodeagent/volume"},
		to:   []string{"go.temporal.io/...", "net/http", "./internal/..."},
		why:  "the data plane works without a control plane",
	},
	{
		from: []string{"./nodeagent/disk"},
		to:   []string{"go.uber.org/fx", "./nodeagent/agent", "github.com/prometheus/..."},
		why:  "the data plane works without a control plane",
	},
	{
		from: []string{"./workflows/...", "./activities/...", "./worker/...", "./nodeagent/...", "./starter/...", "./internal/..."},
		to:   []string{"./tests/..."},
		why:  "what is shipped contains no test code",
	},
}

func TestNever(t *testing.T) {
	all := listed(t)
	for _, rule := range never {
		found := false
		for path, p := range all {
			if !matchesAny(rule.from, path) {
				continue
			}
			found = true
			for _, dep := range slices.Concat(p.Imports, p.Deps) {
				if matchesAny(rule.to, dep) && !matchesAny(rule.except, dep) && !contains(rule.from, dep, rule.to) {
					t.Errorf("%s reaches %s (%s)\n  %s", path, dep, rule.why, way(all, path, dep))
					break
				}
			}
		}
		require.True(t, found, "no package matches %v: the rule proves nothing", rule.from)
	}
}

// contains tells that dep is forbidden only because a broad pattern of to covers
// the rule's own packages.
func contains(from []string, dep string, to []string) bool {
	return matchesAny(from, dep) && !slices.Contains(to, dep)
}

// only says what packages may import directly besides the standard library.
var only = []struct {
	pkg   string
	may   []string
	mayNo []string // of the standard library
	why   string
}{
	{"./internal/contract", []string{"go.temporal.io/sdk/..."}, []string{"os", "os/exec", "net", "net/http"}, "every process imports it"},
	{"./internal/usage", []string{"./internal/contract"}, []string{"os", "os/exec", "net", "net/http"}, "records in, a summary out"},
	{"./internal/plan", []string{"./internal/contract", "./internal/usage"}, []string{"os", "os/exec", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand"}, "decisions are pure"},
	{"./internal/price", []string{"./internal/plan"}, []string{"os", "os/exec", "net", "net/http"}, "prices are data"},
	{"./internal/policy", []string{"./internal/plan", "./internal/contract", "go.yaml.in/yaml/v3"}, []string{"os", "os/exec", "net", "net/http"}, "a document in, rules out"},
	{
		"./workflows",
		[]string{"./internal/contract", "./internal/fleet", "./internal/plan", "go.temporal.io/sdk/...", "go.temporal.io/api/enums/v1"},
		[]string{"os", "os/exec", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "sync", "context"},
		"a workflow has no clock, chance, thread or file of its own",
	},
	{"./nodeagent/format", nil, []string{"os", "time"}, "bytes to structs and back"},
	{"./nodeagent/thinmap", nil, []string{"os", "time"}, "bytes to structs and back"},
	{"./nodeagent/dm", []string{"golang.org/x/sys/unix"}, []string{"net", "net/http"}, "ioctls alone"},
	{
		"./nodeagent/disk",
		[]string{"golang.org/x/sys/unix", "golang.org/x/sync/...", "./internal/contract", "./nodeagent/dm", "./nodeagent/format", "./nodeagent/thinmap", "./nodeagent/volume"},
		[]string{"net", "net/http"},
		"the data plane works without a control plane",
	},
	{"./nodeagent/volume", []string{"golang.org/x/sys/unix", "./nodeagent/dm"}, []string{"net", "net/http", "os/exec"}, "ioctls alone"},
}

func TestOnly(t *testing.T) {
	all := listed(t)
	for _, rule := range only {
		p, ok := all[module+"/"+strings.TrimPrefix(rule.pkg, "./")]
		require.True(t, ok, rule.pkg)
		for _, i := range p.Imports {
			standard := all[i].Standard || i == "unsafe"
			if standard && !slices.Contains(rule.mayNo, i) || !standard && matchesAny(rule.may, i) {
				continue
			}
			t.Errorf("%s imports %s (%s)", p.short(), i, rule.why)
		}
	}
}

// TestShippedCodeHasNoTestCode looks at direct imports: Temporal's SDK brings a
// part of testify with it.
func TestShippedCodeHasNoTestCode(t *testing.T) {
	for _, p := range ours(t) {
		if strings.HasPrefix(p.short(), "tests/") {
			continue
		}
		for _, i := range p.Imports {
			if matchesAny([]string{"testing/...", "github.com/stretchr/testify/...", "pgregory.net/rapid", "go.uber.org/goleak", "github.com/google/go-cmp/..."}, i) {
				t.Errorf("%s imports %s", p.short(), i)
			}
		}
	}
}

// TestFx keeps the wiring in the programs' own packages.
func TestFx(t *testing.T) {
	for _, p := range ours(t) {
		if slices.Contains(p.Imports, "go.uber.org/fx") && p.Name != "main" {
			t.Errorf("%s imports fx: logic is wired by the main packages, and works without", p.short())
		}
	}
}
