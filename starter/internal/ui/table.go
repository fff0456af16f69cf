package ui

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Table writes rows under a header, columns aligned, without borders, so that
// it reads well and cuts well. Columns whose header begins with '>' are
// aligned to the right.
func Table(w io.Writer, header []string, rows [][]string) error {
	right := make([]bool, len(header))
	all := make([][]string, 0, len(rows)+1)
	head := make([]string, len(header))
	for i, name := range header {
		head[i], right[i] = strings.CutPrefix(name, ">")
	}
	all = append(all, head)
	for _, row := range rows {
		cleaned := make([]string, len(header))
		for i := range cleaned {
			if i < len(row) {
				cleaned[i] = Clean(row[i])
			}
		}
		all = append(all, cleaned)
	}
	widths := make([]int, len(header))
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if right[i] {
				cell = pad + cell
			} else {
				cell += pad
			}
			line.WriteString(cell + "   ")
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Field is a line of a description.
type Field struct{ Name, Value string }

// Fields writes a description; fields without a value are left out.
func Fields(w io.Writer, fields ...Field) error {
	var b strings.Builder
	longest := 0
	for _, f := range fields {
		if f.Value != "" {
			longest = max(longest, len(f.Name))
		}
	}
	for _, f := range fields {
		if f.Value != "" {
			fmt.Fprintf(&b, "%-*s  %s\n", longest, f.Name, Clean(f.Value))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Clean makes text from elsewhere safe for a terminal: control characters,
// escape sequences among them, become '?'. Colors painted by Streams.Paint do
// not survive it; paint afterwards.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, s)
}

// CleanLines is Clean that lets lines be lines.
func CleanLines(s string) string {
	parts := strings.Split(s, "\n")
	for i := range parts {
		parts[i] = Clean(parts[i])
	}
	return strings.Join(parts, "\n")
}
