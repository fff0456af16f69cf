package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/ebb-storage/ebb/tests/bench/wire"
)

// keys of the summary and what each must reach; 0 is no bound.
var keys = []struct {
	name           string
	atLeast, upTo  float64
	relativeTo     string // upTo is a multiple of this key's value
	strictlyBeyond bool
}{
	{name: "move_vs_dd", atLeast: 0.8},
	{name: "move_vs_rsync_small", atLeast: 1, strictlyBeyond: true},
	{name: "copied_over_used_fresh", upTo: 1.05},
	{name: "copied_over_used_aged", upTo: 1.25},
	{name: "fsync_p99_idle_ms"},
	{name: "fsync_p99_move_ms", upTo: 2, relativeTo: "fsync_p99_idle_ms"},
	{name: "stack_vs_raw_seq", atLeast: 0.95},
	{name: "stack_vs_raw_rand4k", atLeast: 0.95},
	{name: "stack_vs_raw_fsync", atLeast: 0.95},
	{name: "grow_overhead_s", upTo: 2},
	{name: "agent_rss_mib", upTo: 50},
	{name: "agent_cpu_pct", upTo: 1},
	{name: "history_events_shrink"},
}

// values are the results that have a key.
func (b *bench) values() map[string]float64 {
	out := map[string]float64{}
	for _, r := range b.rows {
		if r.Key != "" {
			out[r.Key] = r.Value
		}
	}
	return out
}

// target says what a key must reach and whether it does.
func target(key string, values map[string]float64) string {
	v := values[key]
	for _, k := range keys {
		if k.name != key {
			continue
		}
		bound := k.upTo
		if k.relativeTo != "" {
			bound *= values[k.relativeTo]
		}
		verdict := func(ok bool, sign string, bound float64) string {
			if ok {
				return fmt.Sprintf("ok (%s %.4g)", sign, bound)
			}
			return fmt.Sprintf("MISSED (%s %.4g)", sign, bound)
		}
		switch {
		case k.strictlyBeyond:
			return verdict(v > k.atLeast, ">", k.atLeast)
		case k.atLeast > 0:
			return verdict(v >= k.atLeast, ">=", k.atLeast)
		case bound > 0:
			return verdict(v <= bound, "<=", bound)
		}
	}
	return ""
}

func number(r wire.Row) string {
	s := fmt.Sprintf("%.3f", r.Value)
	if r.Value >= 100 || r.Unit == "" {
		s = fmt.Sprintf("%.0f", r.Value)
	}
	return strings.TrimSpace(s + " " + r.Unit)
}

// table prints everything that was measured.
func (b *bench) table(w io.Writer) error {
	values := b.values()
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	group := ""
	for _, r := range b.rows {
		if r.Group != group {
			group = r.Group
			_, _ = fmt.Fprintf(t, "\n%s\tresult\ttarget\tremark\n", strings.ToUpper(group))
		}
		_, _ = fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", r.Name, number(r), target(r.Key, values), r.Note)
	}
	return t.Flush()
}

// write writes everything that was measured and the summary: exactly its keys, or those that were measured when
// only a part was asked for.
func (b *bench) write(dir string, whole bool) error {
	values := b.values()
	if whole {
		for _, k := range keys {
			if _, ok := values[k.name]; !ok {
				return fmt.Errorf("%s was not measured", k.name)
			}
		}
	}
	text, err := json.MarshalIndent(values, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rows, err := json.MarshalIndent(b.rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(rows, '\n'), 0o644); err != nil {
		return err
	}
	name := "summary.json"
	if !whole {
		name = "partial.json" // a summary has all its keys
	}
	return os.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o644)
}
