package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

type position struct{ line, column int }

// Problem is one thing that is wrong with a document.
type Problem struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Field   string `json:"field,omitempty"` // path, such as rules[2].headroom.bytes
	Message string `json:"message"`
}

// String is the problem as one line.
func (p Problem) String() string {
	s := fmt.Sprintf("line %d, column %d: ", p.Line, p.Column)
	if p.Field != "" {
		s += p.Field + ": "
	}
	return s + p.Message
}

// Problems are all that was found, by line. They are the error of Load.
type Problems []Problem

// Error is a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps *Problems) add(at position, field, format string, args ...any) {
	*ps = append(*ps, Problem{Line: at.line, Column: at.column, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (ps Problems) sort() {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Field, b.Field))
	})
}

// oneOf lists choices for people.
func oneOf(s []string) string {
	if len(s) == 1 {
		return s[0]
	}
	return strings.Join(s[:len(s)-1], ", ") + " or " + s[len(s)-1]
}

// nearest is the choice that was probably meant, or "".
func nearest(got string, choices []string) string {
	best, least := "", 3
	for _, c := range choices {
		if d := distance(strings.ToLower(got), strings.ToLower(c)); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// distance is the number of letters to add, drop or change.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:60] + "..."
	}
	return s
}
