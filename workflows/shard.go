package workflows

import (
	"cmp"
	"fmt"
	"slices"

	"go.temporal.io/sdk/workflow"

	"github.com/ebb-storage/ebb/internal/contract"
	"github.com/ebb-storage/ebb/internal/fleet"
	"github.com/ebb-storage/ebb/internal/plan"
)

// surveysAtOnce bounds the nodes asked together.
const surveysAtOnce = 100

// RightsizeShard looks at the disks of some nodes and plans for them. A node that
// does not answer costs ten seconds, once; its disks are reported as not measured.
func RightsizeShard(ctx workflow.Context, in fleet.Shard) (fleet.ShardResult, error) {
	inventory, err := fleet.TakeInventory.Execute(fleetControl(ctx), in.Inventory)
	if err != nil {
		return fleet.ShardResult{}, err
	}
	var out fleet.ShardResult
	surveys := survey(ctx, inventory, in.DryRun, &out)
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	p, err := fleet.PlanDisks.Execute(fleetControl(ctx), fleet.PlanInput{Inventory: inventory, Surveys: surveys, Now: workflow.Now(ctx)})
	if err != nil {
		return fleet.ShardResult{}, err
	}
	out.Totals = p.Totals
	for _, d := range p.Decisions {
		d.Reasons = nil // they are in PlanDisks' result
		switch {
		case d.Action != plan.None:
			out.Do = append(out.Do, d)
		case d.Wanted != plan.None && d.Why == plan.WhyMode && d.Mode == plan.Recommend:
			out.Propose = append(out.Propose, d)
		}
	}
	// The most pressing first: without budgets Schedule only sorts.
	out.Do, _ = plan.Schedule(workflow.Now(ctx), out.Do, plan.Budgets{}, plan.Running{})
	slices.SortStableFunc(out.Propose, func(a, b plan.Decision) int { return cmp.Compare(order(a), order(b)) })
	out.Do, out.Propose = out.Do[:min(len(out.Do), in.Most)], out.Propose[:min(len(out.Propose), in.Most)]
	out.Rules = map[string]plan.Rule{}
	for _, d := range slices.Concat(out.Do, out.Propose) {
		out.Rules[d.Rule] = p.Rules[d.Rule]
	}
	return out, nil
}

// survey asks every node for all its disks at once.
func survey(ctx workflow.Context, inventory fleet.Inventory, dryRun bool, out *fleet.ShardResult) []contract.DiskSurvey {
	var nodes []string
	asked := map[string][]contract.SurveyDisk{}
	for _, e := range inventory.Disks {
		n := e.Facts.Node
		if n == "" {
			continue // its volumes were detached a moment ago
		}
		if asked[n] == nil {
			nodes = append(nodes, n)
		}
		ask := contract.SurveyDisk{Disk: e.Facts.Disk, LookBack: inventory.Rules[e.Rule].LookBack}
		if !dryRun {
			ask.Guide, ask.Forget = e.Guide, e.Guide == nil
		}
		asked[n] = append(asked[n], ask)
	}
	slices.Sort(nodes)
	answers := make([][]contract.DiskSurvey, len(nodes))
	each(ctx, surveysAtOnce, len(nodes), func(ctx workflow.Context, i int) {
		n := nodes[i]
		res, err := contract.SurveyNode.Execute(surveyNode(ctx, n), contract.SurveyInput{Disks: asked[n]})
		if err != nil {
			why := nodeRefusal(n, err).Message
			for _, d := range asked[n] {
				answers[i] = append(answers[i], contract.DiskSurvey{Disk: d.Disk, Problem: why})
			}
			out.Problems = append(out.Problems, fmt.Sprintf("%d disks were not measured: %s", len(asked[n]), why))
			return
		}
		answers[i] = res.Disks
	})
	slices.Sort(out.Problems)
	return slices.Concat(answers...)
}
