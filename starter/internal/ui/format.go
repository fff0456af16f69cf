package ui

import (
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// Format of the data a command prints.
type Format string

// Formats.
const (
	TableFormat Format = "table"
	JSONFormat  Format = "json"
	YAMLFormat  Format = "yaml"
)

// Set parses s; Format is a flag value.
func (f *Format) Set(s string) error {
	switch Format(s) {
	case TableFormat, JSONFormat, YAMLFormat:
		*f = Format(s)
		return nil
	}
	return fmt.Errorf("output %q: want table, json or yaml", s)
}

// Type names the value in help.
func (f *Format) Type() string { return "format" }

func (f *Format) String() string { return string(*f) }

// Print writes v in the format; table writes the table of it.
func (f Format) Print(w io.Writer, v any, table func(io.Writer) error) error {
	switch f {
	case JSONFormat:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case YAMLFormat:
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	default:
		return table(w)
	}
}

// Event writes v as one of a stream of values: a line of JSON, or a YAML
// document.
func (f Format) Event(w io.Writer, v any) error {
	if f == YAMLFormat {
		if _, err := io.WriteString(w, "---\n"); err != nil {
			return err
		}
		return f.Print(w, v, nil)
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
