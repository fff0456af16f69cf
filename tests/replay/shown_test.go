package replay_test

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
	sdkpb "go.temporal.io/api/sdk/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/ebb-storage/ebb/internal/contract"
)

// keys are the search attributes of an operation.
var keys = [...]string{contract.AttrDisk, contract.AttrClaim, contract.AttrNode, contract.AttrPhase, contract.AttrOperation}

// attributes registers them, as ebb setup does.
func attributes() temporal.SearchAttributes {
	var up []temporal.SearchAttributeUpdate
	for _, k := range keys {
		up = append(up, temporal.NewSearchAttributeKeyKeyword(k).ValueSet(""))
	}
	return temporal.NewSearchAttributes(up...)
}

// shown is what Temporal's UI shows of an operation.
type shown struct {
	attributes map[string]string
	memo       map[string]any
	details    string
}

func (b *bench) shown(run client.WorkflowRun) shown {
	b.t.Helper()
	out := shown{attributes: map[string]string{}, memo: map[string]any{}}
	d, err := b.c.DescribeWorkflow(b.t.Context(), run.GetID(), run.GetRunID())
	require.NoError(b.t, err)
	for _, k := range keys {
		if v, ok := d.TypedSearchAttributes.GetKeyword(temporal.NewSearchAttributeKeyKeyword(k)); ok {
			out.attributes[k] = v
		}
	}
	for k, p := range d.Memo.GetFields() {
		var v any
		require.NoError(b.t, converter.GetDefaultDataConverter().FromPayload(p, &v))
		out.memo[k] = v
	}
	v, err := b.c.QueryWorkflow(b.t.Context(), run.GetID(), run.GetRunID(), "__temporal_workflow_metadata")
	require.NoError(b.t, err)
	var meta sdkpb.WorkflowMetadata
	require.NoError(b.t, v.Get(&meta))
	out.details = meta.CurrentDetails
	return out
}

// showsCopy checks everything a person sees of a shrink from 20 to 6 GiB that
// copies on nodeA, and that it is found by it.
func (b *bench) showsCopy(run client.WorkflowRun, d contract.DiskID) {
	b.t.Helper()
	s := b.shown(run)
	want := map[string]string{
		contract.AttrDisk: string(d), contract.AttrClaim: "team/data", contract.AttrNode: nodeA,
		contract.AttrPhase: string(contract.PhaseCopy), contract.AttrOperation: contract.ShrinkWorkflow,
	}
	require.Equal(b.t, want, s.attributes)
	require.EqualValues(b.t, 20, s.memo["fromGiB"])
	require.EqualValues(b.t, 6, s.memo["toGiB"])
	require.NotEmpty(b.t, s.memo["reason"])
	require.Equal(b.t, fmt.Sprintf("### Shrink of `%s`\n\nStep **7 of 10**: **copy** on node `%s`\n\n- backing: 20 GiB to 6 GiB\n", d, nodeA), s.details)

	query := "ExecutionStatus = 'Running'"
	for k, v := range want {
		query += fmt.Sprintf(" AND %s = '%s'", k, v)
	}
	require.Eventually(b.t, func() bool {
		list, err := b.c.ListWorkflow(b.t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: query})
		return err == nil && len(list.Executions) == 1 && list.Executions[0].Execution.RunId == run.GetRunID()
	}, 20*time.Second, 100*time.Millisecond, query)
}
