package policy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/ebb-storage/ebb/internal/plan"
	"github.com/ebb-storage/ebb/internal/policy"
)

// conforms is as much of JSON Schema as Schema uses; what it does not know fails.
func conforms(schema map[string]any, v any) error {
	for _, k := range slices.Sorted(maps.Keys(schema)) {
		want := schema[k]
		ok := true
		switch k {
		case "$schema", "title", "description", "examples", "properties", "minItems":
			if list, is := v.([]any); k == "minItems" && is {
				ok = len(list) >= int(want.(float64))
			}
			if obj, is := v.(map[string]any); k == "properties" && is {
				for name, sub := range want.(map[string]any) {
					if value, there := obj[name]; there {
						if err := conforms(sub.(map[string]any), value); err != nil {
							return fmt.Errorf("%s: %w", name, err)
						}
					}
				}
			}
		case "additionalProperties":
			obj, is := v.(map[string]any)
			if !is {
				break
			}
			props, _ := schema["properties"].(map[string]any)
			for name, value := range obj {
				sub, schemaGiven := want.(map[string]any)
				switch {
				case schemaGiven:
					if err := conforms(sub, value); err != nil {
						return err
					}
				case props[name] == nil:
					return fmt.Errorf("unknown %s", name)
				}
			}
		case "required":
			if obj, is := v.(map[string]any); is {
				for _, name := range want.([]any) {
					if _, there := obj[name.(string)]; !there {
						return fmt.Errorf("missing %s", name)
					}
				}
			}
		case "items":
			if list, is := v.([]any); is {
				for _, item := range list {
					if err := conforms(want.(map[string]any), item); err != nil {
						return err
					}
				}
			}
		case "uniqueItems":
			if list, is := v.([]any); is {
				seen := map[any]bool{}
				for _, item := range list {
					ok = ok && !seen[item]
					seen[item] = true
				}
			}
		case "oneOf":
			n := 0
			for _, sub := range want.([]any) {
				if conforms(sub.(map[string]any), v) == nil {
					n++
				}
			}
			ok = n == 1
		case "const":
			ok = v == want
		case "enum":
			ok = slices.Contains(want.([]any), v)
		case "type":
			ok = isType(v, want.(string))
		case "pattern":
			if s, is := v.(string); is {
				ok = regexp.MustCompile(want.(string)).MatchString(s)
			}
		case "minLength":
			if s, is := v.(string); is {
				ok = utf8.RuneCountInString(s) >= int(want.(float64))
			}
		case "minimum":
			if n, is := v.(float64); is {
				ok = n >= want.(float64)
			}
		case "maximum":
			if n, is := v.(float64); is {
				ok = n <= want.(float64)
			}
		default:
			return fmt.Errorf("the test does not know %s", k)
		}
		if !ok {
			return fmt.Errorf("%v: %s %v", v, k, want)
		}
	}
	return nil
}

func isType(v any, want string) bool {
	switch x := v.(type) {
	case map[string]any:
		return want == "object"
	case []any:
		return want == "array"
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && x == float64(int64(x))
	}
	return false
}

func schema(t require.TestingT) map[string]any {
	var s map[string]any
	require.NoError(t, json.Unmarshal(policy.Schema(), &s))
	return s
}

func valid(t require.TestingT, s map[string]any, doc string) error {
	var v any
	require.NoError(t, yaml.Unmarshal([]byte(doc), &v))
	return conforms(s, v)
}

func TestSchemaAcceptsWhatLoadAccepts(t *testing.T) {
	s := schema(t)
	require.NoError(t, valid(t, s, full))
	require.NoError(t, valid(t, s, head))

	// What Explain shows is how a document writes it.
	p := load(t, full)
	for _, f := range []plan.Facts{{}, {Namespace: "billing", Labels: map[string]string{"app": "postgres"}}, {Name: "prod-a/data"}} {
		for _, src := range p.Explain(f) {
			if src.Value == "" || src.Field == "windows" || src.Field == "performance.types" {
				continue
			}
			doc := document(src.Field, src.Value)
			if src.Field != "move.snapshotRetention" {
				load(t, doc)
			}
			require.NoError(t, valid(t, s, doc), doc)
		}
	}
}

func document(field, value string) string {
	group, sub, nested := strings.Cut(field, ".")
	if nested {
		return fmt.Sprintf("%sdefaults:\n  %s:\n    %s: %s\n", head, group, sub, value)
	}
	return fmt.Sprintf("%sdefaults:\n  %s: %s\n", head, group, value)
}

// TestSchemaAgreesWithLoad tries values of all kinds on all fields. What the
// schema refuses Load refuses; what Load refuses, the schema refuses too unless
// it is a matter of size or of fields together.
func TestSchemaAgreesWithLoad(t *testing.T) {
	s := schema(t)
	var paths []string
	for _, src := range load(t, head).Explain(plan.Facts{}) {
		paths = append(paths, src.Field)
	}
	values := []string{
		"observe", "enforce", "wait", "fail", "full", "none", "80%", "12.5%", "0.8", "80", "10GiB", "10GB", "64MiB", "1TiB", "10", "30m", "7d", "1d12h", "24",
		"200MiB/s", "200MB/s", "true", "false", "maybe", "4000", "-1", "[gp3]", "[gp3, gp3]", "[floppy]", "[]", "{a: 1}",
		"[{from: '22:00', to: '23:00'}]", "[{days: Mon-Fri, from: '22:00', to: '23:00', zone: UTC}]", "[{days: [Mo], from: '22:00', to: '23:00'}]", "[{from: '22:00'}]",
	}
	together := []string{"at least", "at most", "whole GiB", "whole MiB/s", "at most", "contradict", "can be used", "above", "leaves nothing", "no snapshot", "no volume type", "no headroom", "is impossible", "no shrink pays"}
	rapid.Check(t, func(t *rapid.T) {
		doc := document(rapid.SampledFrom(paths).Draw(t, "field"), rapid.SampledFrom(values).Draw(t, "value"))
		_, err := policy.Load([]byte(doc))
		said := valid(t, s, doc)
		switch {
		case err == nil:
			require.NoError(t, said, doc)
		case said == nil:
			require.True(t, slices.ContainsFunc(together, func(m string) bool { return strings.Contains(err.Error(), m) }), "%s\n%s", doc, err)
		}
	})
}
