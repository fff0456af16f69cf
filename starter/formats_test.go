package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// TestFormatsAreComplete: testdata/formats.txtar has every command of the
// reference, but for those whose output has one format of its own.
func TestFormatsAreComplete(t *testing.T) {
	own := []string{"ebb completion bash", "ebb completion fish", "ebb completion powershell", "ebb completion zsh", "ebb policy schema"}
	reference, err := os.ReadFile(filepath.Join("..", "docs", "cli.md"))
	require.NoError(t, err)
	script, err := os.ReadFile(filepath.Join("testdata", "formats.txtar"))
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^## (ebb .*)$`).FindAllStringSubmatch(string(reference), -1) {
		if slices.Contains(own, m[1]) {
			continue
		}
		command := strings.TrimPrefix(m[1], "ebb ")
		require.Regexp(t, `(?m)^(data \d+|exec ebb) `+command+`( |$)`, string(script), "the formats of %s", m[1])
	}
}

// data CODE ARGS... runs ebb with -o json and with -o yaml, and FORMAT in the
// arguments in place of either. Both must end with that exit code, and what they
// print must parse; when they fail, so must the error.
func data(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	keys := map[string][]string{}
	for _, format := range []string{"json", "yaml"} {
		run := []string{"-o", format}
		for _, a := range args[1:] {
			run = append(run, strings.ReplaceAll(a, "FORMAT", format))
		}
		exits(ts, false, append([]string{strconv.Itoa(want), "ebb"}, run...))
		out, talk := ts.ReadFile("stdout"), ts.ReadFile("stderr")
		if want == 0 || out != "" {
			values, err := values(format, out)
			if err != nil || len(values) != 1 {
				ts.Fatalf("ebb %s: %d values, %v:\n%s", strings.Join(run, " "), len(values), err, out)
			}
			keys[format] = topKeys(values[0])
		}
		if want != 0 {
			_, body, _ := strings.Cut("\n"+talk, map[string]string{"json": "\n{", "yaml": "\nerror:"}[format])
			body = map[string]string{"json": "{", "yaml": "error:"}[format] + body
			values, err := values(format, body)
			if err != nil || len(values) != 1 || !slices.Equal(topKeys(values[0]), []string{"error"}) {
				ts.Fatalf("ebb %s: the error is no %s, %v:\n%s", strings.Join(run, " "), format, err, talk)
			}
		}
	}
	if !slices.Equal(keys["json"], keys["yaml"]) {
		ts.Fatalf("as JSON it has %v, as YAML %v", keys["json"], keys["yaml"])
	}
}

// parses FORMAT checks that the last output is a stream of values.
func parses(ts *testscript.TestScript, _ bool, args []string) {
	out := ts.ReadFile("stdout")
	if values, err := values(args[0], out); err != nil || len(values) == 0 {
		ts.Fatalf("%d values, %v:\n%s", len(values), err, out)
	}
}

// values decodes a stream of JSON values or of YAML documents. None is empty.
func values(format, text string) ([]any, error) {
	var out []any
	if format == "yaml" {
		for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
			if strings.TrimSpace(doc) == "" {
				continue
			}
			var v any
			if err := yaml.UnmarshalStrict([]byte(doc), &v); err != nil {
				return out, err
			}
			out = append(out, v)
		}
	} else {
		dec := json.NewDecoder(bytes.NewBufferString(text))
		for {
			var v any
			err := dec.Decode(&v)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return out, err
			}
			out = append(out, v)
		}
	}
	for _, v := range out {
		switch v.(type) {
		case map[string]any, []any:
		default:
			return out, errors.New("a value is no data")
		}
	}
	return out, nil
}

func topKeys(v any) []string {
	m, ok := v.(map[string]any)
	if !ok {
		return nil
	}
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
