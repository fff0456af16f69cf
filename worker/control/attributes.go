package control

import (
	"context"
	"errors"
	"fmt"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"github.com/ebb-storage/ebb/internal/contract"
)

// attributes the workflows set. One that does not exist would fail every
// workflow task.
func attributes() []string {
	return []string{contract.AttrDisk, contract.AttrClaim, contract.AttrNode, contract.AttrPhase, contract.AttrOperation}
}

// prepare reaches Temporal and makes sure that the search attributes exist.
func (w *Worker) prepare(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := w.client.CheckHealth(call, &client.CheckHealthRequest{}); err != nil {
		return fmt.Errorf("temporal is not reachable: %w", err)
	}
	missing := w.tryAttributes(ctx)
	if missing == nil {
		return nil
	}
	call, cancel = context.WithTimeout(ctx, callTimeout)
	defer cancel()
	add := map[string]enumspb.IndexedValueType{}
	for _, name := range attributes() {
		add[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	_, err := w.client.OperatorService().AddSearchAttributes(call, &operatorservice.AddSearchAttributesRequest{
		Namespace: w.namespace, SearchAttributes: add,
	})
	var exists *serviceerror.AlreadyExists
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("search attributes are missing and may not be added (%w): run ebb setup as an administrator", err)
	}
	// They work a little later.
	if err := w.tryAttributes(ctx); err != nil {
		return fmt.Errorf("search attributes are not usable yet: %w", err)
	}
	return nil
}

// tryAttributes asks a query that needs each of them.
func (w *Worker) tryAttributes(ctx context.Context) error {
	for _, name := range attributes() {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := w.client.CountWorkflow(call, &workflowservice.CountWorkflowExecutionsRequest{Query: name + " = 'none'"})
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
