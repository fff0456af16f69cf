package workflows

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRunsStayWithinTemporalsLimits: a workflow with 2000 children that run gets no
// further, and a proposal runs for days.
func TestRunsStayWithinTemporalsLimits(t *testing.T) {
	for _, c := range []struct{ starts, operations, asks int }{
		{500, 10000, 500}, {500, 0, 500}, {1000, 1000, 900}, {2000, 1200, 700}, {2000, 2000, 0}, {2000, 0, 1900}, {2000, 10000, 0},
	} {
		got := asksAtMost(c.starts, c.operations)
		require.Equal(t, c.asks, got, "%+v", c)
		require.LessOrEqual(t, got+min(c.starts, c.operations, childrenMost-got), 1900)
	}
}
