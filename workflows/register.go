package workflows

import (
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
)

// Register binds every workflow on a worker of ControlQueue.
func Register(r worker.WorkflowRegistry) {
	bind := func(name string, fn any) {
		r.RegisterWorkflowWithOptions(fn, workflow.RegisterOptions{Name: name})
	}
	bind(contract.CreateDiskWorkflow, CreateDisk)
	bind(contract.GrowWorkflow, Grow)
	bind(contract.ShrinkWorkflow, Shrink)
	bind(contract.ExpandWorkflow, Expand)
	bind(contract.RetypeWorkflow, Retype)
	bind(contract.RehomeWorkflow, Rehome)
	bind(contract.DeleteDiskWorkflow, DeleteDisk)
	bind(contract.RetireWorkflow, Retire)
	bind(contract.RightsizeWorkflow, Rightsize)
	bind(contract.RightsizeShardWorkflow, RightsizeShard)
	bind(contract.ProposeWorkflow, Propose)
	bind(contract.BudgetsWorkflow, Budgets)
	bind(contract.ReapWorkflow, Reap)
	bind(contract.CleanWorkflow, Clean)
	RegisterInspect(r)
}
