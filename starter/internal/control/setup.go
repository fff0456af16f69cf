package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/starter/internal/exit"
)

// attributes Ebb writes; the order is that of the report.
var attributes = [...]string{
	contract.AttrDisk, contract.AttrClaim, contract.AttrNode, contract.AttrPhase, contract.AttrOperation,
}

// SetupReport says what a namespace had and what was added.
type SetupReport struct {
	Address    string        `json:"address"`
	Namespace  string        `json:"namespace"`
	Retention  time.Duration `json:"retentionNanos"` // how long histories are kept
	Attributes []SetupItem   `json:"searchAttributes"`
	DryRun     bool          `json:"dryRun,omitempty"`
}

// SetupItem is one search attribute.
type SetupItem struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Action string `json:"action"` // present, added, missing (dry run)
}

// Setup registers the search attributes that are missing. Safe to repeat. It
// returns when Temporal accepts them in queries.
func (c *Client) Setup(ctx context.Context, dryRun bool) (SetupReport, error) {
	report := SetupReport{Address: c.address, Namespace: c.namespace, DryRun: dryRun}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	// 1. The namespace.
	ns, err := c.temporal.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: c.namespace})
	if err != nil {
		return report, c.callError("describe the namespace", err)
	}
	report.Retention = ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()

	// 2. What it has and lacks.
	have, err := c.temporal.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: c.namespace})
	if err != nil {
		return report, c.callError("list the search attributes", err)
	}
	missing := map[string]enumspb.IndexedValueType{}
	for _, name := range attributes {
		item := SetupItem{Name: name, Type: "Keyword", Action: "present"}
		switch kind, ok := have.GetCustomAttributes()[name]; {
		case !ok:
			missing[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
			item.Action = "added"
			if dryRun {
				item.Action = "missing"
			}
		case kind != enumspb.INDEXED_VALUE_TYPE_KEYWORD:
			return report, exit.New(exit.Refused, "search attribute %s exists with type %s; Ebb needs Keyword", name, kind).
				WithNext("use another namespace, or remove it: temporal operator search-attribute remove --name %s", name)
		}
		report.Attributes = append(report.Attributes, item)
	}
	if dryRun || len(missing) == 0 {
		return report, nil
	}

	// 3. Add.
	_, err = c.temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: c.namespace, SearchAttributes: missing,
	})
	var exists *serviceerror.AlreadyExists // somebody else set up at the same time
	var denied *serviceerror.PermissionDenied
	switch {
	case errors.As(err, &denied):
		return report, exit.New(exit.Failed, "Temporal does not let this identity add search attributes").Because(err).
			WithNext("have an administrator add %v as Keyword (Temporal Cloud: tcld namespace search-attributes add)", attributes)
	case err != nil && !errors.As(err, &exists):
		return report, c.callError("add the search attributes", err)
	}

	// 4. Wait until they work.
	return report, c.awaitAttributes(ctx)
}

func (c *Client) awaitAttributes(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.tryAttributes(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return exit.New(exit.Failed, "the search attributes were added but do not work yet").Because(err).
				WithNext("wait a minute and run ebb setup again")
		case <-tick.C:
		}
	}
}

func (c *Client) tryAttributes(ctx context.Context) error {
	for _, name := range attributes {
		_, err := c.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Namespace: c.namespace, Query: fmt.Sprintf("%s = 'none'", name),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
