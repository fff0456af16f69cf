package replay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/encoding/protojson"
)

// Fetch reads a run's whole history; an empty runID is the latest run.
func Fetch(ctx context.Context, c client.Client, workflowID, runID string) (*historypb.History, error) {
	it := c.GetWorkflowHistory(ctx, workflowID, runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	h := &historypb.History{}
	for it.HasNext() {
		e, err := it.Next()
		if err != nil {
			return nil, fmt.Errorf("history of %s: %w", workflowID, err)
		}
		h.Events = append(h.Events, e)
	}
	return h, nil
}

// Replay runs a history through the workflows that register binds, under the id
// it was recorded with.
func Replay(h *historypb.History, register func(worker.WorkflowRegistry)) error {
	r := worker.NewWorkflowReplayer()
	register(r)
	var o worker.ReplayWorkflowHistoryOptions
	if len(h.Events) > 0 {
		began := h.Events[0].GetWorkflowExecutionStartedEventAttributes()
		o.OriginalExecution = workflow.Execution{ID: began.GetWorkflowId(), RunID: began.GetOriginalExecutionRunId()}
	}
	return r.ReplayWorkflowHistoryWithOptions(nil, h, o)
}

// Load reads what Save wrote.
func Load(path string) (*historypb.History, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h := &historypb.History{}
	if err := protojson.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

// Save writes a history as JSON that the replayer reads. Characters of name that
// do not fit a file name become '-'.
func Save(h *historypb.History, dir, name string) (path string, err error) {
	b, err := protojson.MarshalOptions{Indent: " "}.Marshal(h)
	if err != nil {
		return "", err
	}
	name = strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\: `, r) {
			return '-'
		}
		return r
	}, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	path = filepath.Join(dir, name+".json")
	return path, os.WriteFile(path, append(b, '\n'), 0o644)
}
