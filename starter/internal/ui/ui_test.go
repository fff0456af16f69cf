package ui

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func copyState(percent int64) State {
	return State{
		Title: "shrink data-1 32 -> 8 GiB", Phase: "copy", Step: 7, Steps: 10,
		Done: percent << 30, Total: 100 << 30, MiBs: 250, ETA: 90 * time.Second,
	}
}

func TestBarFitsTheTerminal(t *testing.T) {
	for width := 4; width < 200; width++ {
		for _, s := range []State{{}, copyState(0), copyState(37), copyState(100), {Title: "grow x", Phase: "modify", Note: strings.Repeat("n", 100)}} {
			require.LessOrEqual(t, len([]rune(barLine(s, width, 1))), width)
		}
	}
	require.Equal(t, "shrink data-1 32 -> 8 GiB  7/10 copy  [##############..........................]  37%  37 GiB of 100 GiB  250 MiB/s  ETA 2m",
		barLine(copyState(37), 150, 1))
	require.Equal(t, "- grow x  modify waiting for EBS", barLine(State{Title: "grow x", Phase: "modify", Note: "waiting for EBS"}, 80, 0))
}

func TestBarClearsItself(t *testing.T) {
	var out bytes.Buffer
	b := &bar{w: &out, width: func() int { return 80 }}
	b.Show(copyState(1))
	b.Close()
	require.True(t, strings.HasSuffix(out.String(), "\r\x1b[K"))
	require.NotContains(t, out.String(), "\n")
}

func TestLinesOnePerPhaseAndTenth(t *testing.T) {
	var out bytes.Buffer
	w := NewWatcher(&out)
	w.Show(State{Title: "shrink a", Phase: "create"})
	w.Show(State{Title: "shrink a", Phase: "create"})
	for p := int64(0); p <= 100; p++ {
		w.Show(copyState(p))
	}
	paused := copyState(100)
	paused.Paused = true
	w.Show(paused)
	w.Show(State{Title: "shrink a", Phase: "commit", Note: "evil \x1b[2J"})
	w.Close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 1+11+1+1)
	require.Equal(t, "shrink a  create", lines[0])
	require.Contains(t, lines[2], "7/10 copy  10%  10 GiB of 100 GiB  250 MiB/s  ETA 2m")
	require.Contains(t, lines[12], "copy (paused)")
	require.Equal(t, "shrink a  commit  evil ?[2J", lines[13])
}

func TestFractionStaysInBounds(t *testing.T) {
	require.Zero(t, State{}.Fraction())
	require.InDelta(t, 1, State{Done: 5, Total: 4}.Fraction(), 0)
	require.InDelta(t, 0, State{Done: -5, Total: 4}.Fraction(), 0)
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Table(&out, []string{"NAME", ">SIZE", "STATE"}, [][]string{{"a", "64 GiB", "ok"}, {"größe", "1 GiB", "bad\x1b\n"}, {"short"}}))
	require.Equal(t, "NAME      SIZE   STATE\na       64 GiB   ok\ngröße    1 GiB   bad??\nshort\n", out.String())
}

func TestFieldsLeaveOutWhatIsEmpty(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Fields(&out, Field{"disk", "d"}, Field{"nothing", ""}, Field{"size", "1 GiB"}))
	require.Equal(t, "disk  d\nsize  1 GiB\n", out.String())
}

func TestFormat(t *testing.T) {
	var f Format
	require.Error(t, f.Set("xml"))
	v := map[string]any{"b": "<x>", "a": 1}
	for want, name := range map[string]string{"{\n  \"a\": 1,\n  \"b\": \"<x>\"\n}\n": "json", "a: 1\nb: <x>\n": "yaml", "table": "table"} {
		require.NoError(t, f.Set(name))
		var out bytes.Buffer
		require.NoError(t, f.Print(&out, v, func(w io.Writer) error { _, err := io.WriteString(w, "table"); return err }))
		require.Equal(t, want, out.String())
	}
	var out bytes.Buffer
	f = JSONFormat
	require.NoError(t, f.Event(&out, v))
	f = YAMLFormat
	require.NoError(t, f.Event(&out, v))
	first, second, ok := strings.Cut(out.String(), "---\n")
	require.True(t, ok)
	require.JSONEq(t, `{"a":1,"b":"<x>"}`, first)
	require.Equal(t, "a: 1\nb: <x>\n", second)
}

func TestNoColorsWhereNobodyLooks(t *testing.T) {
	var out bytes.Buffer
	require.Equal(t, "x", Streams{}.Paint(&out, Bad, "x"))
}

func TestChanges(t *testing.T) {
	var c Changes
	require.True(t, c.New(1))
	require.False(t, c.New(1))
	require.True(t, c.New(2))
	require.False(t, c.New(func() {}))
}
