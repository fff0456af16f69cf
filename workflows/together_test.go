package workflows_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"

	"github.com/ebb-storage/ebb/workflows"
)

// TestSignalBeforeCompletion replays what Temporal sends when a signal and,
// after it, the end of a step arrive in one workflow task: the signal counts
// before the next step. The history ends with what should follow: the disk is
// looked for, to rehome it, and not attached to a node that is gone.
func TestSignalBeforeCompletion(t *testing.T) {
	r := worker.NewWorkflowReplayer()
	workflows.Register(r)
	require.NoError(t, r.ReplayWorkflowHistoryFromJSONFile(nil, "testdata/rehome-with-completion.json"))
}
